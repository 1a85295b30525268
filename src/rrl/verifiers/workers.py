"""Worker processes that can be killed: items go in, replies come out, and an item costs at most its limits.

A worker is a clean interpreter that runs ``python -m module``, whose main program is ``serving.serve``. It stays warm
from item to item, and is replaced when it dies of one.
"""

import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rrl.ranges import at_least_one, check_ranges
from rrl.records.pulse import beat

End = Literal["done", "raised", "memory", "time_out", "crashed", "killed", "stalled", "unavailable"]

STARTING = 60.0
"""Seconds that a worker may take to load its work."""
PAUSES = (0.1, 0.3, 1.0)
"""Seconds between the tries to start a worker; after the last it is given up until it is renewed."""
BEGUN, NOT_BEGUN = 2, 4
"""Workers that may die of an item: once it has told a phase, so that it may be to blame, and before."""
CLOSED = "the workers were closed"
Jobs = queue.SimpleQueue[tuple[bytes, "Future[Reply]"] | None]


@dataclass(frozen=True, kw_only=True)
class WorkerLimits:
    """Of one item: ``seconds`` of processor time, ``patience`` seconds by the clock, ``memory_mb`` of address space."""

    seconds: float
    patience: float
    memory_mb: int

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= self.patience:
            raise ValueError(
                f"seconds, patience: expected 0 < seconds <= patience, got {self.seconds} and {self.patience}"
            )
        check_ranges(self, at_least_one("memory_mb"))


@dataclass(frozen=True, slots=True)
class Reply:
    """How an item ended: what the work returned, or why it did not return, and the last phase it told of.

    ``raised``, ``memory`` and ``time_out`` (processor time) are the item's own doing, and so is ``crashed`` (twice, by
    a signal or an exit of its own). ``killed`` (twice, from outside), ``stalled`` (out of patience without having used
    its processor time) and ``unavailable`` (no worker starts, several times in a row) are not.
    """

    end: End
    value: Any = None
    phase: str = ""
    message: str = ""


class Workers:
    """A pool of ``count`` workers on ``module``; starts them when there is something to do."""

    def __init__(self, module: str, count: int, limits: WorkerLimits) -> None:
        self._jobs: Jobs = queue.SimpleQueue()
        self._workers = [_Worker(module, limits) for _ in range(count)]
        self._threads: list[threading.Thread] = []
        weakref.finalize(self, _end, self._jobs, self._workers)  # at the latest when the interpreter ends

    def submit(self, item: Any) -> "Future[Reply]":
        """Hand in an item, plain data; returns at once. The future's result is a reply, whatever happens."""
        if not self._threads:
            self._threads = [
                threading.Thread(target=_attend, args=(self._jobs, worker), daemon=True) for worker in self._workers
            ]
            for worker, thread in zip(self._workers, self._threads, strict=True):
                worker.open()
                thread.start()
        future: Future[Reply] = Future()
        self._jobs.put((json.dumps(item).encode() + b"\n", future))
        return future

    def pids(self) -> list[int]:
        """The processes that are running."""
        return [pid for worker in self._workers for pid in worker.pid()]

    def restart(self) -> None:
        """Replace every worker by a new one when it is next needed; an item in work is given to the new one."""
        for worker in self._workers:
            worker.renew()

    def close(self) -> None:
        """End all workers; items not yet done end as ``unavailable``. The pool can be used again."""
        _end(self._jobs, self._workers)
        for thread in self._threads:
            thread.join()
        self._threads = []


def _attend(jobs: Jobs, worker: "_Worker") -> None:
    """One worker's thread: jobs until there is a None."""
    while (job := jobs.get()) is not None:
        line, future = job
        try:
            reply = worker.ask(line)
        except OSError as error:  # no process or pipe to be had; who waits has to be told
            reply = Reply("unavailable", message=str(error))
        beat()
        future.set_result(reply)


def _end(jobs: Jobs, workers: Sequence["_Worker"]) -> None:
    while True:
        try:
            job = jobs.get_nowait()
        except queue.Empty:
            break
        if job is not None:
            job[1].set_result(Reply("unavailable", message=CLOSED))
    for worker in workers:
        jobs.put(None)
        worker.close()


class _Gone(Exception):
    """The worker's process has ended, or has been ended for being out of patience."""


class _Worker:
    """One process at a time, and the pipes to it."""

    def __init__(self, module: str, limits: WorkerLimits) -> None:
        self._module, self._limits = module, limits
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""
        self._broken, self._closed = "", False

    def ask(self, line: bytes) -> Reply:
        """The reply to one item; when a process died without reaching a limit, another is asked."""
        deaths = {True: 0, False: 0}  # after and before the item was begun
        while True:
            reply = self._attempt(line)
            deaths[bool(reply.phase)] += 1
            given_up = deaths[True] == BEGUN or deaths[False] == NOT_BEGUN
            if reply.end not in ("crashed", "killed") or self._closed or given_up:
                return reply

    def pid(self) -> list[int]:
        """The number of its process, if one is running."""
        process = self._process
        return [process.pid] if process is not None and process.poll() is None else []

    def open(self) -> None:
        """Be ready for items."""
        self._closed = False

    def renew(self) -> None:
        """End the process; the next item starts another."""
        self._broken = ""
        self._kill()

    def close(self) -> None:
        """End the process for good."""
        self._closed = True
        self._kill()

    def _attempt(self, line: bytes) -> Reply:
        phase = ""
        try:
            process = self._running()
            deadline = time.monotonic() + self._limits.patience
            self._write(process, line, deadline)
            while "phase" in (message := self._read(process, deadline)):
                phase = message["phase"]
            return Reply(message["end"], message.get("value"), phase, message.get("message", ""))
        except TimeoutError:
            self._kill()
            return Reply("stalled", phase=phase, message=f"no answer within {self._limits.patience:g} s by the clock")
        except _Gone as gone:
            return self._obituary(phase, str(gone))

    def _obituary(self, phase: str, message: str) -> Reply:
        if self._broken or self._closed:
            return Reply("unavailable", message=self._broken or CLOSED)
        code = self._process.wait() if self._process is not None else 0
        ends: dict[int, End] = {-signal.SIGPROF: "time_out", -signal.SIGKILL: "killed"}
        return Reply(ends.get(code, "crashed"), phase=phase, message=message)

    def _running(self) -> "subprocess.Popen[bytes]":
        """The process, started anew where there is none; raises _Gone when that fails several times in a row."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        for pause in (*PAUSES, None):
            if self._broken or self._closed:
                break
            process, failure = self._begin()
            if process is not None:
                return process
            if pause is None:
                self._broken = f"{self._module} does not start: {failure}"
            else:
                time.sleep(pause)
        raise _Gone

    def _begin(self) -> tuple["subprocess.Popen[bytes] | None", str]:
        """A process that is ready; or None, and why there is none."""
        self._hang_up()
        try:
            process = self._process = _start(self._module, self._limits)
            if self._closed:  # since the last look, so that nobody else would end it
                raise _Gone(CLOSED)
            message = self._read(process, time.monotonic() + STARTING)
        except TimeoutError:
            message = {"failed": f"not ready within {STARTING:g} s"}
        except (_Gone, OSError) as error:  # killed, or no process to be had
            message = {"failed": str(error)}
        if "failed" not in message:
            return process, ""
        self._kill()
        return None, message["failed"]

    def _write(self, process: "subprocess.Popen[bytes]", data: bytes, deadline: float) -> None:
        assert process.stdin is not None, "asked for at the start"
        while data:
            _, ready, _ = select.select([], [process.stdin], [], _left(deadline))
            if ready:
                try:
                    data = data[os.write(process.stdin.fileno(), data) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    raise _Gone(_ended(process)) from None

    def _read(self, process: "subprocess.Popen[bytes]", deadline: float) -> dict[str, Any]:
        """The next message; raises _Gone at the end of the process, TimeoutError at the deadline."""
        assert process.stdout is not None, "asked for at the start"
        while b"\n" not in self._heard:
            ready, _, _ = select.select([process.stdout], [], [], _left(deadline))
            chunk = os.read(process.stdout.fileno(), 2**16) if ready else b""
            if ready and not chunk:
                raise _Gone(_ended(process))
            self._heard += chunk
        line, _, self._heard = self._heard.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            process.kill()
            process.wait()

    def _hang_up(self) -> None:
        self._heard = b""
        for stream in () if self._process is None else (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _start(module: str, limits: WorkerLimits) -> "subprocess.Popen[bytes]":
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(limits.seconds), str(limits.memory_mb)],
        cwd=package,  # python -m looks there first: nothing of the user's working directory is in the way
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,  # Ctrl-C is for the parent
    )
    assert process.stdin is not None, "asked for above"
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _ended(process: "subprocess.Popen[bytes]") -> str:
    code = process.wait()
    return f"its process ended with {signal.Signals(-code).name if code < 0 else code}"
