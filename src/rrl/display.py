"""What a person sees while a run goes on: phase, reward and time left."""

import logging
import sys
import time
from typing import Any, Protocol

from rrl.types import Metrics

log = logging.getLogger(__name__)
SHOWN = {"critic/score/fresh/mean": "reward", "loss": "loss"}


class Display(Protocol):
    """Is told how a run goes."""

    def begin(self, what: str) -> None:
        """A stretch of work begins (warm start, training)."""

    def phase(self, name: str) -> None:
        """A phase begins."""

    def advance(self, progress: float, metrics: Metrics) -> None:
        """``progress`` in [0, 1] of the stretch, and the latest metrics."""

    def close(self) -> None:
        """The stretch is over."""


def display(name: str, position: int = 0) -> Display:
    """A bar where standard error is a terminal, a line for every tenth elsewhere; ``position`` is the bar's line."""
    return Bar(name, position) if sys.stderr.isatty() else Lines(name)


class Bar(Display):
    """A progress bar on standard error."""

    def __init__(self, name: str, position: int) -> None:
        self._name, self._position = name, position
        self._bar: Any = None
        self._shown = {"phase": ""}

    def begin(self, what: str) -> None:
        """Start a new bar at zero."""
        from tqdm import tqdm

        self.close()
        layout = "{desc:<18}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self._bar = tqdm(total=1.0, desc=f"{self._name} {what}", position=self._position, bar_format=layout)
        self._shown = {"phase": ""}

    def phase(self, name: str) -> None:
        """Show the phase's name."""
        self._shown["phase"] = f"{name:<13}"
        self._refresh()

    def advance(self, progress: float, metrics: Metrics) -> None:
        """Move the bar and show the mean reward of the last fresh rollouts, or the loss."""
        self._shown |= {SHOWN[name]: f"{value:.3f}" for name, value in metrics.items() if name in SHOWN}
        if self._bar is not None:
            self._bar.update(progress - self._bar.n)
        self._refresh()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _refresh(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix({name: text for name, text in self._shown.items() if text.strip()})


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
    """A line in the log for every tenth of a stretch."""

    def __init__(self, name: str) -> None:
        self._name = name

    def begin(self, what: str) -> None:
        """Say that it begins."""
        self._what, self._tenths, self._begun = what, 0, time.monotonic()
        log.info("%s: %s begins", self._name, what)

    def phase(self, name: str) -> None:
        """Nothing."""

    def advance(self, progress: float, metrics: Metrics) -> None:
        """A line when a tenth is full: share done, reward or loss, seconds so far and to come."""
        if int(progress * 10) <= self._tenths:
            return
        self._tenths = int(progress * 10)
        spent = time.monotonic() - self._begun
        shown = "".join(f" {SHOWN[name]} {value:.3f}," for name, value in metrics.items() if name in SHOWN)
        left = spent / progress - spent
        log.info("%s: %s %d %%,%s %.0f s, %.0f s left", self._name, self._what, progress * 100, shown, spent, left)

    def close(self) -> None:
        """Nothing."""
