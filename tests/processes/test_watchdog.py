"""What ends processes that hang, and the clock that knows what goes on."""

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from fixtures.reward import match_for_ever, sleep_for_ever
from rrl.processes import watchdog
from rrl.processes.clock import Clock
from rrl.processes.signs_of_life import SignsOfLife
from rrl.processes.watchdog import Watchdog

pytestmark = [pytest.mark.clock, pytest.mark.usefixtures("started_by_a_user")]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watchdog that looks often and does not wait for others."""
    monkeypatch.setattr(watchdog, "EVERY", 0.05)
    monkeypatch.setattr(watchdog, "GRACE", 0.5)


def end_of(
    work: Callable[[Clock], None], folder: Path, limit: float | None = 0.5, phase: str | None = "gen"
) -> tuple[int | None, str]:
    """Exit code and log of a process that does ``work`` under a watchdog, in a phase or outside of one."""
    (folder / "logs").mkdir(exist_ok=True)

    def watched() -> None:
        clock = Clock()
        with (folder / "log").open("a") as file:
            logging.getLogger("rrl").addHandler(logging.StreamHandler(file))
            dog = Watchdog(folder, clock, limit, file)
            with clock.phase("earlier"):
                pass
            with nullcontext() if phase is None else clock.phase(phase):
                work(clock)
            dog.dismiss()
            time.sleep(3 * (limit or 0.1))
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=watched)
    process.start()
    process.join(60)
    process.kill()
    return process.exitcode, (folder / "log").read_text()


@pytest.mark.usefixtures("quick")
def test_a_phase_that_lasts_too_long_ends_the_run(tmp_path: Path) -> None:
    code, log = end_of(lambda clock: sleep_for_ever(), tmp_path)
    assert code == 1
    assert "in sleep_for_ever" in log and "Thread 0x" in log and "last finished phase: earlier;" in log
    reported = json.loads((tmp_path / "status.json").read_text())
    assert reported["state"] == "failed"
    assert reported["reason"].startswith("watchdog: rank 0 of 1: gen lasts ")
    assert reported["reason"].endswith(" s (run.phase_limit: 0.5)")


@pytest.mark.usefixtures("quick")
def test_a_rank_that_gives_no_sign_of_life_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a thirtieth of an hour."""
    silences = iter([119.0, 120.0, 121.0])
    monkeypatch.setattr(SignsOfLife, "longest_silence", lambda *_: (3, next(silences)))
    code, log = end_of(lambda clock: sleep_for_ever(), tmp_path, limit=3600)
    assert code == 1 and "in sleep_for_ever" in log
    reason = json.loads((tmp_path / "status.json").read_text())["reason"]
    assert reason == (
        "watchdog: rank 0 of 1: no sign of life of rank 3 for 121 s (run.phase_limit: 3600); its host or the network "
        "is gone, or its process is stopped"
    )


@pytest.mark.usefixtures("quick")
def test_a_regular_expression_that_never_ends_ends_the_run(tmp_path: Path) -> None:
    """No thread of Python gets to run meanwhile."""
    code, log = end_of(lambda clock: match_for_ever(), tmp_path)
    assert code == 1 and "in match_for_ever" in log


@pytest.mark.usefixtures("quick")
def test_what_follows_the_last_phase_is_watched_too(tmp_path: Path) -> None:
    def never_ending(clock: Clock) -> None:
        with clock.phase("save_checkpoint"):
            pass
        sleep_for_ever()

    code, _ = end_of(never_ending, tmp_path, phase=None)
    assert code == 1
    assert "what follows save_checkpoint lasts" in json.loads((tmp_path / "status.json").read_text())["reason"]


@pytest.mark.usefixtures("quick")
def test_another_ranks_alarm_is_obeyed_without_a_limit_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "alarm.json").write_text('{"reason": "rank 3 of 4: reward lasts 9 s"}')
    code, log = end_of(lambda clock: sleep_for_ever(), tmp_path, limit=None)
    assert code == 1 and "in sleep_for_ever" in log


@pytest.mark.usefixtures("quick")
def test_an_alarm_that_cannot_be_written_still_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watchdog, "write_whole", full)
    code, log = end_of(lambda clock: sleep_for_ever(), tmp_path)
    assert code == 1 and "in sleep_for_ever" in log and "last finished phase: earlier;" in log


@pytest.mark.usefixtures("quick")
def test_an_error_message_that_cannot_be_printed_still_ends_the_run(tmp_path: Path) -> None:
    def with_a_full_pipe(clock: Clock) -> None:
        _, writer = os.pipe()
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, b" " * 4096)
        os.set_blocking(writer, True)
        logging.getLogger("rrl").addHandler(logging.StreamHandler(os.fdopen(writer, "w")))
        (tmp_path / "logs" / "alarm.json").write_text('{"reason": "rank 3 of 4: reward lasts 9 s"}')
        sleep_for_ever()

    code, log = end_of(with_a_full_pipe, tmp_path, limit=None)
    assert code == 1 and "rank 3 of 4: reward lasts 9 s" in log and "in sleep_for_ever" in log


@pytest.mark.usefixtures("quick")
def test_a_phase_within_its_limit_is_left_alone_and_so_is_what_comes_later(tmp_path: Path) -> None:
    assert end_of(lambda clock: time.sleep(0.2), tmp_path)[0] == 0
    assert end_of(lambda clock: time.sleep(0.8), tmp_path, limit=None)[0] == 0


def test_a_clock_knows_what_goes_on_and_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", iter(range(100)).__next__)
    clock = Clock()
    assert (clock.current(), clock.finished) == (("", 0.0), "")
    clock.enter("the start")  # at 0
    assert clock.current() == ("the start", 1)
    with clock.phase("gen"):  # from 2
        assert (clock.current(), clock.finished) == (("gen", 1), "")
    assert clock.finished == "gen"  # at 4, and what follows from 5
    assert clock.current() == ("what follows gen", 1)
    assert clock.take() == {"timing_s/gen": 2}


def test_a_phase_that_fails_stays_current() -> None:
    clock = Clock()
    with pytest.raises(RuntimeError), clock.phase("gen"):
        raise RuntimeError
    assert (clock.current()[0], clock.finished) == ("gen", "")
