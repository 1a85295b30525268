"""One job of a sweep: ``rrl-train`` in a fresh process, on devices of its own.

A launcher of Hydra calls ``run``, in whatever process it likes; everything comes back through the sweep's folder.
"""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rrl.config.multirun import hand_out, handed
from rrl.processes.devices import Lease, take
from rrl.records.files import write_whole
from rrl.records.secrecy import hidden, redacted
from rrl.records.status import read_state
from rrl.study.search import Optuna, Trial
from rrl.study.sweep_files import Job, Sweep, last_accuracy, last_line, name, read_job, read_sweep, write_job

PAUSE = 0.2  # seconds between two looks at a process or a file
TRIAL = "trial"
"""The key by which Hydra counts the jobs of a search."""
GROUP = "WANDB_RUN_GROUP"
"""The environment variable with Weights & Biases' group, where the configuration names none."""


def launch() -> None:
    """Let Hydra expand ``sys.argv`` and hand each job to its launcher. A process of its own runs this."""
    hand_out(run)


def run(config: Any) -> float | None:
    """Hydra's task function: the job's held-out accuracy, or None where there is none.

    A job that came to its end in an earlier attempt is left alone. Never raises because a job failed, so that the
    others go on.
    """
    folder, number, overrides = handed()
    hide_secrets(folder / "multirun.yaml")
    sweep = read_sweep(folder)
    job = read_job(sweep, number)
    if job is not None and sweep.leaves(job):
        return job.accuracy
    given = [text for text in overrides if not text.startswith(f"+{TRIAL}=")]
    trial = _trial(sweep, number, job)
    chosen = [] if trial is None else trial.overrides
    if job is None:
        varied = [text for text in (*given, *chosen) if text.partition("=")[0] not in sweep.fixed]
        job = Job(name=name(number, hidden(varied)), overrides=varied, state="waiting")
    job = replace(job, trial=None if trial is None else trial.number)
    job = _finished(sweep, job, [*given, *chosen], devices_needed(config), trial)
    if trial is not None:
        trial.end(job.state, job.accuracy)
    return job.accuracy


def _trial(sweep: Sweep, number: int, job: Job | None) -> Trial | None:
    """The trial that chooses the job's values: the one it had, or a new one."""
    if sweep.search is None:
        return None
    study = Optuna(**sweep.search["settings"]).open(Path(sweep.folder), number)
    return Trial(study, sweep.search["space"], None if job is None else job.trial)


def hide_secrets(file: Path) -> None:
    """Show secrets by their names in a file that Hydra has written."""
    if file.is_file():
        write_whole(file, redacted(file.read_text(encoding="utf-8")).encode())


def devices_needed(config: Mapping[str, Any]) -> int:
    """How many devices a job with this configuration borrows: one a process; none where a hostfile names machines."""
    launcher = config["launcher"]
    return int(launcher["num_processes"]) if launcher["hostfile"] is None else 0


def _finished(sweep: Sweep, job: Job, overrides: Sequence[str], count: int, trial: Trial | None) -> Job:
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
    behind = _attend(
        child, sweep, None if trial is None else partial(trial.falls_behind, Path(sweep.folder) / job.name)
    )
    return write_job(sweep, _ended(sweep, job, child.wait(), pruned=behind))


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
    shown = {GROUP: os.environ.get(GROUP) or Path(sweep.folder).name}
    if lease.devices:
        shown["CUDA_VISIBLE_DEVICES"] = ",".join(lease.devices)
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


def _attend(child: "subprocess.Popen[bytes]", sweep: Sweep, falls_behind: Callable[[], bool] | None) -> bool:
    """Wait for the child's end; whether it was asked to end because it falls behind.

    When the sweep is asked to stop, it gets one SIGTERM, and SIGKILL when asked again.
    """
    told, behind = 0, False
    try:
        while child.poll() is None:
            asked = sweep.stops()
            if asked > told:
                _tell(child, asked)
            told = asked
            if falls_behind is not None and not behind and not told and falls_behind():
                behind = True
                child.terminate()
            time.sleep(PAUSE)
        return behind and not told
    finally:  # a cluster's time limit ends this process by an exception: the child saves first
        if child.poll() is None and not told:
            child.terminate()
        child.wait()


def _tell(child: "subprocess.Popen[bytes]", asked: int) -> None:
    if asked == 1:
        child.terminate()
    else:
        os.killpg(child.pid, signal.SIGKILL)


def _ended(sweep: Sweep, job: Job, code: int, *, pruned: bool) -> Job:
    """The job with how it ended and what it brought."""
    folder = Path(sweep.folder) / job.name
    run = read_state(folder)
    job = replace(job, ended=time.time(), exit_code=code, reward=run.reward)
    if code == 0:
        return replace(job, state="finished", accuracy=last_accuracy(folder))
    if code == 130 and pruned:
        return replace(job, state="pruned", reason="its accuracy fell behind that of other trials")
    if code == 130 or sweep.stops():
        remedy = f"goes on by rrl-train resume={folder}" if run.checkpoint else "nothing was saved"
        return replace(job, state="interrupted", reason=remedy)
    if code < 0:
        return replace(job, state="failed", reason=f"killed by {signal.Signals(-code).name}")
    return replace(job, state="failed", reason=last_line(sweep.jobs / f"{job.name}.log"))
