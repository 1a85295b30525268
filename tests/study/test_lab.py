"""rrl-lab: rules on failures whose truth is known, and the command on a real run, which it leaves as it is."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.knowing import Knowing, known_run
from fixtures.runs import arguments
from fixtures.training import tokenizer
from rrl.cli import lab as command
from rrl.cli import train
from rrl.config.choices import groups
from rrl.cuts import Cutter
from rrl.errors import ConfigError, DataError
from rrl.interfaces import Selection
from rrl.parts.selections.oracle import Oracle
from rrl.study.lab import STATISTICS, LabSettings, _rules, trial
from rrl.types import Feedback, TokenScores, Verdict

SETTINGS = LabSettings(problems=40, n=4, continuations=20, seed=0, step=None, level=None, rules=None)


@dataclass(frozen=True)
class At(Selection):
    """Cuts after so many tokens, if that is legal."""

    length: int

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        return [self.length] if self.length in legal else []

    def score(self, response: TokenScores, cut: int) -> float:
        return float(cut)


@dataclass(frozen=True)
class Anywhere(At):
    """Half of the time after one token, else after two."""

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        return [rng.choice([1, 2])]


def tried(**rules: Selection) -> dict[str, Any]:
    return trial(known_run(1), rules, Cutter(tokenizer(), "token"), SETTINGS)


def value(row: dict[str, Any], name: str) -> float:
    low, high = row[name]["interval95"]
    assert low <= row[name]["value"] <= high
    return float(row[name]["value"])


# Each of three values is right with probability 0.8, whatever stands before it: a response is right with 0.512. Of the
# failures (0.488), 0.8 - 0.512 = 0.288 have a right first value, 0.64 - 0.512 = 0.128 two right ones. From a right
# prefix of one value 0.64 of the continuations succeed, of two 0.8; from a wrong one none.
def test_rules_are_judged_by_error_free_cuts_and_by_success_against_the_prompts_of_the_same_problems() -> None:
    found = tried(one=At(1), two=At(2), never=At(9))
    assert found["failures"] == pytest.approx(0.488 * 20 * 4, abs=9)  # there are twenty problems
    one, two, never = (found["rules"][name] for name in ("one", "two", "never"))
    assert value(one, "error_free") == pytest.approx(0.288 / 0.488, abs=0.15)
    assert value(two, "error_free") == pytest.approx(0.128 / 0.488, abs=0.15)
    for row, chance in ((one, 0.64), (two, 0.8)):
        assert value(row, "success") == pytest.approx(chance * value(row, "error_free"), abs=0.04)
        assert value(row, "redraw_per_kilotoken") == pytest.approx(1000 * 0.512 / 4, abs=8)  # three values and an end
    assert value(one, "per_kilotoken") == pytest.approx(1000 * value(one, "success") / 3)
    assert value(two, "per_kilotoken") == pytest.approx(1000 * value(two, "success") / 2)
    lead = value(two, "per_kilotoken") - value(two, "redraw_per_kilotoken")
    assert value(two, "lead_per_kilotoken") == pytest.approx(lead)
    assert value(one, "mixed") == pytest.approx(value(one, "error_free"), abs=0.02)  # of 20 some are wrong
    assert value(one, "gain") == pytest.approx(value(one, "success") - 0.512, abs=0.04)
    assert (value(one, "position"), value(two, "position")) == (0.25, 0.5)
    assert (one["found"], never["found"], never["states"]) == (1.0, 0.0, 0) and "success" not in never


def test_mixed_states_are_those_of_which_some_continuations_succeed_and_some_fail() -> None:
    rows = [{"success": one, "from_prompt": other} for one, other in ((0.0, 1.0), (0.25, 0.0), (1.0, 0.5), (0.75, 0.0))]
    assert (STATISTICS["mixed"](rows), STATISTICS["redraw_mixed"](rows)) == (0.5, 0.25)


def test_the_oracle_cuts_without_errors_and_is_left_out_where_the_task_tells_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = tried(oracle=Oracle(cut="last"), one=At(1))
    assert value(found["rules"]["oracle"], "error_free") == 1.0 and found["left_out"] == {}
    assert value(found["rules"]["oracle"], "success") > 0.5
    monkeypatch.setattr("rrl.parts.tasks.trace._judge", lambda rollout: Feedback(0.0, Verdict.WRONG))
    silent = tried(oracle=Oracle(cut="last"), one=At(1))
    assert list(silent["rules"]) == ["one"] and "this task does not tell" in silent["left_out"]["oracle"]
    assert "error_free" not in silent["rules"]["one"]


# Under tokens of two characters a cut after one token of "0 8 6" ("0 ") has no error, one after two ("0 8 ") neither.
def test_errors_are_counted_in_tokens_of_the_runs_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    run = known_run(1)
    monkeypatch.setattr(run, "tokenizer", SimpleNamespace(decode=lambda tokens: "0 8 6"[: 2 * len(tokens)]))
    judged = "rrl.parts.tasks.trace._judge"
    monkeypatch.setattr(judged, lambda rollout: Feedback(0.0, Verdict.WRONG, {"error_free": 4}))
    written = Knowing.generate
    monkeypatch.setattr(
        Knowing, "generate", lambda *given: [replace(each, response="0 8 6") for each in written(*given)]
    )
    found = trial(run, {str(n): At(n) for n in (1, 2, 3)}, Cutter(tokenizer(), "token"), SETTINGS)
    assert [value(found["rules"][name], "error_free") for name in "123"] == [1.0, 1.0, 0.0]


def test_failures_continuations_and_control_are_drawn_by_random_numbers_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds, run = list[int](), known_run(1)
    whole = run.continued
    monkeypatch.setattr(
        run, "continued", lambda states, count, seed: (seeds.append(seed), whole(states, count, seed))[1]
    )
    trial(run, {"one": At(1)}, Cutter(tokenizer(), "token"), SETTINGS)
    assert len(seeds) == len(set(seeds)) == 3


def test_a_state_that_two_rules_find_is_continued_once() -> None:
    alone, twice = tried(one=At(1)), tried(one=At(1), again=At(1))
    assert alone["tokens"] == twice["tokens"] and twice["rules"]["one"] == twice["rules"]["again"]
    assert twice["agreement"] == {"one": {"one": 1.0, "again": 1.0}, "again": {"one": 1.0, "again": 1.0}}


def test_rules_that_draw_draw_anew_for_each_failure_and_agree_as_often_as_by_chance() -> None:
    found = tried(any=Anywhere(0), one=At(1), never=At(9))
    assert 0.3 < found["agreement"]["any"]["one"] < 0.7
    assert found["agreement"]["any"]["never"] is None
    assert 0.3 < value(found["rules"]["any"], "position") < 0.45


# Scores are the lengths: of right prefixes the longer one succeeds more often, but the longer one is more often wrong.
def test_the_rank_correlation_is_that_of_score_and_success_over_the_states_of_a_rule() -> None:
    found = tried(any=Anywhere(0))["rules"]["any"]
    assert value(found, "rank_correlation") < 0


def test_every_rule_is_tried_also_those_that_the_default_sampler_refuses() -> None:
    made, left_out = _rules(SETTINGS, ["template=chat", "data.cut_points=line"], critic=True)
    assert left_out == {} and {"oracle", "verified", "self_localized"} < set(made) == set(groups()["selection"])


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of replay, of which all rollouts are dumped, with a rule that has more written."""
    folder = tmp_path_factory.mktemp("runs") / "rrl"
    rule = {"sampler": "retrospective", "selection": "verified", "selection.continuations": 3}
    rule |= {"run.rollout_freq": 1, "run.test_freq": "null"}
    train._train(arguments(folder, trainer__ppo_epochs=1, trainer__total_training_steps=2, **rule))
    return folder


def test_a_run_counts_the_tokens_that_its_rule_had_written(run: Path) -> None:
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][1:]
    dumped = [json.loads(line) for path in (run / "rollouts").iterdir() for line in path.read_text().splitlines()]
    written = sum(step["replay/examine_tokens"] for step in steps)
    assert steps[-1]["budget/tokens_generated"] == sum(row["tokens"] for row in dumped) + written
    assert written > 3 * 3 * steps[0]["replay/examined"] > 0 and steps[0]["timing_s/examine"] > 0


def test_rules_that_have_more_written_are_tried_on_all_failures_and_their_tokens_are_counted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spent = []
    for rules in ("random_cut", "random_cut,verified,self_localized"):
        out = tmp_path / str(len(spent))
        command._lab([str(run), "problems=4", "n=2", "continuations=2", f"rules={rules}", f"out={out}"])
        spent.append(json.loads((out / "lab.json").read_text()))
    plain, more = spent
    # 4 problems * (2 responses * (1 + 2 rules * 2 continuations) + 2 from the prompt), and 8 failures * 3 points * 4
    assert f"at most {(4 * (2 * 5 + 2) + 8 * 3 * 4) * 16:,} tokens are generated" in capsys.readouterr().err
    assert list(more["rules"]) == ["random_cut", "verified"] and more["failures"] == 8
    assert more["left_out"]["self_localized"].startswith("data.cut_points: token, but the policy is asked")
    assert more["rules"]["random_cut"] == plain["rules"]["random_cut"]
    assert more["tokens"]["generated"] - plain["tokens"]["generated"] > 8 * 3 * 4


def test_all_rules_are_tried_on_the_last_checkpoint_and_the_run_stays_as_it_is(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {str(path): path.stat().st_mtime_ns for path in run.rglob("*")}
    sizes = ["problems=4", "n=2", "continuations=2"]
    command._lab([str(run), *sizes, "rules=[confidence, random_cut, entropy]", f"out={tmp_path / 'lab'}"])
    assert {str(path): path.stat().st_mtime_ns for path in run.rglob("*")} == before
    result = json.loads((tmp_path / "lab" / "lab.json").read_text())
    assert (result["step"], list(result["rules"])) == (2, ["confidence", "random_cut", "entropy"])
    printed = capsys.readouterr()
    # 4 problems * (2 responses * (1 + 3 rules * 2 continuations) + 2 from the prompt) * 16 tokens
    assert f"step 2: at most {4 * (2 * 7 + 2) * 16:,} tokens are generated" in printed.err
    assert result["tokens"]["generated"] <= 1024 and printed.out == (tmp_path / "lab" / "lab.md").read_text() + "\n"
    assert f"{result['tokens']['generated']:,} tokens generated" in printed.out and "| random_cut | " in printed.out
    assert (tmp_path / "lab" / "lab.png").read_bytes().startswith(b"\x89PNG")
    assert math.isclose(result["agreement"]["entropy"]["entropy"], 1.0)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["{run}", "rules=confidnce"], "rules: no rule 'confidnce'; did you mean 'confidence'"),
        (["{run}", "step=7"], "no checkpoint of step 7; expected one; there are those of"),
        (["{run}", "level=L99"], "no problem of level 'L99' to train on; valid: L10, L3"),
        (["{run}", "n=0"], "n: expected at least 1, got 0"),
        (["{run}", "problems=x"], "problems: expected a whole number, got 'x'"),
        ([], "RUN: expected one run"),
        (["{run}/checkpoints"], "holds no run"),
        (["{run}", "out={run}"], "out: .* exists; expected a new folder"),
        (["{run}", "n=0", "out={run}/config.yaml/lab"], "n: expected at least 1, got 0"),
        (["{run}", "step=7", "out={run}/config.yaml/lab"], "out: nothing can be written in"),
    ],
)
def test_bad_input_is_named_with_the_remedy(words: list[str], reported: str, run: Path) -> None:
    with pytest.raises((ConfigError, DataError), match=reported):
        command._lab([word.format(run=run) for word in words])
