"""The progress of a stretch of work, and its text in one line."""

import time
from dataclasses import dataclass, field

from rrl.types import Metrics

SHOWN = {
    "training/global_step": "step", "budget/tokens_generated": "tokens", "critic/score/fresh/mean": "reward",
    "loss": "loss",
}  # fmt: skip
FORMS = {
    "step": "step {:.0f}", "tokens": "{:,.0f} tokens", "reward": "reward {:.3f}", "accuracy": "accuracy {:.3f}",
    "loss": "loss {:.3f}",
}  # fmt: skip
WORTH = ("step", "left", "reward", "accuracy", "loss", "tokens", "phase", "share", "name", "seconds")
"""What a narrow bar keeps, the most important first."""
LONGEST, SHORTEST = 40, 7
"""Characters of the drawn bar."""


@dataclass
class Stretch:
    """A stretch of work: its progress, its phase, their start times, and its latest numbers."""

    what: str
    begun: float = field(default_factory=lambda: time.monotonic())
    phase: str = ""
    entered: float = 0.0
    progress: float = 0.0
    numbers: dict[str, float] = field(default_factory=dict)
    _first: tuple[float, float] | None = None
    _last: float = 0.0

    def enter(self, phase: str) -> None:
        """A phase begins."""
        self.phase, self.entered = phase, time.monotonic()

    def advance(self, progress: float, metrics: Metrics) -> bool:
        """Store progress and numbers; returns whether an accuracy was measured."""
        self.progress, self._last = progress, time.monotonic()
        self._first = self._first or (self._last, progress)
        new = {name: metrics[key] for key, name in SHOWN.items() if key in metrics}
        accuracies = [value for key, value in metrics.items() if key.startswith("val-core/") and "/acc/" in key]
        self.numbers |= new | ({"accuracy": accuracies[-1]} if accuracies else {})  # the last is the sampled one if any
        return bool(accuracies)

    def left(self) -> float | None:
        """Estimated seconds to the end, from the speed since the first ``advance``; None without an estimate."""
        if self._first is None or self.progress <= self._first[1]:
            return None
        each = (self._last - self._first[0]) / (self.progress - self._first[1])
        return max(0.0, each * (1 - self.progress) - (time.monotonic() - self._last))


def formatted(numbers: dict[str, float]) -> list[str]:
    """The numbers with their units."""
    return [form.format(numbers[name]) for name, form in FORMS.items() if name in numbers]


def bar_text(name: str, stretch: Stretch, width: int) -> str:
    """A line of at most ``width`` characters; the least important parts are omitted first."""
    now, left = time.monotonic(), stretch.left()
    parts = {
        "name": name if stretch.what == "training" else f"{name} {stretch.what}",
        "share": f"{100 * stretch.progress:.0f}%",
        **{name: form.format(stretch.numbers[name]) for name, form in FORMS.items() if name in stretch.numbers},
        "phase": stretch.phase,
        "seconds": f"{now - stretch.entered:.0f} s" if stretch.phase else f"{now - stretch.begun:.0f} s",
        "left": "" if left is None else f"{_clock(left)} left",
    }
    if "tokens" in parts:
        parts["tokens"] = f"{_thousands(stretch.numbers['tokens'])} tokens"
    parts = {name: text for name, text in parts.items() if text}
    for least in reversed(WORTH):
        if len(" ".join(parts.values())) > width:
            parts.pop(least, None)
    spare = width - len(" ".join(parts.values())) - 1
    if spare >= SHORTEST and "share" in parts:
        parts["share"] += " " + _drawn(stretch.progress, min(spare, LONGEST))
    return " ".join(parts.values())[: max(0, width)]


def _thousands(value: float) -> str:
    for unit in ("", "k", "M"):
        if value < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}G"


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _drawn(share: float, width: int) -> str:
    full = int(share * (width - 2))
    return f"[{'#' * full}{'.' * (width - 2 - full)}]"
