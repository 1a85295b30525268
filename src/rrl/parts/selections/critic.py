"""Rules that read the critic: a promising state is one it values (RRL, arXiv 2504.14363; the exact rule is unknown)."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from rrl.interfaces import Selection
from rrl.ranges import at_least_one
from rrl.types import TokenScores


@dataclass(frozen=True, kw_only=True)
class CriticThreshold(Selection):
    """The state of highest value, if that is at least ``tau`` (in units of the return)."""

    tau: float

    needs_critic = True

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none when no state is valued enough."""
        best = max(legal, key=lambda cut: response.values[cut], default=None)
        return [best] if best is not None and response.values[best] >= self.tau else []

    def score(self, response: TokenScores, cut: int) -> float:
        """The critic's value."""
        return response.values[cut]


@dataclass(frozen=True, kw_only=True)
class CriticRise(Selection):
    """The state whose value rose most over the bare prompt's, V(s) - V(s0), if that is at least ``delta``."""

    delta: float

    needs_critic = True

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none when the value did not rise enough."""
        best = max(legal, key=lambda cut: response.values[cut], default=None)
        return [best] if best is not None and self.score(response, best) >= self.delta else []

    def score(self, response: TokenScores, cut: int) -> float:
        """The rise."""
        return response.values[cut] - response.values[0]


@dataclass(frozen=True, kw_only=True)
class CriticTopK(Selection):
    """The ``k`` states of highest value along the response; the buffer's cap per problem keeps the best of them."""

    k: int

    needs_critic = True

    def __post_init__(self) -> None:
        at_least_one(self, "k")

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """At most ``k`` cuts."""
        return sorted(sorted(legal, key=lambda cut: response.values[cut], reverse=True)[: self.k])

    def score(self, response: TokenScores, cut: int) -> float:
        """The critic's value."""
        return response.values[cut]


@dataclass(frozen=True, kw_only=True)
class CriticPeak(Selection):
    """The last good moment: the state of highest value, if the value later falls by at least ``fall``."""

    fall: float

    needs_critic = True

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none when the value never fell that far."""
        best = max(legal, key=lambda cut: response.values[cut], default=None)
        states = response.values[: len(response.logprobs)]  # after the end token is none: its value was never learnt
        if best is None or states[best] - min(states[best:]) < self.fall:
            return []
        return [best]

    def score(self, response: TokenScores, cut: int) -> float:
        """The critic's value."""
        return response.values[cut]
