"""Metrics: every row is in the file first, and a sink that fails costs none."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.tracking import CONFIG, rows, warnings
from rrl.records.tracking import Sink, Tracker


class Notes(Sink):
    """A sink that writes down what it is reported; ``broken`` is the call that it cannot do."""

    def __init__(self, broken: str = "") -> None:
        self.reported: list[Any] = []
        self.broken = broken

    def _note(self, what: str, *about: Any) -> None:
        if what == self.broken:
            raise RuntimeError(f"no\n{what}")
        self.reported.append((what, *about))

    def start(self, folder: Path, config: Mapping[str, Any], after: int | None) -> None:
        self._note("start", folder.name, config, after)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._note("log", step, metrics)

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self._note("samples", step, rows)

    def summary(self, result: Mapping[str, Any]) -> None:
        self._note("summary", result)

    def finish(self, complete: bool) -> None:
        self._note("finish", complete)


def test_a_sink_receives_everything_in_order_and_nothing_after_the_end(folder: Path) -> None:
    notes = Notes()
    tracker = Tracker(folder, notes, CONFIG, None)
    tracker.log(0, {"x": 1.5})
    tracker.samples(0, [{"response": "a", "score": 1.0, "problem": {"id": "p"}, "replayed_from": None}])
    tracker.summary({"steps": 0})
    tracker.finish()
    tracker.finish()
    assert notes.reported == [
        ("start", "run", CONFIG, None),
        ("log", 0, {"x": 1.5}),
        ("samples", 0, [{"response": "a", "score": 1.0, "problem": '{"id": "p"}', "replayed_from": None}]),
        ("summary", {"steps": 0}),
        ("finish", True),
    ]


def test_a_run_that_comes_to_no_summary_is_not_complete(folder: Path) -> None:
    notes = Notes()
    Tracker(folder, notes, CONFIG, 7).finish()
    assert notes.reported == [("start", "run", CONFIG, 7), ("finish", False)]


def test_every_row_is_in_the_file_before_a_sink_hears_of_it(folder: Path) -> None:
    tracker = Tracker(folder, Notes("log"), CONFIG, None)
    tracker.log(0, {"x": 1.5})
    assert rows(folder) == [{"step": 0, "x": 1.5}]


@pytest.mark.parametrize("broken", ["start", "log", "samples", "summary", "finish"])
def test_a_sink_that_fails_is_reported_once_and_costs_no_row(
    broken: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes(broken)
    tracker = Tracker(folder, notes, CONFIG, None)
    for step in range(3):
        tracker.log(step, {"x": float(step)})
        tracker.samples(step, [{"response": "a"}])
    tracker.summary({})
    tracker.finish()
    assert [row["step"] for row in rows(folder)] == [0, 1, 2]
    assert warnings(caplog) == [
        f"logger: Notes fails (RuntimeError: no {broken}); the run continues with metrics.jsonl alone"
    ]
    before = {"start": 0, "log": 1, "samples": 2, "summary": 7, "finish": 8}
    assert len(notes.reported) == before[broken]


def test_a_sink_cannot_swallow_an_interruption(folder: Path) -> None:
    class Slow(Notes):
        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Tracker(folder, Slow(), CONFIG, None).log(0, {})


def test_numbers_that_are_not_finite_are_null_in_the_file_and_themselves_in_a_sink(folder: Path) -> None:
    notes = Notes()
    metrics = {"a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 0.5, "e": 2}
    Tracker(folder, notes, CONFIG, None).log(0, metrics)
    assert (folder / "metrics.jsonl").read_text() == '{"step": 0, "a": null, "b": null, "c": null, "d": 0.5, "e": 2}\n'
    assert notes.reported[-1] == ("log", 0, metrics)


@pytest.mark.parametrize(("after", "step"), [(None, 1), (None, -1), (4, 4), (4, 6), (0, 0)])
def test_a_row_that_would_make_a_hole_or_a_double_is_refused(after: int | None, step: int, folder: Path) -> None:
    tracker = Tracker(folder, None, CONFIG, after)
    with pytest.raises(
        AssertionError, match=f"got a row of step {step}, expected step {0 if after is None else after + 1}"
    ):
        tracker.log(step, {})
    assert rows(folder) == []


def test_a_resumed_run_appends_to_its_file(folder: Path) -> None:
    for after in (None, 0):
        tracker = Tracker(folder, None, CONFIG, after)
        tracker.log(0 if after is None else 1, {})
        tracker.finish()
    assert rows(folder) == [{"step": 0}, {"step": 1}]
