"""Sweeps: every value is checked, and all faults are reported before anything starts."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.sweeps import faults
from rrl.study import sweeps
from rrl.study.sweep_jobs import devices_needed

pytestmark = pytest.mark.clock


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory which the test leaves empty; what starts all the same ends at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweeps, "LAUNCH", (sys.executable, "-c", "raise SystemExit('started')"))
    yield tmp_path
    assert not list(tmp_path.iterdir())


def test_every_value_is_checked_and_all_faults_are_reported_at_once(nowhere: Path) -> None:
    assert faults("algo=ppo,rll", "sead=0,1", "trainer.n=1,0,2", "run.dir=x", "--cfg") == [
        "run.dir=x: names one run; the directories of jobs are below that of the sweep: give hydra.sweep.dir=...",
        "--cfg: no such option; expected key=value, or --help",
        "sead: no such key; did you mean 'seed'?",
        "algo: no such choice 'rll'; did you mean 'rrl'? valid: gsi, ppo, ppocoder, rltf, rltf_original, rrl",
        "trainer.n: expected at least 1, got 0",
    ]


def test_what_belongs_to_one_run_is_refused(nowhere: Path) -> None:
    assert faults("dry_run=x", "seed=0,1") == ["dry_run=x: is for one run; omit --multirun"]


def test_a_key_that_is_given_twice_is_reported(nowhere: Path) -> None:
    assert faults("seed=1", "seed=2") == ["seed: given twice, as 'seed=1' and 'seed=2'; keep one"]
    assert faults("seed=0,1", "seed=2")[0] == "seed: given twice, as 'seed=0' and 'seed=2'; keep one"


@pytest.mark.parametrize("text", ["seed=0,0", "seed=0,1,0", "seed=choice(0,0)"])
def test_the_same_job_twice_is_reported(nowhere: Path, text: str) -> None:
    assert faults(text) == ["seed: 'seed=0' is among its values twice, which is the same job twice; keep one"]


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("trainer.n=range(0,500)", ["trainer.n: expected at least 1, got 0"]),
        ("trainer.n=range(3,-1,step=-1)", ["trainer.n: expected at least 1, got 0"]),
        ("objective.gamma=range(0.5,2.6,step=0.1)", ["objective.gamma: expected a number from 0"]),
    ],
)
def test_both_ends_of_a_range_are_checked(nowhere: Path, text: str, reported: list[str]) -> None:
    assert [fault[: len(reported[0])] for fault in faults(text)] == reported


def test_an_interval_needs_a_search(nowhere: Path) -> None:
    (reported,) = faults("objective.clip_ratio=interval(0.1,0.3)")
    assert reported.endswith("an interval needs a search; list values, or use search=optuna")


def test_a_pattern_of_choices_is_refused(nowhere: Path) -> None:
    assert faults("algo=glob(*)")[0] == "algo=glob(*): patterns are not expanded; list the choices"


def test_a_plugin_that_is_not_installed_is_reported_with_the_command_that_installs_it(nowhere: Path) -> None:
    (reported,) = faults("hydra/launcher=jobblib", "seed=0,1")
    assert reported.startswith("hydra/launcher: no such choice 'jobblib'; installed: basic")
    assert reported.endswith("come with pip install -e '.[sweep]'")


def test_a_misspelt_key_of_the_launcher_is_reported(nowhere: Path) -> None:
    (reported,) = faults("hydra.launcher.n_jobs=2", "seed=0,1")
    assert reported.startswith("hydra: Could not override 'hydra.launcher.n_jobs'")


def test_a_value_that_does_not_fit_the_launcher_is_reported_with_what_it_should_be(nowhere: Path) -> None:
    (reported,) = faults("hydra/launcher=joblib", "hydra.launcher.n_jobs=two", "seed=0,1")
    assert "hydra.launcher.n_jobs=two" in reported
    assert "could not be converted to Integer" in reported


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (["objective.clip_ratio=interval(0.1,-0.3)", "run.test_freq=5"], "objective.clip_ratio: expected a number"),
        (["trainer.n=interval(1,3)", "run.test_freq=5"], "trainer.n: expected int, got "),
        (["seed=1"], "search: no key takes more than one value; expected some, as in policy.actor_lr="),
        (["seed=1,2", "run.test_freq=null"], "search.pruner: 'median' needs evaluations in training; set run.test"),
        (["seed=1,2", "search.n_trials=0"], "search.n_trials: expected at least 1, got 0"),
        (["seed=1,2", "hydra/sweeper=optuna"], "hydra/sweeper=optuna: no such choice; expected none; to have values"),
    ],
)
def test_a_search_that_cannot_work_is_refused(nowhere: Path, arguments: list[str], reported: str) -> None:
    assert faults("search=optuna", *arguments)[0].startswith(reported)


def test_a_directory_that_holds_anything_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    assert faults(f"hydra.sweep.dir={tmp_path}", "seed=0,1", "run.dir=x") == [
        "run.dir=x: names one run; the directories of jobs are below that of the sweep: give hydra.sweep.dir=...",
        f"hydra.sweep.dir: {str(tmp_path)!r} exists and is not an empty folder; expected a new one; give another, "
        f"or continue a sweep with rrl-train -m resume={tmp_path}",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_more_devices_than_there_are_is_a_fault(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert faults("seed=0,1", "launcher.num_processes=1,3") == [
        "launcher.num_processes: 3, but there are 2 devices here: 4, 7"
    ]


def test_a_job_borrows_a_device_for_each_of_its_processes_on_this_machine() -> None:
    assert devices_needed({"launcher": {"num_processes": 4}}) == 4
    assert devices_needed({"launcher": {"num_processes": 4, "hostfile": "hosts"}}) == 0
