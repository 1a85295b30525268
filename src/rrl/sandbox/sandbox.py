"""The sandbox: runs jobs in a few warm servers, one for each worker."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from rrl.errors import DataError
from rrl.processes.pool import Pool, Worker
from rrl.ranges import at_least_one, check_ranges
from rrl.sandbox.inside.request import packed
from rrl.sandbox.isolation import CANARY, NO_MORE, Isolation, choose, described, reached
from rrl.sandbox.limits import Limits
from rrl.sandbox.outcome import destroyer, failure, run_of
from rrl.sandbox.runs import Job, ProgramRun
from rrl.sandbox.server import Answer, Server
from rrl.sandbox.start import Level

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class Sandbox:
    """Runs untrusted programs. Nothing is started before the first job.

    ``workers`` null: one for each core that this process may use, divided among the processes that a launcher started
    on this machine. ``isolation`` auto: the best that works here. Threads may share a sandbox.
    """

    limits: Limits
    workers: int | None
    isolation: Isolation

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("workers"))
        self._chosen: tuple[Level, Mapping[str, str]] | None = None
        self._pool = Pool(lambda: Server(self._choose()[0], self.limits), self.workers)

    def start(self) -> None:
        """Choose the isolation now, by running a program; DataError if none works."""
        self._choose()

    def submit(self, job: Job) -> "list[Future[ProgramRun]]":
        """A future run for each input; DataError if the requested isolation does not work."""
        self._choose()
        with _as_data_errors():
            return [self._pool.submit(partial(_run, request, self.limits, job)) for request in _requests(job)]

    def submit_in_turn(self, job: Job, good: Callable[[int, ProgramRun], bool]) -> "Future[list[ProgramRun]]":
        """Future runs of the inputs one after another, up to the first, by number from 0, that is not ``good``.

        ``good`` is called here, outside of the sandbox, on a thread of its own. DataError as of ``submit``.
        """
        self._choose()

        def run(requests: Sequence[bytes], worker: Worker[Answer]) -> list[ProgramRun]:
            runs = list[ProgramRun]()
            for number, request in enumerate(requests):
                runs.append(_run(request, self.limits, job, worker))
                if not good(number, runs[-1]):
                    break
            return runs

        with _as_data_errors():
            return self._pool.submit(partial(run, _requests(job)))

    def _choose(self) -> tuple[Level, Mapping[str, str]]:
        with self._pool.lock:
            if self._chosen is None:
                self._chosen = choose(self.limits, self.isolation)
                log.info("sandbox: isolation %s", self._chosen[0])
            return self._chosen

    def describe(self) -> str:
        """What programs can and cannot reach, by a trial now."""
        level, reasons = self._choose()
        return described(level, reasons, reached(self.limits, level))

    def close(self) -> None:
        """End everything at once and cancel unfinished jobs. The sandbox can be used again."""
        self._pool.close()


def _requests(job: Job) -> list[bytes]:
    return [packed(job.source, job.function, given) for given in job.inputs]


@contextmanager
def _as_data_errors() -> Iterator[None]:
    """Where there can be no more threads."""
    try:
        yield
    except RuntimeError as error:
        raise DataError(f"sandbox: {error}; {NO_MORE}") from error


def _run(request: bytes, limits: Limits, job: Job, worker: Worker[Answer]) -> ProgramRun:
    why = ""
    for _ in range(2):
        try:
            return run_of(*worker.ask(request), limits, prints=job.function is None)
        except OSError as error:
            why = str(error)
    try:  # two failures: a known-good program shows whether the program or the sandbox is at fault
        sings = run_of(*worker.ask(CANARY), limits, prints=False).value == 1
    except OSError as error:
        why, sings = str(error), False
    log.warning("the sandbox failed twice on a program: %s", why)
    return destroyer() if sings else failure(why)
