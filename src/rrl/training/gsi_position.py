"""The position of guided self-improvement: its iteration, the phase, and the remaining work of the phase."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from rrl.interfaces import StateDict

Phase = Literal["sample", "guide", "tune"]
SHARES: dict[Phase, tuple[float, float]] = {"sample": (0.0, 0.5), "guide": (0.5, 0.3), "tune": (0.8, 0.2)}
"""The share of an iteration that counts as done when a phase begins, and the share of the phase."""


@dataclass(kw_only=True)
class Position:
    """An iteration has three phases: ``sample``, ``guide`` (once for each guided attempt, ``round``) and ``tune``.

    ``drawn`` are the iteration's problems, of which the first ``tried`` have responses. ``queue`` holds the remaining
    pieces of the present phase, of ``pieces`` in all, a step each: problems to write on, or mini-batches of answers.
    """

    iteration: int = 0
    phase: Phase = "tune"
    round: int = 0
    drawn: list[int] = field(default_factory=list)
    tried: int = 0
    queue: list[Any] = field(default_factory=list)
    pieces: int = 0

    @classmethod
    def read(cls, state: StateDict) -> "Position":
        """The position from a saved state, which may have other keys."""
        return cls(**{each.name: deepcopy(state[each.name]) for each in fields(cls)})

    @property
    def tuned(self) -> bool:
        """Whether a fine-tuning has just ended."""
        return self.phase == "tune" and not self.queue

    @property
    def left(self) -> float:
        """The share of the phase that remains."""
        return len(self.queue) / max(1, self.pieces)

    @property
    def done(self) -> float:
        """The number of iterations done, with fractions."""
        begin, share = SHARES[self.phase]
        return self.iteration - 1 + (begin + share * (1 - self.left))

    def fill(self, phase: Phase, items: Sequence[Any], size: int) -> None:
        """Begin a phase, with ``size`` of the items in a piece."""
        self.phase = phase
        self.queue = [list(items[begin : begin + size]) for begin in range(0, len(items), size)]
        self.pieces = len(self.queue)
