"""How several processes are asked to stop, and that none outlives who started it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures.launch import left, until
from rrl.processes import stopping
from rrl.processes.stopping import (
    Signals,
    StopRequest,
    obeying,
    remove_requests,
    request_stop,
    stop_requested,
)

pytestmark = [pytest.mark.clock, pytest.mark.usefixtures("started_by_a_user")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_waits_for_the_end_of_the_step(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    with StopRequest() as stop:
        stop.gentle = True
        signal.raise_signal(number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
    assert capfd.readouterr().err == "\nfinishing the step, then saving; Ctrl-C again leaves at once\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_before_the_first_step_a_signal_leaves_at_once(number: int) -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest():
        signal.raise_signal(number)


def test_signals_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with StopRequest():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


INT, TERM, USR1, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP


@pytest.mark.parametrize(
    ("sent", "called"),
    [
        ((INT,), ["first"]), ((INT, INT), ["first", "second"]), ((TERM, TERM, USR1, HUP), ["first"]),
        ((USR1, TERM, INT, INT), ["first", "second", "second"]), ((HUP, INT), ["first", "second"]),
    ],
)  # fmt: skip
def test_only_ctrl_c_asks_a_second_time(sent: tuple[int, ...], called: list[str]) -> None:
    calls: list[str] = []
    before = signal.signal(HUP, signal.SIG_DFL)  # under nohup it is ignored
    with Signals(lambda: calls.append("first"), lambda: calls.append("second"), more=[HUP]) as signals:
        for number in sent:
            signal.raise_signal(number)
    signal.signal(HUP, before)
    assert (calls, signals.asked, signals.at_once) == (called, True, "second" in called)


def test_a_hang_up_that_is_ignored_stays_so() -> None:
    """As nohup has it."""
    before = signal.signal(HUP, signal.SIG_IGN)
    try:
        with Signals(lambda: None, lambda: None, more=[HUP]) as signals:
            os.kill(os.getpid(), HUP)
        assert not signals.asked and signal.getsignal(HUP) is signal.SIG_IGN
    finally:
        signal.signal(HUP, before)


STOPPING = """
import os, signal, sys
from rrl.processes.stopping import StopRequest
with StopRequest() as stop:
    stop.gentle = True
    os.kill(os.getpid(), signal.SIGINT)
    {then}
sys.exit(7)
"""


def stopped(then: str, **how: Any) -> int:
    return subprocess.run([sys.executable, "-c", STOPPING.format(then=then)], **how).returncode


def test_a_second_ctrl_c_leaves_at_once() -> None:
    assert stopped("os.kill(os.getpid(), signal.SIGINT)", stderr=subprocess.DEVNULL) == 130
    assert stopped("os.kill(os.getpid(), signal.SIGTERM)", stderr=subprocess.DEVNULL) == 7


def test_a_reader_that_ctrl_c_has_ended_too_costs_nothing() -> None:
    """As in ``rrl-train 2>&1 | tee log``."""
    reader, writer = os.pipe()
    os.close(reader)
    assert stopped("assert stop.asked", stderr=writer) == 7
    os.close(writer)


def test_requests_are_files_that_can_be_withdrawn(tmp_path: Path) -> None:
    request_stop(tmp_path)
    assert (tmp_path / "stop").exists() and not (tmp_path / "stop-now").exists()
    request_stop(tmp_path, now=True)
    assert (tmp_path / "stop-now").exists()
    remove_requests(tmp_path)
    remove_requests(tmp_path)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("names", "asked"), [("", 0), ("stop", 1), ("stop-now", 2), ("stop stop-now", 2)])
def test_how_urgently_a_run_is_asked(tmp_path: Path, names: str, asked: int) -> None:
    for name in names.split():
        (tmp_path / name).touch()
    assert stop_requested(tmp_path) == asked


@pytest.mark.parametrize(("name", "code"), [("stop", 11), ("stop-now", 130)])
def test_a_request_comes_as_one_signal_and_one_to_leave_at_once_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    monkeypatch.setattr(stopping, "EVERY", 0.05)

    def counting() -> None:
        asked: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
        with obeying(tmp_path):
            (tmp_path / name).touch()
            time.sleep(1)
        os._exit(10 + len(asked))

    process = multiprocessing.get_context("fork").Process(target=counting)
    process.start()
    process.join(60)
    process.kill()
    assert process.exitcode == code


def test_what_is_asked_after_the_work_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "EVERY", 0.05)
    with obeying(tmp_path):
        pass
    request_stop(tmp_path, now=True)
    time.sleep(0.2)


RANK = "import sys, time; from rrl.processes.stopping import leave_with_starter; leave_with_starter(); time.sleep(600)"

STARTER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], env={**os.environ, **eval(sys.argv[3])})
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("killed", ["starter", "parent"])
def test_a_rank_does_not_outlive_who_started_it(tmp_path: Path, killed: str) -> None:
    parent = subprocess.Popen(["sleep", "600"])
    named = str({"RRL_PARENT": str(parent.pid)})
    starter = subprocess.Popen([sys.executable, "-c", STARTER, RANK, str(tmp_path), named], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    child = int(starter.stdout.readline())
    until(lambda: b"leave_with_starter" in Path(f"/proc/{child}/cmdline").read_bytes(), "the rank", 30)
    time.sleep(1)
    try:
        assert Path(f"/proc/{child}").exists()
        (starter if killed == "starter" else parent).kill()
        (starter if killed == "starter" else parent).wait()
        until(lambda: not [line for line in left(tmp_path).values() if "sys.argv" not in line], "the rank to leave", 30)
    finally:
        for process in (starter, parent):
            process.kill()
            process.wait()
