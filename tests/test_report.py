"""Comparisons over seeds: what is paired with what, at which budget, and how wide the intervals are."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from rrl.errors import DataError
from rrl.report import as_markdown, at, compare, summary, t975, tokens_to


def run(folder: Path, seed: int, curve: Sequence[tuple[int, float]]) -> Path:
    """The directory of a run of this seed with (generated tokens, accuracy) at level L."""
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"seed": seed}))
    rows = [{"tokens_generated": t, "greedy": {"levels": {"L": {"accuracy": a}}}} for t, a in curve]
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
    result = compare({"first": first, "second": second}, "greedy", "L", [100])
    assert differences(result, "second") == pytest.approx([0.1, 0.2])


def test_other_seeds_are_not_paired(tmp_path):
    arms = {"first": runs(tmp_path / "first", {0: 0.1, 1: 0.2}), "second": runs(tmp_path / "second", {0: 0.1, 2: 0.2})}
    result = compare(arms, "greedy", "L", [100])
    assert "minus_first" in result["arms"]["first"] and "minus_first" not in result["arms"]["second"]
    assert "| second | 2 | 0.150 ± 0.071 |  |" in as_markdown(result)


def test_accuracies_between_evaluations_are_interpolated(tmp_path):
    result = compare({"one": runs(tmp_path, {0: 0.8})}, "greedy", "L", [25, 100])
    assert [cell["mean"] for cell in result["arms"]["one"]["accuracy"]] == pytest.approx([0.2, 0.8])
    assert at([(0, 0.0), (10, 1.0), (20, 0.5)], 15) == pytest.approx(0.75)


def test_a_run_that_ended_early_is_no_evidence_at_a_larger_budget(tmp_path):
    arms = {"whole": runs(tmp_path / "whole", {0: 0.8}), "cut": runs(tmp_path / "cut", {0: 0.8})}
    assert compare(arms, "greedy", "L", [50, 100])["tokens"] == [50, 100]
    broken = run(tmp_path / "broken", 1, [(0, 0.0), (99, 0.9)])
    with pytest.raises(DataError, match=r"broken: its last evaluation is at 99 tokens; expected 100"):
        compare(arms | {"cut": [broken]}, "greedy", "L", [50, 100])


def test_the_budget_to_reach_a_height():
    assert tokens_to([(0, 0.1), (100, 0.4), (200, 0.6)], 0.5) == 150
    assert tokens_to([(0, 0.1), (100, 0.4)], 0.5) is None
    assert tokens_to([(0, 0.9), (100, 0.95)], 0.5) == 0


@pytest.mark.parametrize(("freedom", "expected"), [(1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (30, 2.042)])
def test_intervals_are_students(freedom, expected):
    """Expected values are those of any table of the 97.5 % quantile."""
    assert t975(freedom) == pytest.approx(expected, abs=0.003)


def test_a_summary_by_hand():
    """Deviation of 0, 1, 0, ... (12 values): sqrt(12 * 0.25 / 11) = 0.5222; t at 11 degrees of freedom is 2.201."""
    found = summary([0.0, 1.0] * 6)
    assert (found["mean"], found["sd"]) == pytest.approx((0.5, 0.5222), abs=1e-4)
    assert found["half95"] == pytest.approx(2.201 * 0.5222 / 12**0.5, abs=1e-3)
    assert summary([0.5])["half95"] is None
