"""Go back to before the step after which things looked worst."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from random import Random
from typing import Literal

from rrl.interfaces import Selection
from rrl.ranges import refuse
from rrl.types import TokenScores


@dataclass(frozen=True, kw_only=True)
class LargestFall(Selection):
    """Cuts before the step with the largest fall; a step leads from one legal point to the next, or to an end.

    ``of`` is what falls: the critic's ``value``, or the ``logprob`` (nats) of all tokens so far, whose largest fall is
    the step that the policy itself found least likely. There is no cut where nothing falls, and where that step is the
    first: only the prompt is before it. A stand-in for the first wrong step, which SRPO (arXiv 2605.25507) lets the
    policy name.
    """

    of: Literal["value", "logprob"]
    min_explained_variance: float | None = field()  # without the default of Selection

    def __post_init__(self) -> None:
        gated = self.min_explained_variance is not None and not self.needs_critic
        refuse({"min_explained_variance: expected null, since no critic is read; or give of=value": gated})

    @property
    def needs_critic(self) -> bool:
        return self.of == "value"

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none when the first step is the one, or nothing falls."""
        height = self._heights(response)
        steps = pairwise([0, *legal, len(height) - 1])
        falls = {begin: height[begin] - height[end] for begin, end in steps}
        worst = max(falls, key=lambda begin: falls[begin])
        return [worst] if worst in legal and falls[worst] > 0 else []

    def score(self, response: TokenScores, cut: int) -> float:
        """The value of the state, or the probability of the whole prefix."""
        return response.values[cut] if self.of == "value" else math.exp(sum(response.logprobs[:cut]))

    def _heights(self, response: TokenScores) -> Sequence[float]:
        """After so many tokens; of values not after the last, which ends the response: that was never learnt."""
        if self.of == "value":
            return response.values[: len(response.logprobs)]
        return list(accumulate(response.logprobs, initial=0.0))
