"""Comparisons over seeds: what is paired with what, at which budget, and how wide the intervals are."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from rrl.cli.report import _budgets, _parse_arguments
from rrl.errors import ConfigError, DataError
from rrl.records.status import write_state
from rrl.study.arms import find_arms
from rrl.study.comparison import (
    Measure,
    as_markdown,
    at,
    compare_arms,
    marks,
    plus_minus,
    summary,
    token_count,
    tokens_to,
)

LEVEL = Measure("accuracy", "greedy", "L")


def run(folder: Path, seed: int, curve: Sequence[tuple[int, float]]) -> Path:
    """The directory of a run of this seed with (generated tokens, accuracy) at level L."""
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"seed": seed}))
    rows = [{"step": t, "tokens_generated": t, "greedy": {"levels": {"L": {"accuracy": a}}}} for t, a in curve]
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def runs(folder: Path, ends: dict[int, float]) -> list[Path]:
    """A run of each seed whose accuracy rises linearly from 0 to what ``ends`` says at 100 tokens, by folder name."""
    return sorted(run(folder / f"s{seed}", seed, [(0, 0.0), (100, end)]) for seed, end in ends.items())


def differences(result: dict, arm: str) -> list[float]:
    """The paired differences at the last budget."""
    return result["arms"][arm]["minus_first"][-1]["values"]


def test_differences_are_paired_by_seed_whatever_the_folders_are_called(tmp_path):
    """By name s10 stands before s2, and here an arm's folders are named in another order than its seeds."""
    first = runs(tmp_path / "first", {2: 0.1, 10: 0.5})
    second = [run(tmp_path / name, seed, [(0, 0.0), (100, end)]) for name, seed, end in (("a", 2, 0.2), ("b", 10, 0.7))]
    result = compare_arms({"first": first, "second": second}, LEVEL, [100])
    assert differences(result, "second") == pytest.approx([0.1, 0.2])


def test_other_seeds_are_not_paired(tmp_path):
    arms = {"first": runs(tmp_path / "first", {0: 0.1, 1: 0.2}), "second": runs(tmp_path / "second", {0: 0.1, 2: 0.2})}
    result = compare_arms(arms, LEVEL, [100])
    assert "minus_first" in result["arms"]["first"] and "minus_first" not in result["arms"]["second"]
    assert "| second | 2 | 0.150 ± 0.071 |  |" in as_markdown(result)


@pytest.mark.parametrize(
    ("mean", "spread", "text"),
    [
        (0.1234, 0.05, "0.123 ± 0.050"), (-1.5e-5, 0.023, "-0.000 ± 0.023"), (0.5, None, "0.500"), (0.0, None, "0.000"),
        (0.0002, 0.0001, "0.0002 ± 0.0001"), (1234.6, 3.25, "1235 ± 3.25"),
    ],
)  # fmt: skip
def test_a_mean_has_three_decimals_unless_it_is_large_or_tiny_with_its_spread(mean, spread, text):
    assert plus_minus(mean, spread) == text


def test_accuracies_between_evaluations_are_interpolated(tmp_path):
    result = compare_arms({"one": runs(tmp_path, {0: 0.8})}, LEVEL, [25, 100])
    assert [cell["mean"] for cell in result["arms"]["one"]["values"]] == pytest.approx([0.2, 0.8])
    assert at([(0, 0.0), (10, 1.0), (20, 0.5)], 15) == pytest.approx(0.75)


def test_a_run_that_ended_early_is_no_evidence_at_a_larger_budget(tmp_path):
    arms = {"whole": runs(tmp_path / "whole", {0: 0.8}), "cut": runs(tmp_path / "cut", {0: 0.8})}
    assert compare_arms(arms, LEVEL, [50, 100])["tokens"] == [50, 100]
    broken = run(tmp_path / "broken", 1, [(0, 0.0), (99, 0.9)])
    with pytest.raises(DataError, match=r"broken: its last evaluation is at 99 tokens; expected 100"):
        compare_arms(arms | {"cut": [broken]}, LEVEL, [50, 100])


def test_a_measure_that_begins_later_has_no_value_before(tmp_path):
    late = run(tmp_path / "late", 0, [(40, 0.1), (100, 0.9)])
    assert compare_arms({"late": [late]}, LEVEL, [40, 100])["arms"]["late"]["values"][0]["mean"] == 0.1
    with pytest.raises(DataError, match=r"late: its first value is at 40 tokens; expected 39 or less") as caught:
        compare_arms({"late": [late]}, LEVEL, [39, 100])
    assert caught.value.faults[-1] == "remedy: compare at larger budgets with tokens=..."
    assert (at([(8, 0.1), (10, 0.9)], 4), at([(8, 0.1), (10, 0.9)], 12)) == (0.1, 0.9)
    assert marks({"late": [late]}, LEVEL) == [66, 100]  # of 33, 66 and 100
    assert marks({"once": [run(tmp_path / "once", 0, [(257, 0.9)])]}, LEVEL) == [257]  # of 83, 166 and 250


def test_the_budget_to_reach_a_height():
    assert tokens_to([(0, 0.1), (100, 0.4), (200, 0.6)], 0.5) == 150
    assert tokens_to([(0, 0.1), (100, 0.4)], 0.5) is None
    assert tokens_to([(0, 0.9), (100, 0.95)], 0.5) == 0


@pytest.mark.parametrize(("freedom", "expected"), [(1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (30, 2.042)])
def test_intervals_are_students(freedom, expected):
    """Expected values are those of any table of the 97.5 % quantile."""
    found = summary([float(value) for value in range(freedom + 1)])
    assert found["half95"] * math.sqrt(freedom + 1) / found["sd"] == pytest.approx(expected, abs=5e-4)


def test_a_summary_by_hand():
    """Deviation of 0, 1, 0, ... (12 values): sqrt(12 * 0.25 / 11) = 0.5222; t at 11 degrees of freedom is 2.201."""
    found = summary([0.0, 1.0] * 6)
    assert (found["mean"], found["sd"]) == pytest.approx((0.5, 0.5222), abs=1e-4)
    assert found["half95"] == pytest.approx(2.201 * 0.5222 / 12**0.5, abs=1e-3)
    assert summary([0.5])["half95"] is None


def test_a_line_that_a_run_is_writing_is_no_row(tmp_path):
    folder = run(tmp_path / "run", 0, [(0, 0.0), (100, 0.5)])
    with (folder / "evaluations.jsonl").open("a") as file:
        file.write('{"step": 200, "tokens_gen')
    assert LEVEL.points(folder) == [(0, 0.0, 0.0, 0.0), (100, 0.5, 0.5, 0.5)]


def test_modes_are_not_mixed_where_none_is_given(tmp_path):
    arms = {"a": [evaluated(tmp_path / "a")], "b": [run(tmp_path / "b", 0, [(0, 0.0), (640, 0.5)])]}
    with pytest.raises(DataError) as refused:
        compare_arms(arms, Measure("accuracy", None, None), [100])
    assert refused.value.faults == (
        f"{tmp_path}/a: evaluated by mean@4, others are not; expected one mode",
        f"{tmp_path}/b: evaluated by greedy, others are not; expected one mode",
        "remedy: give a mode that all of them have, as in mode=greedy",
    )


def test_a_run_without_a_row_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"run: no whole row in evaluations.jsonl; expected one or more"):
        LEVEL.points(run(tmp_path / "run", 0, []))


# --- what is compared -------------------------------------------------------------------------------------------------


def evaluated(folder: Path) -> Path:
    """The directory of a run whose two evaluations and three steps are written by hand."""
    folder.mkdir(parents=True)
    rows = []
    for tokens, overall, hard in ((0, 0.25, 0.0), (640, 0.5, 0.125)):
        part = {
            "accuracy": overall,
            "interval95": [overall - 0.1, overall + 0.1],
            "levels": {"5": {"accuracy": hard, "interval95": [0.0, 0.5]}},
            "strata": {"subject": {"algebra": {"accuracy": 0.75, "interval95": [0.7, 0.8]}}},
        }
        rows.append({"step": tokens, "tokens_generated": tokens, "greedy": {**part, "accuracy": 0.9}, "mean@4": part})
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = [{"step": n, "budget/tokens_generated": 320 * n, "actor/entropy": [None, 2.0, 1.5][n]} for n in range(3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    (folder / "manifest.json").write_text(json.dumps({"seed": 0}))
    return folder


@pytest.mark.parametrize(
    ("measure", "points"),
    [
        (Measure("accuracy", None, None), [(0, 0.25, 0.15, 0.35), (640, 0.5, 0.4, 0.6)]),
        (Measure("accuracy", "mean@4", "5"), [(0, 0.0, 0.0, 0.5), (640, 0.125, 0.0, 0.5)]),
        (Measure("accuracy", None, "subject:algebra"), [(0, 0.75, 0.7, 0.8), (640, 0.75, 0.7, 0.8)]),
        (Measure("actor/entropy", None, None), [(320, 2.0, 2.0, 2.0), (640, 1.5, 1.5, 1.5)]),
    ],
)
def test_accuracy_overall_of_a_level_or_stratum_or_any_metric_is_compared(tmp_path, measure, points):
    assert measure.points(evaluated(tmp_path / "run")) == [pytest.approx(point) for point in points]


@pytest.mark.parametrize(
    ("measure", "reported"),
    [
        (Measure("accuracy", None, "L10"), "no level 'L10'; expected one of 5, subject:algebra, or none for all"),
        (Measure("accuracy", "mean@8", None), "no mode 'mean@8' in evaluations.jsonl; expected one of mean@4, greedy"),
        (Measure("actor/entrpy", None, None), "no 'actor/entrpy' in metrics.jsonl; did you mean 'actor/entropy'?"),
    ],
)
def test_what_a_run_does_not_have_is_reported_with_what_it_has(tmp_path, measure, reported):
    with pytest.raises(DataError, match=re.escape(reported)):
        measure.points(evaluated(tmp_path / "run"))


def test_budgets_are_thirds_of_what_all_runs_have_spent(tmp_path):
    arms = {"a": [evaluated(tmp_path / "a")], "b": [run(tmp_path / "b", 0, [(0, 0.0), (301_234, 0.5)])]}
    assert marks({"b": arms["b"]}, LEVEL) == [100_000, 200_000, 300_000]
    assert marks({"a": arms["a"]}, Measure("accuracy", None, None)) == [213, 426, 640]
    table = as_markdown(compare_arms({"a": arms["a"]}, Measure("accuracy", None, None), [213, 640]))
    assert "| arm | seeds | 213 | 640 | minus first arm at 640 (95 %) |" in table


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(300_000, "300 k"), (1_500, "1.5 k"), (640, "640"), (1_733, "1,733"), (2_000_000, "2,000 k")],
)
def test_small_budgets_are_reported_in_full(tokens, expected):
    assert token_count(tokens) == expected


# --- arms that are found ----------------------------------------------------------------------------------------------


def trained(folder: Path, seed: int, command: Sequence[str], finished: bool = True, **config) -> Path:
    """A run with a configuration of its own and the overrides it was started with."""
    run(folder, seed, [(0, 0.0), (100, 0.5)])
    (folder / "manifest.json").write_text(json.dumps({"seed": seed, "command": ["rrl-train", *command]}))
    whole = {"seed": seed, "algo": "rrl", "run": {"seed": seed, "dir": str(folder)}, "logger": None, **config}
    (folder / "config.yaml").write_text(json.dumps(whole))
    if finished:
        (folder / "result.json").write_text("{}")
    return folder


def test_runs_that_differ_in_seed_and_place_are_one_arm(tmp_path):
    for number, (sampler, seed) in enumerate([("problems", 2), ("problems", 10), ("redraw", 2), ("redraw", 10)]):
        command = [f"sampler={sampler}", "trainer.n=1", f"seed={seed}", f"run.dir='{tmp_path}'", "resume=auto"]
        records = {"records": {"_target_": "rrl.records.full.FullRecords"}} if seed == 10 else {}
        command += ["records=full"] if records else []
        trained(tmp_path / f"{9 + number}_x", seed, command, sampler=sampler, **records)
    arms, left_out = find_arms([tmp_path])
    assert {arm: [folder.name for folder in folders] for arm, folders in arms.items()} == {
        "sampler=problems": ["9_x", "10_x"], "sampler=redraw": ["11_x", "12_x"],
    }  # fmt: skip
    assert left_out == []


def test_arms_whose_overrides_do_not_differ_are_named_by_their_values(tmp_path):
    """The default changed between the two runs, and neither was given an override."""
    trained(tmp_path / "old", 0, [], trainer={"n": 1, "lam": 0.5})
    trained(tmp_path / "new", 0, [], trainer={"n": 2, "lam": 0.5})
    assert list(find_arms([tmp_path / "old", tmp_path / "new"])[0]) == ["trainer.n=1", "trainer.n=2"]


def test_the_arm_without_an_override_is_named_by_its_algorithm(tmp_path):
    trained(tmp_path / "a", 0, [])
    trained(tmp_path / "b", 0, ["sampler=redraw"], sampler="redraw")
    assert list(find_arms([tmp_path])[0]) == ["rrl", "sampler=redraw"]


def test_arms_that_differ_in_many_values_are_named_by_their_folders(tmp_path):
    for name in ("a", "b"):
        trained(tmp_path / name, 0, [], trainer={f"key{n}": name for n in range(20)})
    assert list(find_arms([tmp_path])[0]) == [str(tmp_path / "a"), str(tmp_path / "b")]


def test_one_arm_alone_is_named_by_its_algorithm(tmp_path):
    assert list(find_arms([trained(tmp_path / "a" / "b", 0, ["seed=0"])])[0]) == ["rrl"]


def test_a_run_that_did_not_come_to_its_end_is_left_out_and_reported(tmp_path):
    whole = trained(tmp_path / "1", 0, [])
    cut = trained(tmp_path / "2", 1, [], finished=False)
    arms, left_out = find_arms([tmp_path])
    assert (list(arms.values()), left_out) == ([[whole]], [f"left out: {cut} (unknown)"])
    with pytest.raises(DataError, match="no finished run in or below it; expected directories of runs"):
        find_arms([cut])


@pytest.mark.parametrize("job", ["pruned", "interrupted"])
def test_a_run_that_a_search_pruned_is_left_out_as_such(tmp_path, job):
    trained(tmp_path / "0", 0, [])
    cut = trained(tmp_path / "1", 1, [], finished=False)
    write_state(cut, "interrupted")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "1.json").write_text(json.dumps({"state": job}))
    assert find_arms([tmp_path])[1] == [f"left out: {cut} ({job})"]


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        ([], "no run given; expected a folder with runs, or NAME=PATTERN"),
        (["nowhere"], "nowhere: no such folder; expected one with runs"),
        (["levle=L10"], "levle: no run matches 'L10'; expected run directories; did you mean 'level'?"),
        (["a=*", "tokens=many"], "tokens: expected whole numbers with commas between them, as in 1e5,2e5, got 'many'"),
        (["a=*", "tokens=1e5,nan"], "as in 1e5,2e5, got '1e5,nan'"),
        (["a=*", "tokens=-1"], "as in 1e5,2e5, got '-1'"),
        (["a=*", "tokens=1,,2"], "as in 1e5,2e5, got '1,,2'"),
        (["a=x*", "a=y*"], "a: given twice; keep one"),
        ([".", "level=L3", "level=L10"], "level: given twice; keep one"),
        ([".", "metric=actor/entropy", "level=L3"], "level: 'L3' is of an accuracy, and metric is 'actor/entropy'"),
        ([".", "metric=actor/entropy", "mode=greedy"], "mode: 'greedy' is of an accuracy"),
    ],
)
def test_arguments_that_do_not_fit_are_reported(arguments, reported):
    with pytest.raises(ConfigError, match=re.escape(reported)):
        _parse_arguments(arguments)


@pytest.mark.parametrize("text", ["100000,200000", "1e5,2e5", "100_000, 2E5", "100000.0,200_000"])
def test_budgets_may_be_written_as_the_configuration_takes_numbers(text):
    assert _budgets(text) == [100000, 200000]
