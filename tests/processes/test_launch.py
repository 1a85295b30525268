"""Several processes: what starts them, who else may have, and how they ended. No whole runs."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from rrl.config.check import load
from rrl.errors import ConfigError
from rrl.processes.launch import Hostfile, Launcher, started_by_others, take_devices, why
from rrl.processes.slurm import first_host
from rrl.processes.stopping import (
    NOW,
    STOP,
    request_stop,
)
from rrl.records.status import RunLock, write_state

pytestmark = [pytest.mark.clock, pytest.mark.usefixtures("started_by_a_user")]


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
def test_faults_of_a_hostfile_are_reported(tmp_path: Path, text: str, fault: str) -> None:
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
    ("given", "reported"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, False),  # a batch script
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, True),
        ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}, False),
    ],
)
def test_only_one_of_several_is_started_by_others(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], reported: bool
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy() | given)
    assert started_by_others() is reported


# --- how it ended -----------------------------------------------------------------------------------------------------


def ending(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, tell: str = "pass") -> int:
    """The exit code of a start whose ranks end with ``code``, having run the program ``tell``."""
    program = [sys.executable, "-c", f"from rrl.records.status import write_state; {tell}; raise SystemExit({code})"]
    monkeypatch.setattr(Launcher, "command", lambda self, folder: [*program, str(folder)])
    return Launcher(num_processes=2).start(folder)


@pytest.mark.parametrize(
    ("reported", "code", "result"),
    [
        ("finished", 0, 0), ("failed", 2, 2), ("failed", 1, 1), ("failed", 247, 1), ("interrupted", 130, 130),
        ("interrupted", 143, 130), ("failed", 0, 1),
    ],
)  # fmt: skip
def test_the_exit_code_follows_what_ranks_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: str, code: int, result: int
) -> None:
    tell = f"from pathlib import Path; write_state(Path({str(tmp_path)!r}), {reported!r}, 'a reason')"
    assert ending(tmp_path, monkeypatch, code, tell) == result
    assert json.loads((tmp_path / "status.json").read_text())["reason"] == "a reason"


def test_what_ranks_cannot_report_is_reported_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(tmp_path, "interrupted", None, 2)  # by an earlier process
    assert ending(tmp_path, monkeypatch, 0) == 1  # DeepSpeed's runner returns 0 when its launcher was killed
    assert why(tmp_path) == f"failed: the processes ended with code 0 without a report; see {tmp_path}"


def test_what_another_run_reports_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunLock(tmp_path):
        write_state(tmp_path, "running", None, 2)
        assert ending(tmp_path, monkeypatch, 2) == 2
        assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"


def test_ranks_that_end_when_asked_to_before_they_can_report_are_interrupted(
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
