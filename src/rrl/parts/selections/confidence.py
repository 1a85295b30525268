"""Go back to where the policy was last sure of itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from rrl.interfaces import Selection
from rrl.types import TokenScores


@dataclass(frozen=True, kw_only=True)
class Confidence(Selection):
    """Cuts at the last legal point before the first token that was sampled with a probability below ``below``.

    A rule of this project's: it needs no critic. The score is the probability of the whole prefix.
    """

    below: float

    def __post_init__(self) -> None:
        if not 0 < self.below <= 1:
            raise ValueError(f"below: expected a probability > 0, got {self.below}")

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none when every token was sure or the doubt came before the first legal point."""
        threshold = math.log(self.below)
        doubt = next((i for i, logprob in enumerate(response.logprobs) if logprob < threshold), -1)
        return [cut for cut in legal if cut <= doubt][-1:]

    def score(self, response: TokenScores, cut: int) -> float:
        return math.exp(sum(response.logprobs[:cut]))
