"""The sandbox: jobs go in at once, and their runs come out of a few warm servers, one for each worker."""

import atexit
import contextlib
import logging
import os
import queue
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass

from rrl.errors import DataError
from rrl.processes.machine import cpus_of_a_rank
from rrl.ranges import at_least_one, check_ranges
from rrl.records.pulse import beat
from rrl.sandbox.inside.request import packed
from rrl.sandbox.isolation import CANARY, NO_MORE, Isolation, choose, described, reached
from rrl.sandbox.limits import Limits
from rrl.sandbox.outcome import destroyer, failure, run_of
from rrl.sandbox.runs import Job, ProgramRun
from rrl.sandbox.server import Server, ServerLost
from rrl.sandbox.start import Level

log = logging.getLogger(__name__)


class _Pending:
    """The runs of one job as they come in."""

    def __init__(self, job: Job) -> None:
        self.prints = job.function is None
        self.future: Future[list[ProgramRun]] = Future()
        self._runs: dict[int, ProgramRun] = {}
        self._count = len(job.inputs)
        self._lock = threading.Lock()

    def put(self, index: int, run: ProgramRun) -> None:
        with self._lock:
            self._runs[index] = run
            done = len(self._runs) == self._count
        if done:
            with contextlib.suppress(InvalidStateError):  # cancelled
                self.future.set_result([self._runs[place] for place in range(self._count)])

    def fail(self, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass
class _Task:
    pending: _Pending
    index: int
    request: bytes


Tasks = queue.SimpleQueue[_Task | None]


class _Worker:
    """A thread with its server. The thread lives as long as the server, which ends with its parent thread."""

    def __init__(self, level: Level, limits: Limits, tasks: Tasks) -> None:
        self._level, self._limits, self._tasks = level, limits, tasks
        self.server: Server | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="rrl-sandbox")
        self._thread.start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if task.pending.future.cancelled():
                continue
            try:
                task.pending.put(task.index, self._run(task))
            except Exception as error:  # whoever waits for the job must hear of it, whatever it is
                task.pending.fail(error)
            beat()
        self._drop()

    def _run(self, task: _Task) -> ProgramRun:
        why = ""
        for _ in range(2):
            try:
                return run_of(*self._ask(task.request), self._limits, prints=task.pending.prints)
            except ServerLost as error:
                why = str(error)
                if self._closing:
                    raise CancelledError from error
        try:  # twice lost: is it the program or the sandbox? nobody may avoid punishment by breaking things
            sings = run_of(*self._ask(CANARY), self._limits, prints=False).value == 1
        except ServerLost as error:
            why, sings = str(error), False
        log.warning("the sandbox failed twice on a program: %s", why)
        return destroyer() if sings else failure(why)

    def _ask(self, request: bytes) -> tuple[dict[str, object], bytes, bytes]:
        try:
            self.server = self.server or Server(self._level, self._limits)
            if self._closing:  # told while there was no server that could have been told
                raise CancelledError
            return self.server.ask(request)
        except ServerLost:
            self._drop()
            raise

    def _drop(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            server.close()

    def hang_up(self) -> None:
        """From another thread: stop at once."""
        self._closing = True
        if (server := self.server) is not None:
            server.hang_up()

    def join(self) -> None:
        self._thread.join()


@dataclass(kw_only=True, eq=False)
class Sandbox:
    """Runs programs that nobody has read. Nothing is started before the first job.

    ``workers`` null: one for each core that this process may use, shared out among the processes of this machine where
    a launcher tells how many there are. ``isolation`` auto: the best that works here. Threads may share a sandbox.
    """

    limits: Limits
    workers: int | None
    isolation: Isolation

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("workers"))
        self._chosen: tuple[Level, Mapping[str, str]] | None = None
        self._lock = threading.Lock()
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._tasks: Tasks = queue.SimpleQueue()
        self._workers: list[_Worker] = []

    def start(self) -> None:
        """Find what works here, by running a program, before there is one to judge; DataError if nothing does."""
        with self._lock:
            self._choose()

    def submit(self, job: Job) -> "Future[list[ProgramRun]]":
        """One run for each input, in order, some time later; DataError if the isolation asked for does not work."""
        pending = _Pending(job)
        requests = [packed(job.source, job.function, given) for given in job.inputs]
        with self._lock:
            self._start()
            for index, request in enumerate(requests):
                self._tasks.put(_Task(pending, index, request))
        if not requests:
            pending.future.set_result([])
        return pending.future

    def _start(self) -> None:
        if not self._workers:
            level = self._choose()[0]
            try:
                for _ in range(self.workers or cpus_of_a_rank()):
                    self._workers.append(_Worker(level, self.limits, self._tasks))
            except RuntimeError as error:  # the threads that there are do the work
                if not self._workers:
                    raise DataError(f"sandbox: {error}; {NO_MORE}") from error

    def _choose(self) -> tuple[Level, Mapping[str, str]]:
        if self._chosen is None:
            self._chosen = choose(self.limits, self.isolation)
            log.info("sandbox: isolation %s", self._chosen[0])
        return self._chosen

    def describe(self) -> str:
        """What is kept from programs and what is not, as a trial finds it now."""
        with self._lock:
            level, reasons = self._choose()
        return described(level, reasons, reached(self.limits, level))

    def close(self) -> None:
        """End everything at once; jobs that are not done are cancelled. The sandbox can be used again."""
        with self._lock:
            workers, tasks = self._workers, self._tasks
            self._reset()
        with contextlib.suppress(queue.Empty):
            while True:
                if (task := tasks.get_nowait()) is not None:
                    task.pending.future.cancel()
        for worker in workers:
            tasks.put(None)
            worker.hang_up()
        for worker in workers:
            worker.join()

    def forget(self) -> None:
        """In a fork of this process, which has none of its threads: the servers are not ours."""
        for worker in self._workers:
            if worker.server is not None:
                worker.server.forget()
        self._lock = threading.Lock()  # of ours, another thread may hold it in the parent
        self._reset()


_all: "weakref.WeakSet[Sandbox]" = weakref.WeakSet()


def _close_all() -> None:
    for sandbox in list(_all):
        sandbox.close()


def _forget_all() -> None:
    for sandbox in list(_all):
        sandbox.forget()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_all)
