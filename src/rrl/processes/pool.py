"""A pool of warm processes: jobs go in at once, and each worker's thread does them with a process of its own."""

import atexit
import os
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, Generic, TypeVar

from rrl.processes.machine import cpus_of_a_rank
from rrl.processes.warm_child import Answer, WarmChild
from rrl.records.pulse import beat

Result = TypeVar("Result")
Start = Callable[[], WarmChild[Answer]]
Jobs = queue.SimpleQueue[tuple[Callable[["Worker[Any]"], Any], Future[Any]] | None]


class Worker(Generic[Answer]):
    """A thread with its child. The thread lives as long as the child, which ends with its parent thread.

    ``broken``: why no child of it is ever ready, as a job has found; until a restart.
    """

    def __init__(self, start: Start[Answer], jobs: Jobs) -> None:
        self.child: WarmChild[Answer] | None = None
        self.broken = ""
        self._start, self._jobs, self._closing = start, jobs, False
        self.thread = threading.Thread(target=self._work, daemon=True, name="rrl-pool")
        self.thread.start()

    def ask(self, request: bytes) -> Answer:
        """What its child answers; one is started where there is none. OSError when the child is lost.

        Raises CancelledError when the pool was closed.
        """
        try:
            self.child = self.child or (None if self._closing else self._start())
            if self.child is None or self._closing:  # closed meanwhile, when there was no child to hang up
                raise CancelledError
            return self.child.ask(request)
        except Exception as error:  # of whatever kind: the rest of an answer must not reach the next request
            self._drop()
            if self._closing:
                raise CancelledError from error
            raise

    def restart(self) -> None:
        """From another thread: the request in work, or else the next one, finds the child lost."""
        self.broken = ""
        if (child := self.child) is not None:
            child.hang_up()

    def close(self) -> None:
        """From another thread: end after the jobs that wait, for which there is no answer any more."""
        self._closing = True
        self._jobs.put(None)
        self.restart()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, future = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(self))
                except Exception as error:  # whoever waits has to hear of it, whatever it is
                    future.set_exception(error)
                beat()
        self._drop()

    def _drop(self) -> None:
        child, self.child = self.child, None
        if child is not None:
            child.close()


class Pool(Generic[Answer]):
    """``count`` workers (None: one for each core of this process), started with the first job.

    ``start`` makes a child. ``lock`` guards what an owner makes only once; a fork of this process has a new one.
    """

    def __init__(self, start: Start[Answer], count: int | None) -> None:
        self._start, self._count = start, count
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self.lock = threading.Lock()
        self.workers: list[Worker[Answer]] = []
        self._jobs: Jobs = queue.SimpleQueue()
        self._stop = weakref.finalize(self, _close, self.workers)

    def submit(self, work: Callable[[Worker[Answer]], Result]) -> "Future[Result]":
        """Have a worker do a job, some time later. Raises RuntimeError when there can be no thread."""
        future: Future[Result] = Future()
        with self.lock:
            if not self.workers:
                self._open()
            self._jobs.put((work, future))
        return future

    def _open(self) -> None:
        try:
            for _ in range(self._count or cpus_of_a_rank()):
                self.workers.append(Worker(self._start, self._jobs))
        except RuntimeError:  # the threads that there are do the work
            if not self.workers:
                raise

    def restart(self) -> None:
        """Replace every child by a new one when it is next needed."""
        for worker in self.workers:
            worker.restart()

    def close(self) -> None:
        """End everything at once; jobs that are not done get a CancelledError. The pool can be used again."""
        with self.lock:
            workers, stop = self.workers, self._stop
            self._reset()
        stop()
        for worker in workers:
            worker.thread.join()

    def forget(self) -> None:
        """In a fork of this process, which has none of its threads: the children are not ours."""
        self._stop.detach()
        for worker in self.workers:
            if worker.child is not None:
                worker.child.forget()
        self._reset()


def _close(workers: Sequence[Worker[Any]]) -> None:
    for worker in workers:
        worker.close()


def _each(do: Callable[[Pool[Any]], None]) -> None:
    for pool in list(_all):
        do(pool)


_all: "weakref.WeakSet[Pool[Any]]" = weakref.WeakSet()
atexit.register(_each, Pool.close)
os.register_at_fork(after_in_child=partial(_each, Pool.forget))
