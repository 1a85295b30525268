"""Go back to where going on has been seen to succeed, the later the better; needs no critic."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy

from rrl.interfaces import Selection, StateDict
from rrl.ranges import at_least_one, check_ranges, not_negative
from rrl.types import TokenScores

PASSES = 20
"""Newton's steps of a fit; it moves no more after some six."""


@dataclass(kw_only=True)
class Pivot(Selection):
    """Cuts at relative position u = t / T with a probability proportional to P(success | u) u^gamma.

    P = sigmoid(a + b u) is a logistic regression on the last ``outcomes`` rollouts that went on from a cut, fitted anew
    with every step; a and b have standard normal priors, so that it begins at one half. DEEP-GRPO (arXiv 2602.14169),
    where several rollouts go on from each cut and one success among them counts.
    """

    gamma: float
    outcomes: int
    _seen: deque[tuple[float, bool]] = field(init=False)
    _line: tuple[float, float] = field(init=False, default=(0.0, 0.0))

    def __post_init__(self) -> None:
        check_ranges(self, not_negative("gamma"), at_least_one("outcomes"))
        self._seen = deque(maxlen=self.outcomes)

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none when there is no legal point."""
        return rng.choices(legal, [self.score(response, cut) for cut in legal]) if legal else []

    def score(self, response: TokenScores, cut: int) -> float:
        """What its probability is proportional to."""
        share = cut / len(response.logprobs)
        return float(share**self.gamma / (1 + math.exp(-self._line[0] - self._line[1] * share)))

    def learn(self, outcomes: Sequence[tuple[float, bool]]) -> None:
        """Fit the regression to these outcomes and the latest before them."""
        self._seen.extend(outcomes)
        self._line = _logistic_line(self._seen)

    def state_dict(self) -> StateDict:
        return {"outcomes": list(self._seen), "line": self._line}

    def load_state_dict(self, state: StateDict) -> None:
        self._seen = deque(map(tuple, state["outcomes"]), maxlen=self.outcomes)
        self._line = tuple(state["line"])


def _logistic_line(outcomes: Sequence[tuple[float, bool]]) -> tuple[float, float]:
    """The a and b of largest posterior probability under standard normal priors, by Newton's method."""
    shares, solved = numpy.array(outcomes, dtype=numpy.float64).reshape(-1, 2).T
    inputs, line = numpy.stack([numpy.ones_like(shares), shares]), numpy.zeros(2)
    for _ in range(PASSES):
        p = 1 / (1 + numpy.exp(-line @ inputs))
        slope = inputs @ (solved - p) - line
        line = line + numpy.linalg.solve((inputs * (p * (1 - p))) @ inputs.T + numpy.eye(2), slope)
    return float(line[0]), float(line[1])
