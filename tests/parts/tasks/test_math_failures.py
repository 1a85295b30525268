"""MATH: which failures of the verifier are charged to the answer and which to the verifier."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from fixtures.math_task import HERE, LIMITS, judge
from rrl.types import Verdict
from rrl.verifiers.math_verifier import MathVerifier

__all__ = ["judge"]

pytestmark = pytest.mark.process


@dataclass(kw_only=True, eq=False)
class Fragile(MathVerifier):
    """A judge whose workers do what the texts say, see fixtures/math_worker.py."""

    module: ClassVar[str] = "fixtures.math_worker"


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fragile]:
    """Its workers."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    made = Fragile(**LIMITS | {"seconds": 0.2, "patience": 1.5, "memory_mb": 300})
    yield made
    made.close()


BLAME = [
    # what happens, as answer and as reference: verdict, outcome
    ("spin", ("unparseable", "time_out"), ("error", "time_out")),
    ("hog", ("unparseable", "memory"), ("error", "memory")),
    ("raise", ("unparseable", "raised"), ("error", "raised")),
    ("segv", ("unparseable", "crashed"), ("error", "crashed")),
    ("kill", ("error", "killed"), ("error", "killed")),
    ("sleep", ("error", "stalled"), ("error", "stalled")),
]


@pytest.mark.parametrize(("deed", "as_answer", "as_reference"), BLAME)
def test_an_answer_that_breaks_the_verifier_is_unparseable_and_other_failures_are_its_own(
    deed: str, as_answer: tuple[str, str], as_reference: tuple[str, str], fragile: Fragile
) -> None:
    found = fragile.judge([("1", "2"), (deed, "1"), ("1", deed)])
    reported = [(f.verdict.value, f.evidence["outcome"]) for f in found]
    assert reported == [("wrong", "different"), as_answer, as_reference]
    assert [f.score for f in found] == [0.0, 0.0, 0.0]
    assert ("error" in found[1].evidence) == (deed != "hog")


def test_a_canary_that_is_judged_wrongly_makes_the_whole_batch_an_error(
    fragile: Fragile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/always-equal")
    found = fragile.judge([("1", "2"), ("3", "3"), (None, "3")])
    assert [f.verdict for f in found] == [Verdict.ERROR] * 3
    assert {f.evidence["outcome"] for f in found} == {"canary"}
    assert "'0.6' against '\\\\frac{1}{2}' is different, but was found equal" in found[0].evidence["error"]
    assert len([r for r in caplog.records if "workers are replaced" in r.message]) == 2


def test_new_workers_may_judge_what_broken_ones_did_not(fragile: Fragile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/always-equal")
    fragile.begin([("1", "2")])
    fragile.ask("1", "1").result()
    monkeypatch.setenv("PATH", os.environ["PATH"].removesuffix(":/always-equal"))
    assert [f.verdict.value for f in fragile.judge([("1", "2"), ("1", "1")])] == ["wrong", "right"]


def test_workers_that_cannot_start_make_errors_and_no_exceptions(
    fragile: Fragile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/broken")
    found = fragile.judge([("1", "2")])
    assert (found[0].verdict, found[0].evidence["outcome"]) == (Verdict.ERROR, "canary")
    assert "does not start: ImportError" in found[0].evidence["error"]


def test_equal_pairs_are_judged_once_and_errors_are_tried_again(fragile: Fragile, tmp_path: Path) -> None:
    counter = f"count {tmp_path / 'asked'}"
    pairs = [(counter, "1")] * 5
    fragile.begin(pairs)
    assert len({id(fragile._asked(pair)) for pair in pairs}) == 1
    fragile.judge(pairs)
    assert [f.verdict for f in fragile.judge(pairs)] == [Verdict.WRONG] * 5  # a second time would have raised
    first, second = (fragile.judge([("1", "kill")])[0] for _ in range(2))
    assert first.verdict is second.verdict is Verdict.ERROR
    assert ("1", "kill") not in fragile._known


def test_an_empty_batch_starts_nothing(fragile: Fragile) -> None:
    assert fragile.judge([]) == []
    assert not fragile._pool._pool.workers


PATHOLOGICAL = [
    "9^{9^{9^9}}", "10^{10^{10}}", "(10^9)!", "{" * 10_000 + "5" + "}" * 10_000, r"\frac{1}{" * 10_000 + "}" * 10_000
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("answer", PATHOLOGICAL, ids=lambda text: text[:12])
def test_a_pathological_answer_costs_its_limit_and_is_never_right(answer: str) -> None:
    judge = MathVerifier(**LIMITS | {"max_characters": 10**9})
    found = judge.judge([(answer, "42"), ("0.50", r"\frac12")])
    judge.close()
    assert found[0].verdict in (Verdict.UNPARSEABLE, Verdict.WRONG)
    assert found[1].verdict is Verdict.RIGHT


def test_a_tower_of_powers_is_unparseable_and_the_next_answer_is_judged(judge: MathVerifier) -> None:
    found = judge.judge([("10^{10^{10}}", "42"), ("0.50", r"\frac12")])
    assert (found[0].verdict, found[0].evidence["outcome"]) == (Verdict.UNPARSEABLE, "time_out")
    assert found[1].verdict is Verdict.RIGHT
