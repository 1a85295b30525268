"""What a person sees while a run goes on: a bar with phase, reward and time left."""

from typing import Any, Protocol

from rrl.types import Metrics


class Display(Protocol):
    """Is told how a run goes."""

    def begin(self, what: str) -> None:
        """A stretch of work begins (warm start, training)."""

    def phase(self, name: str) -> None:
        """A phase begins."""

    def advance(self, progress: float, metrics: Metrics) -> None:
        """``progress`` in [0, 1] of the stretch, and the latest metrics."""

    def close(self) -> None:
        """The run is over."""


class Bar(Display):
    """A progress bar on standard error at line ``position``; silent when that is not a terminal."""

    def __init__(self, name: str, position: int = 0) -> None:
        self._name, self._position = name, position
        self._bar: Any = None
        self._shown = {"phase": "", "reward": ""}

    def begin(self, what: str) -> None:
        """Start a new bar at zero."""
        from tqdm import tqdm

        self.close()
        layout = "{desc:<22}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self._bar = tqdm(
            total=1.0, desc=f"{self._name} {what}", position=self._position, bar_format=layout, disable=None
        )

    def phase(self, name: str) -> None:
        """Show the phase's name."""
        self._shown["phase"] = name
        self._refresh()

    def advance(self, progress: float, metrics: Metrics) -> None:
        """Move the bar and show the mean reward of the last fresh rollouts, or the loss."""
        for name, shown in (("critic/score/fresh/mean", "reward"), ("loss", "loss")):
            if name in metrics:
                self._shown[shown] = f"{metrics[name]:.3f}"
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
            self._bar.set_postfix({name: text for name, text in self._shown.items() if text}, refresh=True)
