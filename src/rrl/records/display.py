"""Progress of a run on the terminal and in the log: step, tokens, reward, accuracy, phase and time left."""

import logging
import os
import threading
import time
from contextlib import suppress
from typing import Any

from rrl.records.console import Console, on_terminal
from rrl.records.progress import Stretch, bar_text, formatted
from rrl.records.pulse import beats
from rrl.types import Metrics

log = logging.getLogger("rrl.records.progress")
"""Written to the run's log and to files; a terminal shows the bar instead (see ``logs.py``)."""
EVERY = 30.0
ERASE = "\x1b[K"
"""Erases from the cursor to the end of the line."""
SELDOM = ("testing", "save_checkpoint")
"""Phases that are not part of every step."""


class Display:
    """Shows the progress of a run; this base class shows nothing."""

    def begin(self, what: str) -> None:
        """Begin a stretch of work (loading, warm start, training)."""

    def phase(self, name: str) -> None:
        """Begin a phase."""

    def advance(self, progress: float, metrics: Metrics) -> None:
        """Show the ``progress`` of the stretch, in [0, 1], and the latest metrics."""

    def close(self) -> None:
        """End the stretch."""


def display(name: str, position: int = 0, every: float = EVERY) -> Display:
    """A line in the log ``every`` so many seconds and, on a terminal, a bar in line ``position``."""
    return Bar(name, position, every) if on_terminal() else Lines(name, every)


class Lines(Display):
    """Lines in the log: one of a step and one of a phase every so many seconds, and one of every evaluation.

    A thread reports a phase that lasts: its duration, and the work done since the last line.
    """

    def __init__(self, name: str, every: float) -> None:
        self._name, self._every = name, every
        self._stretch: Stretch | None = None
        self._logged: dict[str, float] = {}
        self._work = (0, 0.0)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, what: str) -> None:
        self._stretch, self._logged = Stretch(what), {}
        self._log("begins")
        if self._thread is None:
            self._over.clear()
            self._thread = threading.Thread(target=self._watch, name="lines", daemon=True)
            self._thread.start()

    def phase(self, name: str) -> None:
        """Log a line when one is due; a phase of SELDOM is due by itself."""
        if self._stretch is not None:
            self._stretch.enter(name)
            if self._due(name if name in SELDOM else "any"):
                self._log(f"{self._place()}{name}", name)

    def advance(self, progress: float, metrics: Metrics) -> None:
        """Log a line when one of a step is due, for an evaluation, and at the end."""
        if self._stretch is None:
            return
        measured = self._stretch.advance(progress, metrics)
        if measured or progress >= 1 or self._due("step"):
            left = self._stretch.left()
            times = [f"{time.monotonic() - self._stretch.begun:.0f} s"]
            times += [] if left is None else [f"{left:.0f} s left"]
            self._log(", ".join([f"{100 * progress:.0f} %", *formatted(self._stretch.numbers), *times]), "step")

    def close(self) -> None:
        self._over.set()
        self._thread, self._stretch = None, None

    def _log(self, text: str, *kinds: str) -> None:
        assert self._stretch is not None, "the caller checks"
        self._logged |= dict.fromkeys(("any", *kinds), time.monotonic())
        self._work = (beats(), time.process_time())
        log.info("%s: %s %s", self._name, self._stretch.what, text)

    def _due(self, kind: str, times: float = 1.0) -> bool:
        """Whether the last line of this kind is so many intervals old."""
        return time.monotonic() - self._logged.get(kind, float("-inf")) >= times * self._every

    def _place(self) -> str:
        """The step of the present phase: the one after the last reported step."""
        assert self._stretch is not None, "the caller checks"
        step = self._stretch.numbers.get("step")
        return "" if step is None else f"step {step + (self._stretch.phase not in SELDOM):.0f}: "

    def _watch(self) -> None:
        over = self._over
        while not over.wait(min(1.0, max(0.05, self._every))):
            if self._stretch is not None and self._every and self._due("any", 1.5):
                self._log(self._lasts(self._stretch))

    def _lasts(self, stretch: Stretch) -> str:
        """The duration of the present phase, and the work done since the last line."""
        now, (work, spent) = time.monotonic(), self._work
        seconds = now - self._logged["any"]
        done, busy = beats() - work, (time.process_time() - spent) / seconds
        since = stretch.entered or stretch.begun
        where = f"{self._place()}{stretch.phase}" if stretch.phase else "continues"
        did = f"{done:,} pieces of work done" if done else "nothing done"
        return f"{where} for {now - since:.0f} s; {did} in the last {seconds:.0f} s, CPU {100 * busy:.0f} %"


class Bar(Lines):
    """The lines for the log, and a bar on the terminal that is redrawn every second."""

    def __init__(self, name: str, position: int, every: float) -> None:
        super().__init__(name, every)
        self._position, self._width = position, 0
        self._bar: Any = None
        self._drawing = threading.RLock()  # the console draws too, from its thread

    def begin(self, what: str) -> None:
        from tqdm import tqdm

        super().begin(what)
        screen = _Screen.take(self)
        if self._bar is None:
            terminal = screen.console.terminal
            self._bar = tqdm(total=1.0, file=terminal, bar_format="{desc}", position=self._position)
        self.draw()

    def phase(self, name: str) -> None:
        super().phase(name)
        self.draw()

    def advance(self, progress: float, metrics: Metrics) -> None:
        """Move the bar, and show the latest step, tokens, reward and accuracy."""
        super().advance(progress, metrics)
        self.draw()

    def close(self) -> None:
        with self._drawing:
            self.draw()
            bar, self._bar = self._bar, None
            if bar is not None:
                with suppress(OSError), bar.get_lock():  # no line comes between its last drawing and its end
                    bar.close()
        if bar is not None:
            _Screen.leave(self)
        super().close()

    def draw(self) -> None:
        with self._drawing, suppress(OSError):  # where the terminal is gone, the run continues
            self._draw()

    def _draw(self) -> None:
        bar, stretch = self._bar, self._stretch
        if bar is None or stretch is None:
            return
        width = (os.get_terminal_size(bar.fp.fileno()).columns or 80) - len("^C ")  # a terminal appends that
        if width < self._width:
            bar.sp = bar.status_printer(bar.fp)  # the old one would pad to the width of earlier drawings
        self._width = width
        bar.set_description_str(bar_text(self._name, stretch, width) + ERASE)


class _Screen:
    """The terminal's console, shared by all open bars."""

    console: Console
    bars: list[Bar] = []  # noqa: RUF012

    @classmethod
    def take(cls, bar: Bar) -> type["_Screen"]:
        if not cls.bars:
            cls.console = Console(cls._show, cls._tick)
            cls.console.follow()
        if bar not in cls.bars:
            cls.bars.append(bar)
        return cls

    @classmethod
    def leave(cls, bar: Bar) -> None:
        cls.bars.remove(bar)
        if not cls.bars:
            cls.console.close()

    @classmethod
    def _show(cls, line: str) -> None:
        from tqdm import tqdm

        with tqdm.get_lock():  # for the flush too: another thread's output in between would change the order
            tqdm.write(ERASE + line, file=cls.console.terminal, nolock=True)
            cls.console.terminal.flush()

    @classmethod
    def _tick(cls) -> None:
        for bar in list(cls.bars):
            bar.draw()
