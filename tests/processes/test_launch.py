"""Several processes: what starts them, how they are asked to stop, what ends them when they hang. No whole runs."""

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fixtures.launch import left, until
from fixtures.reward import match_for_ever, sleep_for_ever
from rrl.cli.worker import main as work
from rrl.config.check import load
from rrl.errors import ConfigError
from rrl.processes import stopping, watchdog
from rrl.processes.clock import Clock
from rrl.processes.launch import Hostfile, Launcher, first_host, free_port, started_by_others, take_devices, why
from rrl.processes.stopping import (
    NOW,
    STOP,
    Signals,
    StopRequest,
    obeying,
    remove_requests,
    request_stop,
    stop_requested,
)
from rrl.processes.watchdog import Watchdog
from rrl.records.status import RunLock, write_state

pytestmark = pytest.mark.clock


@pytest.fixture(autouse=True)
def started_by_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher around the tests is seen."""
    for name in [*os.environ]:
        if name.startswith("SLURM_") or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("RRL_PARTS", raising=False)


# --- what is started --------------------------------------------------------------------------------------------------


def hosts(folder: Path, text: str, count: int = 1) -> Launcher:
    (folder / "hosts").write_text(text)
    return Hostfile(num_processes=count, hostfile=str(folder / "hosts"))


def asked_of_deepspeed(launcher: Launcher, folder: Path) -> Any:
    """The command as DeepSpeed's runner reads it."""
    from deepspeed.launcher.runner import parse_args

    command = launcher.command(folder)
    assert command[1:3] == ["-m", "deepspeed.launcher.runner"]
    return parse_args(command[3:])


def test_processes_are_counted_over_machines(tmp_path: Path) -> None:
    assert Launcher(num_processes=3).processes == 3
    assert hosts(tmp_path, "# ours\na slots=4\n\nb slots=3 # new\n", count=3).processes == 6


def test_two_machines_are_asked_for_as_many_processes_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RRL_CACHE", raising=False)
    asked = asked_of_deepspeed(hosts(tmp_path, "a slots=4\nb slots=4\n", count=2), tmp_path / "run")
    assert (asked.hostfile, asked.num_gpus, asked.force_multi) == (str(tmp_path / "hosts"), 2, True)
    assert (asked.module, asked.user_script, asked.user_args) == (True, "rrl.cli.worker", [str(tmp_path / "run")])


def test_folders_of_own_parts_and_of_the_cache_travel_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRL_PARTS", "/my own:/other")
    monkeypatch.setenv("RRL_CACHE", "/kept")
    given = asked_of_deepspeed(hosts(tmp_path, "a slots=1\n"), tmp_path).user_args
    assert given == [str(tmp_path), "RRL_PARTS=/my own:/other", "RRL_CACHE=/kept"]


def test_this_machine_alone_reads_no_hostfile_of_the_system(tmp_path: Path) -> None:
    asked = asked_of_deepspeed(Launcher(num_processes=2), tmp_path)
    assert (asked.hostfile, asked.num_gpus, asked.force_multi) == ("/dev/null", 2, False)


def test_a_hostfile_below_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    hosts(tmp_path, "a slots=1\n")
    assert str(tmp_path / "hosts") in Hostfile(num_processes=1, hostfile="~/hosts").command(tmp_path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("gpu1:8\n", r"hostfile: expected a line 'name slots=8' for each machine, got \['gpu1:8'\]"),
        ("# none\n", "hostfile: expected a line 'name slots=8' for each machine, got none"),
        ("a slots=2\na slots=2\n", "hostfile: expected one line for each machine, got several for a"),
        ("a slots=4\nb slots=1\n", "num_processes: expected at most the 1 slots of hostfile, got 2"),
        ("a slots=0\n", "num_processes: expected at most the 0 slots of hostfile, got 2"),
    ],
)
def test_faults_of_a_hostfile_are_told(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        hosts(tmp_path, text, count=2)


def test_a_hostfile_that_is_not_there_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"launcher\.hostfile: '.*/none' cannot be read \(.*No such file"):
        load("train", ["launcher=hostfile", f"launcher.hostfile={tmp_path / 'none'}", "launcher.num_processes=2"])


def test_without_pdsh_no_other_machine_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"launcher\.hostfile: .* pdsh and ssh cannot be found here; install"):
        hosts(tmp_path, "a slots=1\n").refuse_misfits()


def test_every_process_needs_a_device_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    Launcher(num_processes=2).refuse_misfits()
    with pytest.raises(ConfigError, match=r"launcher\.num_processes: 3, but there are 2 devices here: 2, 3; .*most 2;"):
        Launcher(num_processes=3).refuse_misfits()


def test_without_devices_every_process_needs_a_processor_unless_they_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # left over from another machine
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("rrl.processes.launch.cpus", lambda: 2)
    Launcher(num_processes=4).refuse_misfits()
    with pytest.raises(
        ConfigError, match=r"num_processes: 5, but there are 2 processors here; expected at most 4; lower"
    ):
        Launcher(num_processes=5).refuse_misfits()
    monkeypatch.setattr("rrl.processes.launch.cpus", lambda: 16)
    Launcher(num_processes=16).refuse_misfits()


@pytest.mark.parametrize("chosen", ["2,3", "GPU-8f2c,GPU-77ab", ""])
def test_ranks_see_the_devices_that_the_user_chose(monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    passed = Launcher(num_processes=2)._environment()
    assert "CUDA_VISIBLE_DEVICES" not in passed  # DeepSpeed would refuse these or, with --num_gpus, ignore them
    monkeypatch.setattr(os, "environ", passed | {"CUDA_VISIBLE_DEVICES": "0,1"})  # as its launcher does
    take_devices()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen


def test_processors_are_divided_unless_the_user_has_done_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrl.processes.launch.cpus", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Launcher(num_processes=3)._environment()["OMP_NUM_THREADS"] == "5"
    assert Launcher(num_processes=32)._environment()["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert Launcher(num_processes=3)._environment()["OMP_NUM_THREADS"] == "7"


# --- started by others ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[003-007,012],login", "gpu003"), ("node1,node2", "node1"), ("n[1-2]-ib", "n1-ib"), ("a-b01", "a-b01"),
        ("n[1,5-9]-ib,m1", "n1-ib"), ("rack[0-1]node[08-11]", "rack0node08"), ("gpu[7]", "gpu7"),
    ],
)  # fmt: skip
def test_the_first_host_of_a_node_list(nodes: str, first: str) -> None:
    """As ``scontrol show hostnames`` of SLURM 22.05 expands those without -ib; later ones know such endings."""
    assert first_host(nodes) == first


STEP = {
    "SLURM_JOB_ID": "40021", "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "n[1-2]-ib",
    "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
}  # fmt: skip


def test_a_task_of_srun_is_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy() | STEP)
    assert started_by_others()
    place = {name: os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    assert place == {
        "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "n1-ib", "MASTER_PORT": "23021",
    }  # fmt: skip


def test_ranks_of_srun_meet_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy() | STEP | {"MASTER_ADDR": "here", "MASTER_PORT": "7"})
    assert started_by_others()
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("here", "7")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, False),  # a batch script
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, True),
        ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}, False),
    ],
)
def test_only_one_of_several_is_started_by_others(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], told: bool
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy() | given)
    assert started_by_others() is told


ALONE = """
from datetime import timedelta
from rrl.processes import distributed
distributed.MEETING = timedelta(seconds=1)
distributed.start_process_group()
"""


def test_a_rank_does_not_wait_for_ever_for_the_others() -> None:
    place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    done = subprocess.run([sys.executable, "-c", ALONE], env={**os.environ, **place}, capture_output=True, text=True)
    assert done.returncode == 1 and "1/2 clients joined" in done.stderr


# --- how it ended -----------------------------------------------------------------------------------------------------


def ending(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, tell: str = "pass") -> int:
    """The exit code of a start whose ranks end with ``code``, having run the program ``tell``."""
    program = [sys.executable, "-c", f"from rrl.records.status import write_state; {tell}; raise SystemExit({code})"]
    monkeypatch.setattr(Launcher, "command", lambda self, folder: [*program, str(folder)])
    return Launcher(num_processes=2).start(folder)


@pytest.mark.parametrize(
    ("told", "code", "result"),
    [
        ("finished", 0, 0), ("failed", 2, 2), ("failed", 1, 1), ("failed", 247, 1), ("interrupted", 130, 130),
        ("interrupted", 143, 130), ("failed", 0, 1),
    ],
)  # fmt: skip
def test_the_exit_code_follows_what_ranks_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, code: int, result: int
) -> None:
    tell = f"from pathlib import Path; write_state(Path({str(tmp_path)!r}), {told!r}, 'a reason')"
    assert ending(tmp_path, monkeypatch, code, tell) == result
    assert json.loads((tmp_path / "status.json").read_text())["reason"] == "a reason"


def test_what_ranks_cannot_tell_is_told_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(tmp_path, "interrupted", None, 2)  # by an earlier process
    assert ending(tmp_path, monkeypatch, 0) == 1  # DeepSpeed's runner returns 0 when its launcher was killed
    assert why(tmp_path) == f"failed: the processes ended with code 0 without a report; see {tmp_path}"


def test_what_another_run_tells_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunLock(tmp_path):
        write_state(tmp_path, "running", None, 2)
        assert ending(tmp_path, monkeypatch, 2) == 2
        assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"


def test_ranks_that_end_when_asked_to_before_they_can_tell_are_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ending(tmp_path, monkeypatch, 241, "import os; os.kill(os.getppid(), 15)") == 130
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "interrupted"
    assert "finishing the step, then saving" in capfd.readouterr().err


def test_ranks_are_asked_by_a_signal_where_no_file_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path, *, now: bool) -> None:
        raise OSError

    monkeypatch.setattr("rrl.processes.launch.request_stop", refused)
    tell = "import os, time; from rrl.processes.launch import take_signals; take_signals(); os.kill(os.getppid(), 15)"
    assert ending(tmp_path, monkeypatch, 0, f"{tell}; time.sleep(600)") == 130


def test_launchers_hold_signals_back_and_ranks_take_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM and systemd send SIGTERM to all processes; DeepSpeed's launchers would end the ranks after 30 seconds."""
    tell = (
        "import os; os.kill(os.getpid(), 15); from rrl.processes.launch import take_signals; "
        "print('held back', flush=True); {}"
    )
    monkeypatch.setattr(Launcher, "_report", lambda self, folder, code, signals: codes.append(code))
    codes: list[int] = []
    ending(tmp_path, monkeypatch, 0, tell.format("pass"))
    ending(tmp_path, monkeypatch, 0, tell.format("take_signals()"))
    assert codes == [0, -15]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_what_was_asked_of_earlier_processes_is_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request_stop(tmp_path)
    request_stop(tmp_path, now=True)
    ending(tmp_path, monkeypatch, 0)
    assert not (tmp_path / STOP).exists() and not (tmp_path / NOW).exists()


def test_an_interrupted_run_says_how_it_goes_on(tmp_path: Path) -> None:
    write_state(tmp_path, "interrupted", None, 2)
    assert why(tmp_path) == f"interrupted; nothing is saved yet; continue: rrl-train resume={tmp_path}"
    (tmp_path / "checkpoints" / "step-000012").mkdir(parents=True)
    assert why(tmp_path) == f"interrupted; saved as step-000012; continue: rrl-train resume={tmp_path}"


# --- asked to stop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_waits_for_the_end_of_the_step(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    with StopRequest() as stop:
        stop.gentle = True
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
    assert capfd.readouterr().err == "\nfinishing the step, then saving; Ctrl-C again leaves at once\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_before_the_first_step_a_signal_leaves_at_once(number: int) -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest():
        os.kill(os.getpid(), number)


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
    with Signals(lambda: calls.append("first"), lambda: calls.append("second"), more=[HUP]) as signals:
        for number in sent:
            os.kill(os.getpid(), number)
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


# --- the watchdog -----------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watchdog that looks often and does not wait for others."""
    monkeypatch.setattr(watchdog, "EVERY", 0.05)
    monkeypatch.setattr(watchdog, "GRACE", 0.5)


def end_of(work: Callable[[Clock], None], folder: Path, limit: float | None = 0.5) -> tuple[int | None, str]:
    """Exit code and log of a process that does ``work`` under a watchdog, in the phase ``gen``."""
    (folder / "logs").mkdir(exist_ok=True)

    def watched() -> None:
        clock = Clock()
        with (folder / "log").open("a") as file:
            logging.getLogger("rrl").addHandler(logging.StreamHandler(file))
            dog = Watchdog(folder, clock, limit, file)
            with clock.phase("earlier"):
                pass
            with clock.phase("gen"):
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
    told = json.loads((tmp_path / "status.json").read_text())
    assert told["state"] == "failed"
    assert told["reason"].startswith("watchdog: rank 0 of 1: gen lasts ")
    assert told["reason"].endswith(" s (run.phase_limit: 0.5)")


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

    code, _ = end_of(never_ending, tmp_path)
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
    assert end_of(lambda clock: time.sleep(2), tmp_path, limit=None)[0] == 0


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


# --- logs -------------------------------------------------------------------------------------------------------------

SPEAKING = """
import logging, sys
from pathlib import Path
from rrl.processes.logs import open_log
logging.basicConfig(format="%(message)s", level=logging.INFO)
with open_log(Path(sys.argv[1]), int(sys.argv[2])):
    print("printed")
    logging.getLogger("rrl").info("logged")
    if sys.argv[3] == "fail":
        raise RuntimeError("the reason")
"""


def speaking(folder: Path, rank: int, how: str = "", **more: str) -> tuple[str, str]:
    """What a rank prints, and what is in its log."""
    command = [sys.executable, "-c", SPEAKING, str(folder), str(rank), how]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **more})
    return done.stdout + done.stderr, (folder / "logs" / f"rank-{rank}.log").read_text()


def test_the_first_rank_speaks_to_the_user_and_the_others_into_their_logs(tmp_path: Path) -> None:
    printed, log = speaking(tmp_path, 0)
    assert printed == "printed\nlogged\n"
    assert log.endswith(" INFO logged\n") and "printed" not in log
    printed, log = speaking(tmp_path, 1)
    assert printed == "" and "printed\n" in log and " INFO logged\n" in log


def test_a_log_goes_on_where_it_ended(tmp_path: Path) -> None:
    assert speaking(tmp_path, 0)[1].count("logged") == 1
    assert speaking(tmp_path, 0)[1].count("logged") == 2


def test_the_reason_of_a_failure_is_told_by_the_parent_where_there_is_one(tmp_path: Path) -> None:
    printed, _ = speaking(tmp_path, 0, "fail")
    assert "RuntimeError: the reason" in printed
    printed, log = speaking(tmp_path, 0, "fail", RRL_PARENT="0")
    assert "the reason" not in printed and "RuntimeError: the reason" in log


def test_a_rank_imports_nothing_heavy_before_it_looks_after_its_parent() -> None:
    program = (
        f"import sys, {work.__module__}, rrl.processes.launch; assert not {{'torch', 'hydra'}} & sys.modules.keys()"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
