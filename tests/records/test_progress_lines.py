"""The lines of the log about progress: every so many seconds, and what lasts is slow or stuck."""

import io
import logging
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rrl.processes import logs
from rrl.records.display import Lines
from rrl.records.pulse import beat

pytestmark = pytest.mark.usefixtures("own_messages")


STEP = {
    "training/global_step": 31.0, "budget/tokens_generated": 126_000.0, "critic/score/fresh/mean": 0.4118,
    "val-core/trace/acc/greedy": 0.9, "val-core/trace/error_frac/greedy": 0.5, "val-core/trace/acc/mean@4": 0.3806,
}  # fmt: skip


def test_of_steps_and_of_phases_there_is_a_line_every_so_many_seconds(
    clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lines = Lines("rrl", every=30)
    lines.begin("training")
    for step in range(1, 6):
        for phase in ("gen", "update_actor"):
            lines.phase(phase)
            clock.now += 7
        lines.advance(step / 5, {"training/global_step": float(step)})
    lines.close()
    assert caplog.messages == [
        "rrl: training begins",  # at 0 s
        "rrl: training 20 %, step 1, 14 s",
        "rrl: training step 4: update_actor",  # at 49 s: none for 35 s
        "rrl: training 80 %, step 4, 56 s, 14 s left",  # at 56 s: none of a step for 42 s
        "rrl: training 100 %, step 5, 70 s, 0 s left",
    ]


def test_with_0_seconds_every_phase_and_step_has_its_line(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines("rrl", every=0)
    lines.begin("training")
    for phase in ("testing", "gen", "reward"):
        lines.phase(phase)
        lines.advance(0.25, {"training/global_step": 2.0})
    lines.close()
    reported = [re.sub(r"\d+ s", "n s", message) for message in caplog.messages]
    step = "rrl: training 25 %, step 2, n s"
    assert reported[:2] == ["rrl: training begins", "rrl: training testing"]
    assert reported[2:] == [step, "rrl: training step 3: gen", step, "rrl: training step 3: reward", step]


def test_evaluations_and_checkpoints_are_reported_whenever_they_come_after_a_while(
    clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lines = Lines("rrl", every=30)
    lines.begin("training")
    for wait, phase in ((1, "testing"), (1, "save_checkpoint"), (1, "testing"), (28, "testing"), (1, "testing")):
        clock.now += wait
        lines.phase(phase)
    lines.advance(0.5, {"val-core/x/acc/greedy": 0.25})
    lines.close()
    assert caplog.messages[1:] == [
        "rrl: training testing", "rrl: training save_checkpoint", "rrl: training testing",
        "rrl: training 50 %, accuracy 0.250, 32 s",
    ]  # fmt: skip


@pytest.mark.parametrize(("work", "did"), [(0, "nothing done"), (1200, "1,200 pieces of work done")])
def test_a_phase_that_lasts_is_slow_or_stuck(work: int, did: str, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines("rrl", every=30)
    lines.begin("training")
    lines.advance(0.5, {"training/global_step": 6.0})
    lines.phase("gen")
    clock.now += 61
    beat(work)
    reported = lines._lasts(lines._stretch)  # type: ignore[arg-type]
    assert re.sub(r"CPU \d+ %", "CPU n %", reported) == f"step 7: gen for 61 s; {did} in the last 61 s, CPU n %"
    lines.close()


def test_a_phase_that_lasts_is_reported_within_one_and_a_half_intervals(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines("rrl", every=0.1)
    lines.begin("loading")
    deadline = time.monotonic() + 10
    while len(caplog.messages) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    lines.close()
    assert caplog.messages[0] == "rrl: loading begins"
    assert all("loading continues for 0 s; nothing done" in message for message in caplog.messages[1:3])


def test_lines_have_local_time_with_its_distance_from_utc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    with logs.open_log(tmp_path, 0):
        logging.getLogger("rrl.x").info("hello")
    monkeypatch.undo()
    time.tzset()
    written = (tmp_path / "logs" / "rank-0.log").read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0530 INFO hello\n", written)


@pytest.mark.parametrize(("watched", "shown"), [(True, "hello\n"), (False, "T1 bar\nT1 hello\n")])
def test_a_person_sees_no_lines_of_progress_and_no_time_stamps(
    watched: bool, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, stream = logging.getLogger(), io.StringIO()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(logs, "on_terminal", lambda: watched)
    monkeypatch.setattr(logs, "STAMP", "T1")
    monkeypatch.setattr(sys, "stderr", stream)
    logs.set_up_logging()
    logging.getLogger("rrl.records.progress").info("bar")
    logging.getLogger("rrl.x").info("hello")
    assert stream.getvalue() == shown
