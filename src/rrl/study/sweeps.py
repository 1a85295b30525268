"""``rrl-train -m``: checks everything, starts Hydra's launcher, and reports its jobs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rrl.config.choices import search_path
from rrl.processes.stopping import Signals, remove_requests, request_stop, stop_requested
from rrl.records.status import RunLock
from rrl.study.sweep_files import OVER, Sweep, last_line, read_jobs, report, write_best, write_job, write_sweep
from rrl.study.sweep_jobs import PAUSE, TRIAL, quoted
from rrl.study.sweep_plan import SweepPlan, check_plan, read_plan

PROGRAM = (sys.executable, "-m", "rrl.cli.train")
LAUNCH = (sys.executable, "-c", "from rrl.study.sweep_jobs import launch; launch()")


def sweep(arguments: Sequence[str], show: Callable[[str], None]) -> int:
    """Run all jobs and report their ends; 0 when all finished, 1 when one did not, 130 when interrupted.

    Raises ConfigError before anything starts.
    """
    plan = read_plan(arguments)
    devices = check_plan(plan)
    with RunLock(plan.folder):
        started = _write_records(plan, devices)
        show(f"sweep directory: {plan.folder}")
        code = _run_launcher(plan, show)
        jobs = read_jobs(plan.folder)
        if plan.search is not None:
            write_best(started, jobs)
        show(report(jobs, plan.folder))
        return _sweep_exit_code(code, started, show)


def _write_records(plan: SweepPlan, devices: Sequence[str] | None) -> Sweep:
    """Write the sweep's record, and reset the records of jobs that an earlier attempt did not complete."""
    started = Sweep(
        folder=str(plan.folder),
        command=plan.command,
        program=PROGRAM,
        fixed=[key for key, texts in plan.values.items() if len(texts) == 1],
        devices=devices,
        search=None if plan.search is None else {"settings": asdict(plan.search), "space": plan.space},
    )
    write_sweep(started)
    remove_requests(plan.folder)
    for job in read_jobs(plan.folder):
        if not started.leaves(job):
            write_job(started, replace(job, state="waiting", reason=None, pid=None))
    return started


def _run_launcher(plan: SweepPlan, show: Callable[[str], None]) -> int:
    """Run Hydra in a separate process and report its jobs; returns its exit code.

    The process has its own session, so that a terminal's Ctrl-C does not reach the launcher's workers.
    """
    common = [text for text in plan.texts if text.partition("=")[0] not in plan.space]
    trials = [] if plan.search is None else [f"+{TRIAL}=range({plan.search.n_trials})"]
    overrides = [*common, *trials, *plan.hydra, search_path(), f"hydra.sweep.dir={quoted(plan.folder)}"]
    with (plan.folder / "launcher.log").open("ab") as log, _stopping(plan.folder, show):
        launcher = subprocess.Popen(
            [*LAUNCH, "--multirun", *overrides],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return _report_changes(launcher, plan.folder, show)
        finally:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
                launcher.wait()


def _report_changes(launcher: "subprocess.Popen[bytes]", folder: Path, show: Callable[[str], None]) -> int:
    """Print a line for each change of a job's state; returns the launcher's exit code."""
    states: dict[str, str] = {}
    while True:
        code = launcher.poll()
        jobs = read_jobs(folder)
        for job in jobs:
            if states.get(job.name) != job.state:
                show(f"  {job.name}: {job.state}")
        states = {job.name: job.state for job in jobs}
        if code is not None:
            return code
        time.sleep(PAUSE)


def _stopping(folder: Path, show: Callable[[str], None]) -> Signals:
    """Turn signals into requests to stop: at the first one the jobs save, at a second Ctrl-C they are killed."""

    def save() -> None:
        request_stop(folder)
        show("stopping: running jobs save and end; Ctrl-C again kills them")

    def kill() -> None:
        if stop_requested(folder) == 2:
            raise KeyboardInterrupt
        request_stop(folder, now=True)
        show("killing the jobs")

    return Signals(save, kill, more=[signal.SIGHUP])


def _sweep_exit_code(code: int, started: Sweep, show: Callable[[str], None]) -> int:
    """The sweep's exit code, with a message for a failed launcher."""
    log = Path(started.folder) / "launcher.log"
    if code:
        show(f"\nthe launcher ended with code {code}: {last_line(log)} ({log})")
    if started.stops():
        return 130
    jobs = read_jobs(Path(started.folder))
    return int(bool(code) or not jobs or any(job.state not in OVER for job in jobs))
