"""Does the steps of a reproduction on this machine: as many at a time as are wanted, each after those that it needs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path

from rrl.errors import UsageError
from rrl.processes.devices import Lease, visible_devices, wait_for
from rrl.processes.stopping import Signals
from rrl.records.texts import ended_with
from rrl.study.reproduce_steps import Step
from rrl.study.sweep_files import last_line

Show = Callable[[str], None]
STOPPED = 130
PAUSE = 1.0
"""Seconds between looks at what a step waits for."""


def work_here(steps: Sequence[Step], logs: Path, jobs: int, show: Show) -> int:
    """Do the steps, ``jobs`` at a time; returns 0, 1 where a step failed, 130 when interrupted.

    A step that fails keeps only those waiting that need it. At Ctrl-C or SIGTERM running steps save and end.
    """
    left = {step.name: step for step in steps}
    order = TopologicalSorter({step.name: [name for name in step.needs if name in left] for step in steps})
    order.prepare()
    ends: dict[str, int] = {}
    logs.mkdir(parents=True, exist_ok=True)
    children = _Children(logs, show)
    with Signals(children.finish, children.kill), ThreadPoolExecutor(jobs) as pool:
        pending: dict[Future[int], str] = {}
        while True:
            ready = [left[name] for name in order.get_ready()]
            pending |= {pool.submit(children.work, step, step.devices()): step.name for step in ready}
            if not pending:
                break
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                name = pending.pop(future)
                ends[name] = future.result()
                if ends[name] == 0:
                    order.done(name)
    for name in [name for name in left if name not in ends]:
        show(f"{name}: {outlook(left[name], [step for step in steps if ends.get(step.name) != 0])}")
    return STOPPED if children.stopping else int(len(ends) < len(left) or any(ends.values()))


def outlook(step: Step, undone: Sequence[Step]) -> str:
    """What the step waits for among those that are not done."""
    missing = [other.name for other in undone if other.name in step.needs]
    return f"waits for {', '.join(missing)}" if missing else "to do"


class _Children:
    """The processes that are running, each in a session of its own, so that a terminal's Ctrl-C reaches them once."""

    def __init__(self, logs: Path, show: Show) -> None:
        self.stopping = False
        self._logs, self._show = logs, show
        self._running: set[subprocess.Popen[bytes]] = set()
        self._devices = visible_devices()

    def work(self, step: Step, devices: int) -> int:
        """Do a step on leased devices; returns its exit code."""
        while step.busy() and not self.stopping:
            time.sleep(PAUSE)
        lease = wait_for(self._devices, min(devices, len(self._devices)), lambda: self.stopping, PAUSE)
        if lease is None:
            return STOPPED
        log, begun = self._logs / f"{step.name}.log", time.monotonic()
        self._show(f"{step.name}: begins ({log})")
        try:
            code = step.work(lambda module, arguments: self._call(module, arguments, log, lease))
            reason = f"{ended_with(code)}: {last_line(log)}" if code else ""
        except UsageError as error:
            code, reason = 2, str(error)
        finally:
            lease.close()
        took = f"{time.monotonic() - begun:.0f} s"
        self._show(f"{step.name}: done, {took}" if code == 0 else f"{step.name}: not done, {took}: {reason}")
        return code

    def finish(self) -> None:
        """Let running steps save and end; no other one begins."""
        self.stopping = True
        self._show("stopping: running steps save and end; Ctrl-C again kills them")
        for child in [*self._running]:
            child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        for child in [*self._running]:
            os.killpg(child.pid, signal.SIGKILL)

    def _call(self, module: str, arguments: Sequence[str], log: Path, lease: Lease) -> int:
        environment = {**os.environ}
        if lease.devices:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(lease.devices)
        with log.open("ab") as file:
            child = subprocess.Popen(
                [sys.executable, "-m", f"rrl.cli.{module}", *arguments],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment,
                pass_fds=lease.descriptors, start_new_session=True,
            )  # fmt: skip
        self._running.add(child)
        if self.stopping:
            child.send_signal(signal.SIGTERM)
        code = child.wait()
        self._running.discard(child)
        return code
