"""``rrl-train -m``: everything checked, then Hydra's launcher started, watched, and its jobs reported."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rrl.processes.stopping import Signals, ask_to_stop, asked_to_stop, withdraw
from rrl.records.status import hold
from rrl.study.sweep_files import OVER, Sweep, last_line, read_jobs, report, write_best, write_job, write_sweep
from rrl.study.sweep_jobs import PAUSE, TRIAL, quoted
from rrl.study.sweep_plan import SweepPlan, check, read

PROGRAM = (sys.executable, "-m", "rrl.cli.train")
LAUNCH = (sys.executable, "-c", "from rrl.study.sweep_jobs import launch; launch()")


def sweep(arguments: Sequence[str], tell: Callable[[str], None]) -> int:
    """Run all jobs and tell how they end; 0 when all came to their end, 1 when one did not, 130 when interrupted.

    Raises ConfigError before anything starts.
    """
    plan = read(arguments)
    devices = check(plan)
    with hold(plan.folder):
        started = _begin(plan, devices)
        tell(f"sweep directory: {plan.folder}")
        code = _launch(plan, tell)
        jobs = read_jobs(plan.folder)
        if plan.search is not None:
            write_best(started, jobs)
        tell(report(jobs, plan.folder))
        return _exit_code(code, started, tell)


def _begin(plan: SweepPlan, devices: Sequence[str] | None) -> Sweep:
    """The sweep's record, and those of its jobs as they wait; what has come to its end in an earlier attempt stays."""
    started = Sweep(
        folder=str(plan.folder),
        command=plan.command,
        program=PROGRAM,
        fixed=[key for key, texts in plan.values.items() if len(texts) == 1],
        devices=devices,
        search=None if plan.search is None else {"settings": asdict(plan.search), "space": plan.space},
    )
    write_sweep(started)
    withdraw(plan.folder)
    for job in read_jobs(plan.folder):
        if not started.leaves(job):
            write_job(started, replace(job, state="waiting", reason=None, pid=None))
    return started


def _launch(plan: SweepPlan, tell: Callable[[str], None]) -> int:
    """Run Hydra in a process of its own and tell what becomes of the jobs; its exit code.

    In a session of its own, so that a terminal's Ctrl-C reaches no launcher's worker.
    """
    alike = [text for text in plan.texts if text.partition("=")[0] not in plan.space]
    trials = [] if plan.search is None else [f"+{TRIAL}=range({plan.search.n_trials})"]
    overrides = [*alike, *trials, *plan.hydra, f"hydra.sweep.dir={quoted(plan.folder)}"]
    with (plan.folder / "launcher.log").open("ab") as log, _stopping(plan.folder, tell):
        launcher = subprocess.Popen(
            [*LAUNCH, "--multirun", *overrides],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return _watch(launcher, plan.folder, tell)
        finally:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
                launcher.wait()


def _watch(launcher: "subprocess.Popen[bytes]", folder: Path, tell: Callable[[str], None]) -> int:
    """A line whenever a job's state is another than before; the launcher's exit code when it ends."""
    states: dict[str, str] = {}
    while True:
        code = launcher.poll()
        jobs = read_jobs(folder)
        for job in jobs:
            if states.get(job.name) != job.state:
                tell(f"  {job.name}: {job.state}")
        states = {job.name: job.state for job in jobs}
        if code is not None:
            return code
        time.sleep(PAUSE)


def _stopping(folder: Path, tell: Callable[[str], None]) -> Signals:
    """Turn signals into requests to stop: at the first the jobs save, at a second Ctrl-C they are killed."""

    def save() -> None:
        ask_to_stop(folder)
        tell("stopping: running jobs save and end; Ctrl-C again kills them")

    def kill() -> None:
        if asked_to_stop(folder) == 2:
            raise KeyboardInterrupt
        ask_to_stop(folder, now=True)
        tell("killing the jobs")

    return Signals(save, kill, more=[signal.SIGHUP])


def _exit_code(code: int, started: Sweep, tell: Callable[[str], None]) -> int:
    """That of the sweep; a launcher that failed is told."""
    folder = Path(started.folder)
    if code:
        tell(f"\nthe launcher ended with code {code}: {last_line(folder / 'launcher.log')} ({folder / 'launcher.log'})")
    if started.stops():
        return 130
    jobs = read_jobs(folder)
    return int(bool(code) or not jobs or any(job.state not in OVER for job in jobs))
