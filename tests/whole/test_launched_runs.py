"""Whole runs of several processes, started as a user starts them: by rrl-train, a hostfile, torchrun and srun."""

import os
import signal
import sys
from pathlib import Path

import pytest

from fixtures.launch import (
    LONG,
    PATIENCE,
    QUICK,
    begin,
    compared,
    complete,
    left,
    log,
    rows,
    running,
    said,
    saved,
    seen,
    status,
    steps,
    torchrun,
    until,
)  # fmt: skip
from rrl.processes.launch import free_port

pytestmark = [pytest.mark.slow, pytest.mark.ranks]
TWO = "launcher.num_processes=2"


# --- by rrl-train -----------------------------------------------------------------------------------------------------


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    assert complete(one, *QUICK) == 0, said(one)
    assert complete(two, *QUICK, TWO, CUDA_VISIBLE_DEVICES="2,3") == 0, said(two)

    assert [row["step"] for row in rows(two)] == [0, 1, 2, 3, 4]
    for row, other in zip(rows(one), rows(two), strict=True):
        assert compared(other) == pytest.approx(compared(row), rel=1e-3, abs=1e-5, nan_ok=True)
    logs = {Path("logs/rank-1.log")}
    names = [{path.relative_to(folder / "run") for path in (folder / "run").rglob("*.*")} for folder in (one, two)]
    assert {name for name in names[1] - names[0] if "checkpoints" not in name.parts} == logs
    assert (status(two)["state"], status(two)["processes"]) == ("finished", 2)

    assert said(two) == said(one).replace(str(one), str(two)) or said(two).count("training begins") == 1
    assert "training 100 %" in said(two) and "training 100 %" in log(two, 0)
    assert "training" not in log(two, 1)
    assert seen(two, 0)["pid"] != seen(two, 1)["pid"]
    assert [seen(two, rank)["modules"] for rank in (0, 1)] == [["torch"], ["torch"]]  # and not hydra
    assert [seen(two, rank)["devices"] for rank in (0, 1)] == ["2,3", "2,3"]
    assert not left(tmp_path)


MORE_THAN_A_STEP = {
    "vineppo": ["algo=ppo", "objective=vineppo"],
    "group_replay": ["objective=grpo", "sampler=group_replay", "trainer.n=2", "data.max_response_length=2"],
}
"""What has more written in a step; what brings back rollouts of former ones, where two short responses often equal."""


@pytest.mark.parametrize("kind", MORE_THAN_A_STEP)
def test_two_processes_do_what_one_does_where_a_step_is_more_than_its_rollouts(kind: str, tmp_path: Path) -> None:
    kept = [text for text in QUICK if not text.startswith("trainer.critic_warmup")]
    for name, more in (("one", []), ("two", [TWO])):
        (tmp_path / name).mkdir()
        assert complete(tmp_path / name, *kept, *MORE_THAN_A_STEP[kind], *more) == 0, said(tmp_path / name)
    one, two = ([compared(row) for row in rows(tmp_path / name)] for name in ("one", "two"))
    assert len(one) == 5
    for row, other in zip(one, two, strict=True):
        assert other == pytest.approx(row, rel=1e-3, abs=1e-5, nan_ok=True)
    told = {"vineppo": "vineppo/tokens", "group_replay": "replay/group_share"}[kind]
    assert one[-1][told] > 0


FAULTS = {
    "config": ("none", ["data.level_weights={L99: 1}"], 2, "data.level_weights: no problems of level L99"),
    "divergence": (
        "none",
        ["policy.actor_lr=1e30", "objective.entropy_coef=0.1"],
        1,
        "step 1: mini-batch 2: loss: actor nan",  # the second epoch's first
    ),
    "rank": ("fail:1", [], 2, "RuntimeError: this reward always fails); fix this class"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_in_a_rank_is_reported_once(tmp_path: Path, kind: str) -> None:
    act, changes, code, reason = FAULTS[kind]
    keys = [text.partition("=")[0] for text in changes]
    kept = [text for text in QUICK if text.partition("=")[0] not in keys]
    assert complete(tmp_path, *kept, TWO, *changes, act=act) == code, said(tmp_path)
    assert said(tmp_path).count(reason) == 1
    assert "Traceback" not in said(tmp_path) and "Traceback" in log(tmp_path, 1)
    assert status(tmp_path)["state"] == "failed" and reason in status(tmp_path)["reason"]
    assert not left(tmp_path)


def test_sigterm_saves_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    with running(begin(tmp_path, *LONG, TWO)) as parent:
        until(lambda: steps(tmp_path) >= 1, "a step")
        parent.terminate()
        assert parent.wait(PATIENCE) == 130, said(tmp_path)
    last = rows(tmp_path)[-1]["step"]
    assert saved(tmp_path, last) and status(tmp_path)["state"] == "interrupted"
    assert said(tmp_path).count("finishing the step, then saving") == 1
    assert said(tmp_path).endswith(f"saved as step-{last:06d}; continue: rrl-train resume={tmp_path / 'run'}\n")
    assert not left(tmp_path)

    more = ["trainer.total_training_steps=" + str(last + 1)]
    assert complete(tmp_path, f"resume={tmp_path / 'run'}", *more) == 0, said(tmp_path)
    assert f"continues from step {last}" in said(tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [*range(last + 2)]


def test_sigterm_to_all_of_them_saves_too(tmp_path: Path) -> None:
    """As SLURM and systemd send it: to launchers and ranks as well. A step takes four seconds."""
    with running(begin(tmp_path, *LONG, TWO, act="pause:0")) as parent:
        until(lambda: steps(tmp_path) >= 1, "a step")
        assert len(left(tmp_path)) == 5  # we, two launchers, two ranks
        for process in left(tmp_path):
            os.kill(process, signal.SIGTERM)
        assert parent.wait(PATIENCE) == 130, said(tmp_path)
    assert saved(tmp_path, rows(tmp_path)[-1]["step"]) and status(tmp_path)["state"] == "interrupted"
    assert not left(tmp_path)


def test_sigterm_while_the_processes_start_is_not_lost(tmp_path: Path) -> None:
    with running(begin(tmp_path, *LONG, TWO)) as parent:
        until(lambda: any("deepspeed.launcher.runner" in line for line in left(tmp_path).values()), "the launcher")
        parent.terminate()
        assert parent.wait(PATIENCE) == 130, said(tmp_path)
    assert status(tmp_path)["state"] == "interrupted"
    assert said(tmp_path).endswith(f"nothing is saved yet; continue: rrl-train resume={tmp_path / 'run'}\n")
    assert not left(tmp_path)


def test_a_second_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    with running(begin(tmp_path, *LONG, TWO, act="sleep:1")) as parent:  # the step will never be finished
        until((tmp_path / "seen-1").exists, "the second rank")
        parent.send_signal(signal.SIGINT)
        until(lambda: "finishing the step" in said(tmp_path), "an answer")
        parent.send_signal(signal.SIGINT)
        assert parent.wait(PATIENCE) == 130
    until(lambda: not left(tmp_path), "everything to be gone")
    assert (status(tmp_path)["state"], status(tmp_path)["reason"]) == ("interrupted", "left at once")


def test_ranks_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    with running(begin(tmp_path, *LONG, TWO)) as parent:
        until(lambda: steps(tmp_path) >= 1, "a step")
        parent.kill()
        parent.wait()
        until(lambda: not left(tmp_path), "everything to be gone")
        assert parent.returncode == -signal.SIGKILL


# --- by others --------------------------------------------------------------------------------------------------------


def test_torchrun_passes_sigterm_on_and_the_step_is_saved(tmp_path: Path) -> None:
    with running(begin(tmp_path, *LONG, program=torchrun(2))) as parent:
        until(lambda: steps(tmp_path) >= 1, "a step")
        parent.terminate()
        assert parent.wait(PATIENCE) != 0
    last = rows(tmp_path)[-1]["step"]
    assert saved(tmp_path, last)
    assert (status(tmp_path)["state"], status(tmp_path)["processes"]) == ("interrupted", 2)
    assert said(tmp_path).count("run directory: ") == 1 and said(tmp_path).count("finishing the step") == 1
    assert (tmp_path / "run" / "logs" / "rank-1.log").is_file()
    assert not left(tmp_path)


def test_torchrun_reports_a_fault_of_the_configuration_once(tmp_path: Path) -> None:
    assert complete(tmp_path, *QUICK, "trainer.nn=2", program=torchrun(2)) != 0
    assert said(tmp_path).count("trainer.nn: no such key; did you mean 'trainer.n'?") == 1
    assert not (tmp_path / "run").exists()


def task(number: int) -> dict[str, str]:
    """What srun passes to a task of a step of two."""
    place = {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number), "SLURM_STEP_NUM_TASKS": "2"}
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "localhost"}
    return place | step | {"MASTER_PORT": str(free_port())}


def test_a_signal_to_one_of_two_tasks_of_srun_stops_both(tmp_path: Path) -> None:
    other = task(1)
    with (
        running(begin(tmp_path, *LONG, **task(0) | {"MASTER_PORT": other["MASTER_PORT"]})) as first,
        running(begin(tmp_path, *LONG, **other)) as second,
    ):
        until(lambda: steps(tmp_path) >= 1, "a step")
        second.terminate()
        assert (first.wait(PATIENCE), second.wait(PATIENCE)) == (130, 130), said(tmp_path)
    last = rows(tmp_path)[-1]["step"]
    assert saved(tmp_path, last) and [row["step"] for row in rows(tmp_path)] == [*range(last + 1)]
    assert (status(tmp_path)["state"], status(tmp_path)["processes"]) == ("interrupted", 2)
    assert (tmp_path / "run" / "logs" / "rank-1.log").is_file()


# --- on several machines ----------------------------------------------------------------------------------------------

PDSH = """#!{python}
import subprocess, sys
assert sys.argv[1:4] == ["-S", "-f", "1024"] and sys.argv[4] == "-w", sys.argv
machines, line = sys.argv[5].split(","), " ".join(sys.argv[6:])
clean = {{"PATH": "/usr/bin:/bin", "HOME": "/tmp"}}
started = [
    subprocess.Popen(["/bin/bash", "-c", line.replace("%n", str(n))], env=clean) for n in range(len(machines))
]
sys.exit(max(process.wait() for process in started))
"""


def machines(folder: Path) -> str:
    """A PATH on which pdsh starts what it is asked to on this machine, and ssh reports this machine's address."""
    commands = {
        "pdsh": PDSH.format(python=sys.executable, asked=str(folder / "asked")),
        "ssh": "#!/bin/sh\necho 127.0.0.1",
    }
    for name, text in commands.items():
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    return f"{folder / 'bin'}:{os.environ['PATH']}"


def test_a_process_on_each_machine_of_a_hostfile(tmp_path: Path) -> None:
    """DeepSpeed's runner and launchers are real; pdsh and ssh are not."""
    (tmp_path / "hosts").write_text("first slots=2\nsecond slots=2\n")
    keys = ["launcher=hostfile", f"launcher.hostfile={tmp_path / 'hosts'}", "launcher.num_processes=1"]
    passed_on = {"RRL_TEST_ACT": "none", "RRL_TEST_SEEN": str(tmp_path), "OMP_NUM_THREADS": "1"}
    (tmp_path / ".deepspeed_env").write_text("".join(f"{name}={value}\n" for name, value in passed_on.items()))
    with running(begin(tmp_path, *LONG, *keys, PATH=machines(tmp_path), HOME=str(tmp_path))) as parent:
        until(lambda: steps(tmp_path) >= 1, "a step")
        parent.terminate()
        assert parent.wait(PATIENCE) == 130, said(tmp_path)
    assert status(tmp_path)["processes"] == 2 and saved(tmp_path, rows(tmp_path)[-1]["step"])
    assert "saved as step-" in said(tmp_path) and (tmp_path / "run" / "logs" / "rank-1.log").is_file()


# --- frozen -----------------------------------------------------------------------------------------------------------

LIMIT = "run.phase_limit=25"  # the start takes ten seconds on an idle machine


def test_a_frozen_reward_of_one_rank_ends_the_run(tmp_path: Path) -> None:
    assert complete(tmp_path, *LONG, TWO, LIMIT, act="sleep:1") == 1
    assert status(tmp_path)["state"] == "failed"
    assert status(tmp_path)["reason"].startswith("watchdog: rank ")
    assert "(run.phase_limit: 25)" in status(tmp_path)["reason"]
    assert status(tmp_path)["reason"] in said(tmp_path)
    assert "in sleep_for_ever" in log(tmp_path, 1) and "in sleep_for_ever" not in log(tmp_path, 0)
    for rank in (0, 1):  # the first has its rewards and waits to compare them
        assert "Thread 0x" in log(tmp_path, rank) and "last finished phase: gen;" in log(tmp_path, rank)
    assert not left(tmp_path)


def test_a_rank_that_is_stopped_altogether_ends_the_run(tmp_path: Path) -> None:
    with running(begin(tmp_path, *LONG, TWO, LIMIT)) as parent:
        until(lambda: steps(tmp_path) >= 1, "a step")
        os.kill(seen(tmp_path, 1)["pid"], signal.SIGSTOP)
        assert parent.wait(PATIENCE) == 1
    assert status(tmp_path)["reason"].startswith("watchdog: rank 0 of 2: ")
    assert status(tmp_path)["reason"] in said(tmp_path)
    assert "Thread 0x" in log(tmp_path, 0) and "last finished phase: " in log(tmp_path, 0)
    until(lambda: not left(tmp_path), "everything to be gone")


def test_one_process_alone_that_hangs_ends_too(tmp_path: Path) -> None:
    assert complete(tmp_path, *LONG, LIMIT, act="sleep:0") == 1
    assert status(tmp_path)["reason"].startswith("watchdog: rank 0 of 1: reward lasts ")
    assert status(tmp_path)["reason"] in said(tmp_path)
    assert "in sleep_for_ever" in log(tmp_path, 0) and "last finished phase: gen;" in log(tmp_path, 0)
