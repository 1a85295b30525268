"""Requests to stop a run: Ctrl-C, signals, files in its directory, the end of the process that started it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from rrl.processes.environment import PARENT
from rrl.records.status import lives

STOP, NOW = "stop", "stop-now"
"""Files in the directory of a run or a sweep: finish the present work and save it; or exit at once."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # the last one is submitit's
EVERY = 0.5
"""Seconds between checks for requests."""
AGAIN = 0.05
"""Seconds until a Ctrl-C that could not be raised is raised again."""
Taken = TypeVar("Taken", bound="Signals")


class Interrupted(Exception):
    """The run stopped on request, and has saved what a resume needs."""


class Signals:
    """Handles the signals of this process within its context.

    Calls ``on_first`` at the first signal and ``on_second`` at each later Ctrl-C; other later signals have no effect,
    because schedulers send them twice. Of ``more`` signals, those that the process ignores stay ignored.
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
    """Handles the signals of a process that trains.

    A signal raises KeyboardInterrupt until ``gentle`` is set. After that it sets ``asked``, so that the loop finishes
    its step; a second Ctrl-C exits at once.
    """

    def __init__(self) -> None:
        self.gentle = False
        super().__init__(self._note, lambda: os._exit(130))

    def _note(self) -> None:
        if not self.gentle:
            raise KeyboardInterrupt
        if not has_parent():
            print_stopping()


@contextmanager
def heeding_interrupts() -> Iterator[Callable[[], bool]]:
    """A context in which no Ctrl-C or SIGTERM is lost, for commands without signals of their own; yields whether there
    was one.

    Libraries swallow a KeyboardInterrupt while they are imported, or abort: there the process exits at once. Elsewhere
    it is raised, and again where Python had to ignore it, as in a finalizer. A later SIGTERM has no effect, because
    schedulers send it twice. Where Ctrl-C is ignored, as in the background of a script, it stays so.
    """
    asked = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGTERM:
            return
        asked = True
        if _importing(frame):
            with suppress(OSError):
                os.write(2, b"interrupted\n")
            os._exit(130)
        raise KeyboardInterrupt

    def unraisable(ignored: Any) -> None:
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            threading.Timer(AGAIN, signal.pthread_kill, (main, signal.SIGINT)).start()
        else:
            reported(ignored)

    main = threading.main_thread().ident
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    here = threading.current_thread() is threading.main_thread()
    ours = {number: usual for number, usual in defaults.items() if here and signal.getsignal(number) is usual}
    reported = sys.unraisablehook
    for number in ours:
        signal.signal(number, interrupt)
    sys.unraisablehook = unraisable if ours else reported
    try:
        yield lambda: asked
    finally:
        for number, usual in ours.items():
            signal.signal(number, usual)
        sys.unraisablehook = reported


def _importing(frame: FrameType | None) -> bool:
    """Whether this frame, or one that called it, belongs to Python's import."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def print_stopping() -> None:
    """For signal handlers, which may interrupt a ``print``; standard error may be closed."""
    with suppress(OSError):
        os.write(2, b"\nfinishing the step, then saving; Ctrl-C again leaves at once\n")


def request_stop(folder: Path, *, now: bool = False) -> None:
    """Request a stop of the processes, on any machine, that work in this directory; they check twice a second."""
    (folder / (NOW if now else STOP)).touch()


def stop_requested(folder: Path) -> int:
    """0: no request; 1: finish the present work and save it; 2: exit at once."""
    return 2 if (folder / NOW).exists() else int((folder / STOP).exists())


def remove_requests(folder: Path) -> None:
    """Remove the requests to earlier processes."""
    for name in (STOP, NOW):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def obeying(folder: Path) -> Iterator[None]:
    """A context in which a thread obeys requests in a run's directory, even while the main thread hangs."""
    over = threading.Event()
    listener = threading.Thread(target=_obey, args=(folder, over), name="stop files", daemon=True)
    listener.start()
    try:
        yield
    finally:
        over.set()
        listener.join(6 * EVERY)


def _obey(folder: Path, over: threading.Event) -> None:
    """Check for requests: send the first one as a signal, exit here at a request to exit at once."""
    signalled = False
    while not over.wait(EVERY):
        requested = stop_requested(folder)
        if requested == 2:
            os._exit(130)
        if requested and not signalled:
            signalled = True
            os.kill(os.getpid(), signal.SIGTERM)


def has_parent() -> bool:
    """Whether rrl-train started this rank, and not torchrun, srun or a user."""
    return PARENT in os.environ


def leave_with_starter() -> None:
    """Exit as soon as the process that started this one, or the one that PARENT names, has ended.

    A thread checks twice a second, so that no rank outlives a killed launcher.
    """
    named = int(os.environ.get(PARENT, "0"))
    threading.Thread(target=_leave_after, args=(os.getppid(), named), name="starter", daemon=True).start()


def _leave_after(starter: int, named: int) -> None:
    while os.getppid() == starter and (named == 0 or lives(named)):
        time.sleep(EVERY)
    os._exit(130)
