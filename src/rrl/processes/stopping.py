"""How a run is asked to stop: by Ctrl-C, by SIGTERM or SIGUSR1, by another process, by the end of who started it."""

import os
import signal
import threading
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import FrameType

from rrl.processes.environment import PARENT
from rrl.records.status import lives

STOP, NOW = "stop", "stop-now"
"""Files in a run's directory: its processes finish the step, save and leave; or leave at once."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupted(Exception):
    """The run was asked to stop, and what it goes on from is saved."""


class StopRequest(AbstractContextManager["StopRequest"]):
    """Takes the signals of this process while its context lasts.

    Until ``gentle`` is set a signal ends the process where it is (KeyboardInterrupt). From then on it is noted in
    ``asked``, for the loop to finish its step; a second Ctrl-C leaves at once.
    """

    def __init__(self) -> None:
        self.asked = self.gentle = False
        self._before = {number: signal.signal(number, self._take) for number in SIGNALS}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if not self.gentle:
            raise KeyboardInterrupt
        if self.asked and number == signal.SIGINT:
            os._exit(130)
        if not self.asked and not has_parent():
            say_that_it_stops()
        self.asked = True


def say_that_it_stops() -> None:
    """For signal handlers: what they interrupt may be printing, and nobody may read standard error any longer."""
    with suppress(OSError):
        os.write(2, b"\nfinishing the step, then saving; Ctrl-C again leaves at once\n")


def ask_to_stop(folder: Path, *, now: bool = False) -> None:
    """Ask the processes that train in this directory, on whatever machine; they look twice a second."""
    (folder / (NOW if now else STOP)).touch()


def withdraw(folder: Path) -> None:
    """Take back what was asked of earlier processes."""
    for name in (STOP, NOW):
        (folder / name).unlink(missing_ok=True)


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
        time.sleep(0.5)
    os._exit(130)
