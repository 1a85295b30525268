"""How a run is asked to stop: by Ctrl-C, by SIGTERM or SIGUSR1, by another process, by the end of who started it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TypeVar

from rrl.processes.environment import PARENT
from rrl.records.status import lives

STOP, NOW = "stop", "stop-now"
"""Files in the directory of a run or a sweep: what is begun is finished, and saved; or everything leaves at once."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
EVERY = 0.5
"""Seconds between looks for what was asked."""
Taken = TypeVar("Taken", bound="Signals")


class Interrupted(Exception):
    """The run was asked to stop, and what it goes on from is saved."""


class Signals:
    """Takes the signals of this process while its context lasts: gently at first, at once when Ctrl-C follows.

    ``on_first`` is called at the first one, ``on_second`` at each Ctrl-C after it; others after the first change
    nothing, for schedulers send them twice. Of ``more`` signals those are taken that the process does not ignore.
    """

    def __init__(
        self, on_first: Callable[[], None], on_second: Callable[[], None], more: Sequence[signal.Signals] = ()
    ) -> None:
        self.asked = self.at_once = False
        self._on_first, self._on_second = on_first, on_second
        taken = [*SIGNALS, *(number for number in more if signal.getsignal(number) is not signal.SIG_IGN)]
        self._before = {number: signal.signal(number, self._take) for number in taken}

    def __enter__(self: Taken) -> Taken:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self._on_first()
            self.asked = True
        elif number == signal.SIGINT:
            self.at_once = True
            self._on_second()


class StopRequest(Signals):
    """Takes the signals of a process that trains.

    Until ``gentle`` is set a signal ends the process where it is (KeyboardInterrupt). From then on it is noted in
    ``asked``, for the loop to finish its step; a second Ctrl-C leaves at once.
    """

    def __init__(self) -> None:
        self.gentle = False
        super().__init__(self._note, lambda: os._exit(130))

    def _note(self) -> None:
        if not self.gentle:
            raise KeyboardInterrupt
        if not has_parent():
            say_that_it_stops()


def say_that_it_stops() -> None:
    """For signal handlers: what they interrupt may be printing, and nobody may read standard error any longer."""
    with suppress(OSError):
        os.write(2, b"\nfinishing the step, then saving; Ctrl-C again leaves at once\n")


def ask_to_stop(folder: Path, *, now: bool = False) -> None:
    """Ask the processes that work in this directory, on whatever machine; they look twice a second."""
    (folder / (NOW if now else STOP)).touch()


def asked_to_stop(folder: Path) -> int:
    """0: nobody has asked; 1: for what is begun to be finished and saved; 2: for leaving at once."""
    return 2 if (folder / NOW).exists() else int((folder / STOP).exists())


def withdraw(folder: Path) -> None:
    """Take back what was asked of earlier processes."""
    for name in (STOP, NOW):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def obeying(folder: Path) -> Iterator[None]:
    """While it lasts, this process does what is asked in a run's directory, though its main thread may hang."""
    over = threading.Event()
    listener = threading.Thread(target=_obey, args=(folder, over), name="stop files", daemon=True)
    listener.start()
    try:
        yield
    finally:
        over.set()
        listener.join(6 * EVERY)


def _obey(folder: Path, over: threading.Event) -> None:
    """Look for requests: the first one comes as a signal, that to leave at once takes effect here."""
    told = False
    while not over.wait(EVERY):
        asked = asked_to_stop(folder)
        if asked == 2:
            os._exit(130)
        if asked and not told:
            told = True
            os.kill(os.getpid(), signal.SIGTERM)


def has_parent() -> bool:
    """Whether rrl-train has started this rank; else torchrun, srun or a user did."""
    return PARENT in os.environ


def leave_with_starter() -> None:
    """From now on leave at once when the process that started this one, or the one that PARENT names, is gone.

    A thread looks twice a second, so that a killed launcher leaves nothing behind that trains on.
    """
    named = int(os.environ.get(PARENT, "0"))
    threading.Thread(target=_watch, args=(os.getppid(), named), name="starter", daemon=True).start()


def _watch(starter: int, named: int) -> None:
    while os.getppid() == starter and (named == 0 or lives(named)):
        time.sleep(EVERY)
    os._exit(130)
