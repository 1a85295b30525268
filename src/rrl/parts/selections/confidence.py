"""Go back to where the policy was last sure of itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from rrl.interfaces import Selection
from rrl.types import TokenScores


@dataclass(frozen=True, kw_only=True)
class Confidence(Selection):
    """Cuts before the first step whose tokens were sampled with a mean probability below ``below``.

    A step leads from one legal point to the next, or to an end: a single token, a line, a sentence. A rule of this
    project's: it needs no critic. The score is the probability of the whole prefix.
    """

    below: float

    def __post_init__(self) -> None:
        if not 0 < self.below <= 1:
            raise ValueError(f"below: expected a probability > 0, got {self.below}")

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none where every step was sure, or where the first was not: only the prompt is before it."""
        chances = list(map(math.exp, response.logprobs))
        steps = pairwise([0, *legal, len(chances)])
        doubt = next((begin for begin, end in steps if sum(chances[begin:end]) < self.below * (end - begin)), 0)
        return [doubt] if doubt else []

    def score(self, response: TokenScores, cut: int) -> float:
        return math.exp(sum(response.logprobs[:cut]))
