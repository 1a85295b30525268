"""One job of a sweep: ``rrl-train`` in a new process, on leased devices.

A launcher of Hydra calls ``run_job``, in any process; the results are files in the sweep's folder.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rrl.config.multirun import hand_out, handed
from rrl.processes.devices import Lease, wait_for
from rrl.processes.slurm import Notice, queue_again
from rrl.records.files import write_whole
from rrl.records.secrecy import hidden, redacted
from rrl.records.status import read_state
from rrl.study.search import Optuna, Trial
from rrl.study.sweep_files import Sweep, SweepJob, job_name, last_accuracy, last_line, read_job, read_sweep, write_job

PAUSE = 0.2  # seconds between two checks of a process or a file
TRIAL = "trial"
"""The key by which Hydra counts the jobs of a search."""
GROUP = "WANDB_RUN_GROUP"
"""The environment variable for Weights & Biases' group, used where the configuration has none."""


def launch() -> None:
    """Let Hydra expand ``sys.argv`` and pass each job to its launcher; runs in a separate process."""
    hand_out(run_job)


def run_job(config: Any) -> float | None:
    """Hydra's task function: runs a job and returns its held-out accuracy, if any.

    Skips jobs that an earlier attempt completed. Does not raise for a failed job, so that the others continue.
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
        job = SweepJob(name=job_name(number, hidden(varied)), overrides=varied, state="waiting")
    job = replace(job, trial=None if trial is None else trial.number)
    job = _run(sweep, job, [*given, *chosen], devices_needed(config), trial)
    if trial is not None:
        trial.end(job.state, job.accuracy)
    return job.accuracy


def _trial(sweep: Sweep, number: int, job: SweepJob | None) -> Trial | None:
    """The trial that chooses the job's values: the recorded one, or a new one."""
    if sweep.search is None:
        return None
    study = Optuna(**sweep.search["settings"]).open(Path(sweep.folder), number)
    return Trial(study, sweep.search["space"], None if job is None else job.trial)


def hide_secrets(file: Path) -> None:
    """Replace secrets by their names in a file that Hydra has written."""
    if file.is_file():
        write_whole(file, redacted(file.read_text(encoding="utf-8")).encode())


def devices_needed(config: Mapping[str, Any]) -> int:
    """The number of devices that a job leases: one for each process; none with a hostfile."""
    launcher = config["launcher"]
    return int(launcher["num_processes"]) if launcher.get("hostfile") is None else 0


def _run(sweep: Sweep, job: SweepJob, overrides: Sequence[str], count: int, trial: Trial | None) -> SweepJob:
    """Run the job and keep its record up to date; returns the ended job.

    Exits instead where a cluster ended the job and has it in its queue again.
    """
    write_job(sweep, job)
    run = Path(sweep.folder) / job.name
    before = read_state(run).checkpoint
    with Notice() as notice:
        lease = wait_for(sweep.devices or (), count, lambda: bool(sweep.stops()), PAUSE)
        if lease is None:
            return write_job(sweep, replace(job, state="not started", reason="the sweep was stopped before"))
        try:
            child = _start_child(sweep, job, overrides, lease)
        finally:
            lease.close()  # the child holds the locks now
        host = socket.gethostname()
        job = replace(job, state="running", started=time.time(), host=host, pid=child.pid, devices=lease.devices)
        write_job(sweep, job)
        falls_behind = None if trial is None else partial(trial.falls_behind, run)
        pruned = _wait_for_child(child, sweep, falls_behind, notice)
        ended = _ended_job(sweep, job, child.wait(), pruned=pruned, asked=notice.asked)
        if notice.asked and ended.state == "interrupted" and not sweep.stops():
            ended = _queue_again(sweep, ended, stuck=notice.out_of_time and read_state(run).checkpoint == before)
    return write_job(sweep, ended)


def _queue_again(sweep: Sweep, job: SweepJob, *, stuck: bool) -> SweepJob:
    """Exit with the job in the cluster's queue, from where it goes on; else return it with the reason why not.

    It would never end where it is ``stuck``: where it used up its time without a new checkpoint.
    """
    why: str | None = "no step was saved within its time limit; raise hydra.launcher.timeout_min"
    if not stuck:
        write_job(sweep, replace(job, state="waiting", reason="the cluster has it in its queue again", pid=None))
        why = queue_again()
    if why is None:
        sys.exit("in the queue again")  # without a result, so that the sweep waits for it
    return replace(job, reason=f"not queued again: {why}; {job.reason}")


def _start_child(sweep: Sweep, job: SweepJob, overrides: Sequence[str], lease: Lease) -> "subprocess.Popen[bytes]":
    """The job's process, in a new session, so that a terminal's Ctrl-C does not reach it directly."""
    environment = {**os.environ, GROUP: os.environ.get(GROUP) or Path(sweep.folder).name}
    if lease.devices:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(lease.devices)
    with (sweep.jobs / f"{job.name}.log").open("ab") as log:
        return subprocess.Popen(
            # With resume=auto, a job that a cluster pre-empted and restarted continues from its last checkpoint.
            [*sweep.program, *overrides, f"run.dir={quoted(Path(sweep.folder) / job.name)}", "resume=auto"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=lease.descriptors,
            start_new_session=True,
        )


def quoted(path: Path) -> str:
    """The path as a value of an override."""
    return "'" + re.sub(r"(\\*)(?='|$)", r"\1\1", str(path)).replace("'", "\\'") + "'"


def _wait_for_child(
    child: "subprocess.Popen[bytes]", sweep: Sweep, falls_behind: Callable[[], bool] | None, notice: Notice
) -> bool:
    """Wait for the child's end; returns whether it was pruned.

    At the first request to stop the sweep, or the cluster's to end the job, it gets SIGTERM, at the second SIGKILL.
    """
    stopping, pruned = 0, False
    try:
        while child.poll() is None:
            requested = sweep.stops() or int(notice.asked)
            if requested > stopping:
                os.killpg(child.pid, signal.SIGKILL) if requested == 2 else child.terminate()
            stopping = requested
            if falls_behind is not None and not pruned and not stopping and falls_behind():
                pruned = True
                child.terminate()
            time.sleep(PAUSE)
        return pruned and not stopping
    finally:  # a cluster's time limit ends this process by an exception: the child saves first
        if child.poll() is None and not stopping:
            child.terminate()
        child.wait()


def _ended_job(sweep: Sweep, job: SweepJob, code: int, *, pruned: bool, asked: bool) -> SweepJob:
    """The job with its end and results; where the cluster ``asked`` for its end, a signal may have come too early."""
    folder = Path(sweep.folder) / job.name
    run = read_state(folder)
    job = replace(job, ended=time.time(), exit_code=code, reward=run.reward)
    if code == 0:
        return replace(job, state="finished", accuracy=last_accuracy(folder))
    if code == 130 and pruned:
        return replace(job, state="pruned", reason="its accuracy fell behind that of other trials")
    if code == 130 or sweep.stops() or (asked and code < 0):
        remedy = f"continue: rrl-train resume={folder}" if run.checkpoint else "nothing was saved"
        return replace(job, state="interrupted", reason=remedy)
    if code < 0:
        return replace(job, state="failed", reason=f"killed by {signal.Signals(-code).name}")
    return replace(job, state="failed", reason=last_line(sweep.jobs / f"{job.name}.log"))
