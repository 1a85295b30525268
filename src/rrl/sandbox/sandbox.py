"""The sandbox: jobs go in at once, and their runs come out of a few warm servers."""

import os
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from rrl.ranges import at_least_one
from rrl.sandbox.judge import failure, run_of
from rrl.sandbox.limits import Limits
from rrl.sandbox.runs import Job, Run
from rrl.sandbox.server import Server, ServerLost

Isolation = Literal["auto", "bubblewrap", "namespaces", "rlimits"]


class _Pending:
    """The runs of one job as they come in."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.future: Future[list[Run]] = Future()
        self._runs: list[Run | None] = [None] * len(job.inputs)
        self._left = len(job.inputs)
        self._lock = threading.Lock()

    def put(self, index: int, run: Run) -> None:
        self._runs[index] = run
        with self._lock:
            self._left -= 1
            done = self._left == 0
        if done:
            self.future.set_result([run for run in self._runs if run is not None])


@dataclass(kw_only=True)
class Sandbox:
    """Runs programs that nobody has read. ``workers`` null: one for each core that this process may use.

    Nothing is started before the first job.
    """

    limits: Limits
    workers: int | None
    isolation: Isolation
    _queue: "queue.SimpleQueue[tuple[_Pending, int] | None]" = field(init=False, repr=False)
    _threads: list[threading.Thread] = field(init=False, repr=False)
    _lock: threading.Lock = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.workers is not None:
            at_least_one(self, "workers")
        self._queue, self._threads, self._lock = queue.SimpleQueue(), [], threading.Lock()

    def submit(self, job: Job) -> "Future[list[Run]]":
        """One run for each input, in order, some time later."""
        pending = _Pending(job)
        if not job.inputs:
            pending.future.set_result([])
            return pending.future
        self._start()
        for index in range(len(job.inputs)):
            self._queue.put((pending, index))
        return pending.future

    def _start(self) -> None:
        with self._lock:
            if not self._threads:
                count = self.workers or len(os.sched_getaffinity(0))
                self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
                for thread in self._threads:
                    thread.start()

    def _work(self) -> None:
        server: Server | None = None
        while (task := self._queue.get()) is not None:
            pending, index = task
            server, run = self._run(server, pending.job, index)
            pending.put(index, run)
        if server is not None:
            server.close()

    def _run(self, server: Server | None, job: Job, index: int) -> tuple[Server | None, Run]:
        request: dict[str, Any] = {"source": job.source, "function": job.function, "input": job.inputs[index]}
        why = ""
        for _ in range(2):
            try:
                server = server or Server(self.limits)
                return server, run_of(*server.ask(request), self.limits, prints=job.function is None)
            except (ServerLost, OSError) as error:
                why = str(error)
                if server is not None:
                    server.close()
                server = None
        return None, failure(why)

    def describe(self) -> str:
        """What is isolated and what is not."""
        return "rlimits: limits on time, memory, processes, files and output; not isolated: files, network, processes"

    def close(self) -> None:
        """End all servers; the sandbox can be used again."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()
