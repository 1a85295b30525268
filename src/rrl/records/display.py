"""What a person sees while a run goes on: step, tokens, reward, accuracy, phase and time left."""

import logging
import os
import threading
import time
from contextlib import suppress
from typing import Any, Protocol

from rrl.records.console import Console, on_terminal
from rrl.records.progress import Stretch, bar_text, told
from rrl.records.pulse import beats
from rrl.types import Metrics

log = logging.getLogger("rrl.records.progress")
"""For the run's log and for files; on a terminal there is the bar (see ``shell.quieten``)."""
EVERY = 30.0
ERASE = "\x1b[K"
"""Has a terminal forget what stands from the cursor to the end of the line."""
SELDOM = ("testing", "save_checkpoint")
"""Phases that do not come in every step."""


class Display(Protocol):
    """Is told how a run goes."""

    def begin(self, what: str) -> None:
        """A stretch of work begins (loading, warm start, training)."""

    def phase(self, name: str) -> None:
        """A phase begins."""

    def advance(self, progress: float, metrics: Metrics) -> None:
        """``progress`` in [0, 1] of the stretch, and the latest metrics."""

    def close(self) -> None:
        """The stretch is over."""


def display(name: str, position: int = 0, every: float = EVERY) -> Display:
    """Lines in the log, ``every`` so many seconds, and a bar where standard error is a terminal.

    ``position`` is the bar's line.
    """
    return Bar(name, position, every) if on_terminal() else Lines(name, every)


class Silent(Display):
    """Shows nothing: of several ranks only the first has a display."""

    def begin(self, what: str) -> None:
        """Nothing."""

    def phase(self, name: str) -> None:
        """Nothing."""

    def advance(self, progress: float, metrics: Metrics) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines(Display):
    """Lines in the log: of steps and of phases one every so many seconds each, and of evaluations all.

    A thread tells of a phase that lasts: how long so far, and how much was done since the last line.
    """

    def __init__(self, name: str, every: float) -> None:
        self._name, self._every = name, every
        self._stretch: Stretch | None = None
        self._told: dict[str, float] = {}
        self._work = (0, 0.0)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, what: str) -> None:
        """Say that it begins."""
        self._stretch, self._told = Stretch(what), {}
        self._say("begins")
        if self._thread is None:
            self._over.clear()
            self._thread = threading.Thread(target=self._watch, name="lines", daemon=True)
            self._thread.start()

    def phase(self, name: str) -> None:
        """A line when none was told for a while or, of a phase that seldom comes, none of this one."""
        if self._stretch is not None:
            self._stretch.enter(name)
            if self._due(name if name in SELDOM else "any"):
                self._say(f"{self._place()}{name}", name)

    def advance(self, progress: float, metrics: Metrics) -> None:
        """A line when none was told of a step for a while, of an evaluation, and of the end."""
        if self._stretch is None:
            return
        measured = self._stretch.advance(progress, metrics)
        if measured or progress >= 1 or self._due("step"):
            left = self._stretch.left()
            times = [f"{time.monotonic() - self._stretch.begun:.0f} s"]
            times += [] if left is None else [f"{left:.0f} s left"]
            self._say(", ".join([f"{100 * progress:.0f} %", *told(self._stretch.numbers), *times]), "step")

    def close(self) -> None:
        """Tell of nothing more."""
        self._over.set()
        self._thread, self._stretch = None, None

    def _say(self, text: str, *kinds: str) -> None:
        assert self._stretch is not None, "who calls has looked"
        now = time.monotonic()
        self._told |= dict.fromkeys(("any", *kinds), now)
        self._work = (beats(), time.process_time())
        log.info("%s: %s %s", self._name, self._stretch.what, text)

    def _due(self, kind: str, every: float | None = None) -> bool:
        """Whether a line of this kind is that long ago."""
        return time.monotonic() - self._told.get(kind, float("-inf")) >= (self._every if every is None else every)

    def _place(self) -> str:
        """The step in which a phase is: the one after the last that was told of."""
        assert self._stretch is not None, "who calls has looked"
        step = self._stretch.numbers.get("step")
        return "" if step is None else f"step {step + (self._stretch.phase not in SELDOM):.0f}: "

    def _watch(self) -> None:
        over = self._over
        while not over.wait(min(1.0, max(0.05, self._every))):
            if self._stretch is not None and self._every and self._due("any", 1.5 * self._every):
                self._say(self._lasts(self._stretch))

    def _lasts(self, stretch: Stretch) -> str:
        """How long the present phase lasts, and what was done since the last line: much, or nothing."""
        now, (work, spent) = time.monotonic(), self._work
        seconds = now - self._told["any"]
        done, busy = beats() - work, (time.process_time() - spent) / seconds
        since = stretch.entered or stretch.begun
        where = f"{self._place()}{stretch.phase}" if stretch.phase else "goes on"
        did = f"{done:,} pieces of work done" if done else "nothing done"
        return f"{where} for {now - since:.0f} s; {did} in the last {seconds:.0f} s, CPU {100 * busy:.0f} %"


class Bar(Lines):
    """The lines, for the log, and a bar on the terminal that is drawn again every second."""

    def __init__(self, name: str, position: int, every: float) -> None:
        super().__init__(name, every)
        self._position, self._width = position, 0
        self._bar: Any = None
        self._drawing = threading.RLock()  # the console draws too, from its thread

    def begin(self, what: str) -> None:
        """Start a new bar at zero."""
        from tqdm import tqdm

        super().begin(what)
        screen = _Screen.take(self)
        if self._bar is None:
            terminal = screen.console.terminal
            self._bar = tqdm(total=1.0, file=terminal, bar_format="{desc}", position=self._position)
        self.draw()

    def phase(self, name: str) -> None:
        """Show the phase's name."""
        super().phase(name)
        self.draw()

    def advance(self, progress: float, metrics: Metrics) -> None:
        """Move the bar, and show the latest step, tokens, reward and accuracy."""
        super().advance(progress, metrics)
        self.draw()

    def close(self) -> None:
        """Leave the bar as it stands."""
        with self._drawing:
            self.draw()
            bar, self._bar = self._bar, None
            if bar is not None:
                with suppress(OSError):
                    bar.close()
        if bar is not None:
            _Screen.leave(self)
        super().close()

    def draw(self) -> None:
        """Draw it as things are."""
        with self._drawing, suppress(OSError):  # where the terminal is gone, the run goes on
            self._draw()

    def _draw(self) -> None:
        bar, stretch = self._bar, self._stretch
        if bar is None or stretch is None:
            return
        width = (os.get_terminal_size(bar.fp.fileno()).columns or 80) - len("^C ")  # which a terminal puts behind it
        if width < self._width:
            bar.sp = bar.status_printer(bar.fp)  # which would write over all that was drawn when there was more room
        self._width = width
        bar.set_description_str(bar_text(self._name, stretch, width) + ERASE)


class _Screen:
    """The terminal's console, shared by all bars that are open."""

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

        with tqdm.get_lock():  # for the flush too: in the midst of another thread's it would change the order
            tqdm.write(ERASE + line, file=cls.console.terminal, nolock=True)
            cls.console.terminal.flush()

    @classmethod
    def _tick(cls) -> None:
        for bar in list(cls.bars):
            bar.draw()
