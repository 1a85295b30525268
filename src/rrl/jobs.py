"""One job of a sweep: ``rrl-train`` in a fresh process, on devices of its own.

A launcher of Hydra calls ``run``, in whatever process it likes; everything comes back through the sweep's folder.
"""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rrl.devices import Lease, take
from rrl.overrides import conf_dir
from rrl.runstate import read_state
from rrl.sweep_records import Job, Sweep, last_accuracy, last_line, name, read_sweep, write_job

PAUSE = 0.2  # seconds between two looks at a process or a file


def launch() -> None:
    """Let Hydra expand ``sys.argv`` and hand each job to its launcher. A process of its own runs this."""
    import hydra

    hydra.main(config_path=str(conf_dir()), config_name="train", version_base="1.3")(run)()


def run(config: Any) -> float | None:
    """Hydra's task function: the job's held-out accuracy, or None (which Optuna takes as failed) where there is none.

    Never raises because a job failed, so that the others go on.
    """
    from hydra.core.hydra_config import HydraConfig

    about = HydraConfig.get()
    sweep = read_sweep(Path(about.sweep.dir))
    overrides = list(about.overrides.task)
    varied = [text for text in overrides if text.partition("=")[0] not in sweep.fixed]
    job = Job(name=name(about.job.num, varied), overrides=varied, state="waiting")
    return _finished(sweep, job, overrides, devices_needed(config)).accuracy


def devices_needed(config: Mapping[str, Any]) -> int:
    """How many devices a job with this configuration borrows: one a process; none where a hostfile names machines."""
    launcher = config["launcher"]
    return int(launcher["num_processes"]) if launcher["hostfile"] is None else 0


def _finished(sweep: Sweep, job: Job, overrides: Sequence[str], count: int) -> Job:
    """The job when it is over; its record is kept up to date meanwhile."""
    write_job(sweep, job)
    lease = _borrow(sweep, count)
    if lease is None:
        return write_job(sweep, replace(job, state="not started", reason="the sweep was stopped before"))
    try:
        child = _start(sweep, job, overrides, lease)
    finally:
        lease.close()  # the child has the locks now
    host = socket.gethostname()
    job = replace(job, state="running", started=time.time(), host=host, pid=child.pid, devices=lease.devices)
    write_job(sweep, job)
    return write_job(sweep, _ended(sweep, job, _attend(child, sweep)))


def _borrow(sweep: Sweep, count: int) -> Lease | None:
    """Devices for the job, as soon as enough are free (none where there are none); None when the sweep is stopped."""
    while not sweep.stops():
        lease = take(sweep.devices, count) if sweep.devices else Lease((), ())
        if lease is not None:
            return lease
        time.sleep(PAUSE)
    return None


def _start(sweep: Sweep, job: Job, overrides: Sequence[str], lease: Lease) -> "subprocess.Popen[bytes]":
    """The job's own process; in a session of its own, so that a terminal's Ctrl-C reaches it only through us."""
    shown = {"CUDA_VISIBLE_DEVICES": ",".join(lease.devices)} if lease.devices else {}
    with (sweep.jobs / f"{job.name}.log").open("ab") as log:
        return subprocess.Popen(
            # A job that a cluster took away and started anew goes on where it saved.
            [*sweep.program, *overrides, f"run.dir={quoted(Path(sweep.folder) / job.name)}", "resume=auto"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **shown},
            pass_fds=lease.descriptors,
            start_new_session=True,
        )


def quoted(path: Path) -> str:
    """The path as a value of an override."""
    return "'" + re.sub(r"(\\*)(?='|$)", r"\1\1", str(path)).replace("'", "\\'") + "'"


def _attend(child: "subprocess.Popen[bytes]", sweep: Sweep) -> int:
    """The child's exit code. Asked to stop, it gets one SIGTERM, and SIGKILL when asked again."""
    told = 0
    try:
        while child.poll() is None:
            asked = sweep.stops()
            if asked > told:
                _tell(child, asked)
            told = asked
            time.sleep(PAUSE)
        return child.returncode
    finally:  # a cluster's time limit ends this process by an exception: the child saves first
        if child.poll() is None and not told:
            child.terminate()
        child.wait()


def _tell(child: "subprocess.Popen[bytes]", asked: int) -> None:
    if asked == 1:
        child.terminate()
    else:
        os.killpg(child.pid, signal.SIGKILL)


def _ended(sweep: Sweep, job: Job, code: int) -> Job:
    """The job with how it ended and what it brought."""
    folder = Path(sweep.folder) / job.name
    run = read_state(folder)
    job = replace(job, ended=time.time(), exit_code=code, reward=run.reward)
    if code == 0:
        return replace(job, state="finished", accuracy=last_accuracy(folder))
    if code == 130 or sweep.stops():
        remedy = f"goes on by rrl-train resume={folder}" if run.checkpoint else "nothing was saved"
        return replace(job, state="interrupted", reason=remedy)
    if code < 0:
        return replace(job, state="failed", reason=f"killed by {signal.Signals(-code).name}")
    return replace(job, state="failed", reason=last_line(sweep.jobs / f"{job.name}.log"))
