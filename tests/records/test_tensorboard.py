"""TensorBoard: scalars by step without doubles, and nothing that breaks there stops a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.tracking import CONFIG, rows, warnings
from rrl.records.tracking import TensorBoard, Tracker


@pytest.fixture
def events() -> Callable[[Path], Any]:
    """Reads a run's events as TensorBoard does."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def read(folder: Path) -> Any:
        return accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()

    return read


def test_tensorboard_shows_scalars_by_step_samples_and_result_without_doubles_after_a_resume(
    folder: Path, events: Callable[[Path], Any]
) -> None:
    first = Tracker(folder, TensorBoard(), CONFIG, None)
    for step in range(3):
        first.log(step, {"group/x": 1.5 * step})
    first.samples(0, [{"question": "1|2", "response": "a\nb"}, {"question": "q", "score": 1.0}])
    first.finish()
    second = Tracker(folder, TensorBoard(), CONFIG, 1)
    for step in (2, 3):
        second.log(step, {"group/x": 10.0 * step})
    second.summary({"steps": 3})
    second.finish()
    shown = events(folder)
    assert [(event.step, event.value) for event in shown.Scalars("group/x")] == [(0, 0), (1, 1.5), (2, 20), (3, 30)]
    texts = {tag: shown.Tensors(tag)[0] for tag in shown.Tags()["tensors"]}
    assert texts.keys() == {f"{name}/text_summary" for name in ("config", "samples", "result")}
    (text,) = texts["samples/text_summary"].tensor_proto.string_val
    assert (
        text.decode() == "| question | response | score |\n| --- | --- | --- |\n| 1\\|2 | a<br>b |  |\n| q |  | 1.0 |"
    )


def test_tensorboard_has_each_row_at_once(folder: Path, events: Callable[[Path], Any]) -> None:
    tracker = Tracker(folder, TensorBoard(), CONFIG, None)
    for step in range(3):
        tracker.log(step, {"x": 1.0})
    assert [event.step for event in events(folder).Scalars("x")] == [0, 1, 2]
    tracker.finish()


def test_tensorboard_that_cannot_write_stops_nothing(
    folder: Path, events: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "tensorboard").write_text("a file where the folder belongs")
    tracker = Tracker(folder, TensorBoard(), CONFIG, None)
    tracker.log(0, {"x": 1.0})
    tracker.finish()
    assert rows(folder) == [{"step": 0, "x": 1.0}]
    assert len(warnings(caplog)) == 1


def test_tensorboard_that_is_not_installed_is_reported_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert TensorBoard().check() == [
        "logger: tensorboard is not installed; expected it; pip install 'rrl[tensorboard]', or use logger=none"
    ]


def test_tensorboard_that_is_installed_passes(events: Callable[[Path], Any]) -> None:
    assert TensorBoard().check() == []
