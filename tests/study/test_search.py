"""Searches: values that Optuna chooses, trials that go on, and jobs that fall behind."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from fixtures.sweeps import swept, when
from rrl.study.search import Optuna, Trial, distribution

pytestmark = pytest.mark.clock


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1,2", ("CategoricalDistribution", {"choices": ("1", "2")})),
        ("a=choice([1,2],'x y')", ("CategoricalDistribution", {"choices": ("[1,2]", "x\\ y")})),
        ("a=range(1,4)", ("CategoricalDistribution", {"choices": ("1", "2", "3")})),
        ("a=interval(0.5,2)", ("FloatDistribution", {"low": 0.5, "high": 2.0, "log": False, "step": None})),
        ("a=tag(log,interval(0.5,2))", ("FloatDistribution", {"low": 0.5, "high": 2.0, "log": True, "step": None})),
        ("a=int(interval(1,9))", ("IntDistribution", {"low": 1, "high": 9, "log": False, "step": 1})),
    ],
)
def test_values_of_a_search_are_written_as_those_of_a_sweep(text: str, expected: tuple[str, dict[str, Any]]) -> None:
    found = distribution(text)
    assert (type(found).__name__, found._asdict()) == expected


SEARCH = ("search=optuna", "search.sampler=random", "search.startup_trials=1", "run.test_freq=5")


def test_optuna_chooses_values_and_a_failed_job_is_a_failed_trial(tmp_path: Path, fake: None) -> None:
    code, _, jobs = swept(tmp_path, "seed=3,1", *SEARCH, "search.n_trials=4")
    values = [job.overrides[0] for job in jobs.values()]
    assert (code, len(jobs), set(values)) == (1, 4, {"seed=3", "seed=1"})
    ends = {"seed=3": "FAIL", "seed=1": "COMPLETE"}
    study = Optuna(n_trials=4, sampler="random", pruner="none", startup_trials=1, seed=0, params={})
    trials = study.open(tmp_path / "sweep", 9).trials
    assert [trial.state.name for trial in trials] == [ends[value] for value in values]
    best = json.loads((tmp_path / "sweep" / "best.json").read_text())
    assert (best["accuracy"], best["overrides"]) == (0.5, ["seed=1"])


def test_a_search_goes_on_with_its_study_and_with_more_trials(tmp_path: Path, fake: None) -> None:
    when(lambda: any(tmp_path.glob("sweep/0_*/seen.json")), lambda: os.kill(os.getpid(), signal.SIGINT))
    code, _, before = swept(tmp_path, "seed=7", "trainer.n=2,3", *SEARCH, "search.n_trials=2")
    assert (code, [job.state for job in before.values()]) == (130, ["interrupted", "not started"])
    (tmp_path / "sweep" / "calm").touch()
    code, _, jobs = swept(tmp_path, "resume=auto", "search.n_trials=3")
    assert (code, [job.state for job in jobs.values()]) == (0, ["finished"] * 3)
    assert next(iter(jobs)) == next(iter(before))  # the first keeps its values
    assert sorted(job.trial for job in jobs.values()) == [0, 1, 2]


@pytest.mark.slow
def test_a_job_that_falls_behind_is_ended_and_reported(tmp_path: Path, fake: None) -> None:
    """Of seeds 13 and 14 the first has 0.9 at step 5, the other 0.1, and would then go on for a minute."""
    code, _, jobs = swept(tmp_path, "seed=13,14", *SEARCH, "search.seed=1", "search.n_trials=3")  # 13, 13, 14
    states = {tuple(job.overrides): job.state for job in jobs.values()}
    assert (code, states) == (0, {("seed=13",): "finished", ("seed=14",): "pruned"})


def test_a_trial_is_pruned_below_the_median_at_its_step(tmp_path: Path) -> None:
    """Median of 0.5, 0.6 and 0.9 at step 5 is 0.6."""
    optuna = Optuna(n_trials=9, sampler="random", pruner="median", startup_trials=1, seed=0, params={})

    def trial(value: float, name: str) -> tuple[Trial, bool]:
        (tmp_path / name).mkdir()
        row = {"step": 5, "greedy": {"accuracy": 0.0}, "mean@2": {"accuracy": value}}
        (tmp_path / name / "evaluations.jsonl").write_text(json.dumps(row) + "\n")
        made = Trial(optuna.open(tmp_path, 0), {"seed": "1,2"}, None)
        return made, made.falls_behind(tmp_path / name)

    for value in (0.9, 0.6, 0.5):
        trial(value, f"run-{value}")[0].end("finished", value)
    assert [trial(value, f"late-{value}")[1] for value in (0.59, 0.61)] == [True, False]
