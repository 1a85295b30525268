"""This process in a job of SLURM: its place among the tasks of a step, and the job's return to the queue."""

import os
import re
import signal
import subprocess
from types import FrameType

from rrl.processes.stopping import Signals

EXECUTOR = "SUBMITIT_EXECUTOR"
"""Set by submitit in the jobs that it starts."""


def place() -> dict[str, str]:
    """torchrun's variables for this task of srun. The ranks meet on the first node, at a port made of job and step."""
    given = os.environ
    names = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS"}
    step = int(given["SLURM_JOB_ID"]) + 1000 * int(given["SLURM_STEP_ID"])  # several may share a machine
    meeting = {
        "MASTER_ADDR": given.get("MASTER_ADDR") or first_host(given["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": given.get("MASTER_PORT") or str(20000 + step % 10000),
    }
    return {name: given[slurm] for name, slurm in names.items()} | meeting


def first_host(nodes: str) -> str:
    """The first of SLURM's node list: of ``gpu[003-007,012]-ib,login`` it is ``gpu003-ib``."""
    first = re.match(r"(?:[^\[,]|\[[^\]]*\])+", nodes)
    assert first is not None, nodes
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0])


class Notice(Signals):
    """The cluster's request that a job of submitit ends; other processes see none, and keep their handlers.

    ``out_of_time``: the request was SIGUSR2, which submitit has SLURM send some time before the time limit.
    """

    def __init__(self) -> None:
        self.out_of_time = self.asked = False
        self._before = {}
        if os.environ.get(EXECUTOR) == "slurm":
            super().__init__(lambda: None, lambda: None)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.out_of_time |= number == signal.SIGUSR2
        super()._take(number, frame)


def queue_again() -> str | None:
    """Queue this process's job again; None where that is done, or was done by SLURM, else the reason why not.

    SLURM has done so when it pre-empts without a grace time. A job that ends within its grace time counts as completed,
    and one that was cancelled or has run out of time stays so.
    """
    array = os.environ.get("SLURM_ARRAY_JOB_ID")  # whose number alone stands for all its jobs
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    about = _scontrol("show", "job", "--oneliner", job)
    facts = dict(re.findall(r"(\w+)=(\S*)", about.stdout))
    if int(facts.get("Restarts", 0)) > int(os.environ.get("SLURM_RESTART_COUNT", 0)):
        return None
    if facts.get("JobState") != "RUNNING":
        return f"SLURM's state of the job is {facts.get('JobState', about.stderr.strip())}"
    asked = _scontrol("requeue", job)
    return None if asked.returncode == 0 else f"scontrol requeue: {asked.stderr.strip()}"


def _scontrol(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["scontrol", *words], capture_output=True, text=True)
