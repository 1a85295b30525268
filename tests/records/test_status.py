"""The state of a run: its lock, status.json, and what can be read of it however it ended."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fixtures.status import HOST, make_run
from rrl.cli import status
from rrl.errors import ConfigError
from rrl.records.status import RunLock, last_checkpoint, read_state, write_state

pytestmark = pytest.mark.clock


TRAINING = """
import os, sys, time
from pathlib import Path
from rrl.records.status import RunLock, write_state
lock = RunLock(Path(sys.argv[1]))
write_state(Path(sys.argv[1]), "running", processes=2)
if os.fork() == 0:
    print(os.getpid(), flush=True)  # the helper itself, for by now it has let go of the lock
time.sleep(100)
"""


@pytest.fixture
def training(run: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains in ``run`` and has forked a helper, which outlives it."""
    process = subprocess.Popen([sys.executable, "-c", TRAINING, str(run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    helper = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    os.kill(helper, signal.SIGKILL)


# --- the lock ---------------------------------------------------------------------------------------------------------


def test_a_directory_in_which_a_living_process_trains_is_refused(run: Path, training: subprocess.Popen[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        RunLock(run)
    assert caught.value.faults == (
        f"run.dir: {str(run)!r} is being trained by pid {training.pid} on host {HOST}; expected a directory that no "
        "process trains in; wait for its end, stop it, or give another run.dir",
    )


def test_a_directory_whose_process_was_killed_is_free_though_its_helper_lives(
    run: Path, training: subprocess.Popen[str]
) -> None:
    training.kill()
    training.wait()
    with RunLock(run):
        assert json.loads((run / ".lock").read_text()) == {"pid": os.getpid(), "host": HOST}


def test_a_lock_can_be_given_back(tmp_path: Path) -> None:
    with RunLock(tmp_path / "new" / "run"), pytest.raises(ConfigError):
        RunLock(tmp_path / "new" / "run")
    RunLock(tmp_path / "new" / "run").release()


def test_looking_at_a_run_does_not_keep_another_process_from_it(run: Path) -> None:
    write_state(run, "running")
    (run / ".lock").touch()
    imports = "from pathlib import Path; from rrl.records.status import read_state"
    look = f"{imports}\nwhile True: read_state(Path({str(run)!r}))"
    looking = subprocess.Popen([sys.executable, "-c", look])
    try:
        time.sleep(0.5)
        for _ in range(200):
            RunLock(run).release()
        assert looking.poll() is None, "it looked all the while"
    finally:
        looking.kill()
        looking.wait()


def test_a_file_system_without_locks_is_reported_and_no_hindrance(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    RunLock(run)
    assert "cannot be locked (Operation not supported); make sure that nothing else trains in it" in caplog.text
    write_state(run, "running")
    assert read_state(run).state == "running"
    dead = {**json.loads((run / "status.json").read_text()), "pid": 2**22 + 1}
    (run / "status.json").write_text(json.dumps(dead))
    assert read_state(run).state == "killed"
    (run / "status.json").write_text(json.dumps({**dead, "host": "elsewhere"}))
    assert read_state(run).state == "running"


# --- status.json ------------------------------------------------------------------------------------------------------


def test_a_state_is_reported_with_process_and_times(run: Path) -> None:
    before = datetime.now().astimezone().replace(microsecond=0)
    write_state(run, "failed", "loss is nan", processes=4)
    reported = json.loads((run / "status.json").read_text())
    started, updated = (datetime.fromisoformat(reported.pop(name)) for name in ("started", "updated"))
    assert before <= started == updated
    assert reported == {"state": "failed", "reason": "loss is nan", "pid": os.getpid(), "host": HOST, "processes": 4}


def test_a_run_began_when_it_was_first_started(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(run, "running")
    reported = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**reported, "started": "2001-02-03T04:05:06+00:00"}))
    write_state(run, "finished")
    reported = json.loads((run / "status.json").read_text())
    assert reported["started"] == "2001-02-03T04:05:06+00:00"
    assert reported["updated"] > "2002"


def test_a_damaged_status_is_replaced(run: Path) -> None:
    (run / "status.json").write_text("{")
    write_state(run, "finished")
    assert read_state(run).state == "finished"


def test_a_reason_shows_no_secret(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    write_state(run, "failed", "401 for hf_abcdefgh")
    assert read_state(run).reason == "401 for <HF_TOKEN>"


# --- the state --------------------------------------------------------------------------------------------------------


def test_a_run_in_training_is_running(run: Path, training: subprocess.Popen[str]) -> None:
    state = read_state(run)
    assert (state.state, state.reason, state.pid, state.processes) == ("running", None, training.pid, 2)


def test_a_run_whose_process_is_gone_without_a_word_was_killed(run: Path, training: subprocess.Popen[str]) -> None:
    training.kill()
    training.wait()
    state = read_state(run)
    assert state.state == "killed"
    assert state.reason == f"its process {training.pid} on {HOST} ended without a report"


@pytest.mark.parametrize("reported", ["finished", "interrupted", "failed"])
def test_a_run_that_reported_how_it_ended_ended_so(reported: Any, run: Path) -> None:
    write_state(run, reported, "why")
    assert (read_state(run).state, read_state(run).reason) == (reported, "why")


@pytest.mark.parametrize(("result", "state"), [(True, "finished"), (False, "unknown")])
def test_a_run_that_has_no_status_is_judged_by_its_result(result: bool, state: str, run: Path) -> None:
    if result:
        (run / "result.json").write_text("{}")
    assert read_state(run).state == state


def test_progress_is_that_of_the_last_row(run: Path) -> None:
    state = read_state(run)
    assert (state.step, state.total_steps, state.reward) == (40, 100, 0.4)
    assert (state.tokens, state.total_tokens) == (2000, 6000)
    assert state.faults == ()


@pytest.mark.parametrize(
    ("steps", "tokens", "share"),
    [(100, 6000, 0.4), (100, 2500, 0.8), (None, 6000, 1 / 3), (160, None, 0.25), (40, None, 1.0), (None, 1000, 1.0)],
)
def test_the_budget_used_is_that_of_the_limit_which_comes_first(
    steps: int | None, tokens: int | None, share: float, tmp_path: Path
) -> None:
    assert read_state(make_run(tmp_path, steps=steps, tokens=tokens)).share == pytest.approx(share)


def test_a_run_of_guided_self_improvement_has_a_budget_of_tokens_alone(run: Path) -> None:
    (run / "config.yaml").write_text("trainer: {iterations: 4, total_tokens: 8000}")
    state = read_state(run)
    assert (state.total_steps, state.total_tokens, state.share, state.faults) == (None, 8000, 0.25, ())


def test_before_the_first_step_nothing_is_used(tmp_path: Path) -> None:
    state = read_state(make_run(tmp_path, done=0))
    assert (state.step, state.tokens, state.share, state.reward) == (0, 0, 0.0, None)


def test_the_last_reward_is_the_latest_that_is_a_number(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 41, "critic/score/fresh/mean": null, "budget/tokens_generated": 2050.0}\n{"step": 42, "cri'
        )
    state = read_state(run)
    assert (state.step, state.reward, state.tokens, state.faults) == (41, 0.4, 2050, ())


def test_age_is_the_time_since_the_last_row(run: Path) -> None:
    os.utime(run / "metrics.jsonl", (time.time() - 7200, time.time() - 7200))
    assert read_state(run).age == pytest.approx(7200, abs=60)


def test_the_last_checkpoint_is_the_one_of_the_latest_step_that_is_whole(run: Path) -> None:
    assert last_checkpoint(run) is None
    for name in ("step-000090", "step-900000", "step-1000000", ".step-2000000", "step-3000000.tmp", "step-x"):
        (run / "checkpoints" / name).mkdir(parents=True)
    assert last_checkpoint(run) == run / "checkpoints" / "step-1000000"


DAMAGE = {
    "config.yaml": {
        "{": "config.yaml cannot be read (",
        "a: 1": "config.yaml names no budget",
        "[]": "config.yaml names no budget",
        "\0": "config.yaml cannot be read (",
        "trainer: {total_training_steps: x, total_tokens: 1}": "config.yaml names no budget",
    },
    "metrics.jsonl": {"{": "metrics.jsonl has no whole row", "\0\0": "metrics.jsonl has no whole row"},
    "status.json": {
        "": "status.json cannot be read (",
        "[]": "status.json is no JSON object",
        '{"state": "running"}': "status.json was not written by rrl",
        '{"state": "x", "pid": 1, "host": "h", "started": "s", "processes": 1}': "status.json was not written by rrl",
        '{"state": "failed", "pid": "1", "host": "h", "started": "s", "processes": 1}': (
            "status.json was not written by rrl"
        ),
    },
}


@pytest.mark.parametrize(
    ("name", "content", "reported"), [(name, *case) for name, cases in DAMAGE.items() for case in cases.items()]
)
def test_a_damaged_file_is_reported_in_the_row_and_the_rest_is_shown(
    name: str, content: str, reported: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_state(run, "finished")
    (run / name).write_text(content)
    (fault,) = read_state(run).faults
    assert fault.startswith(reported)
    status._status([str(run.parent)])
    (row,) = capsys.readouterr().out.splitlines()[1:]
    assert reported in row
    assert ("0.400" in row) == (name != "metrics.jsonl")
