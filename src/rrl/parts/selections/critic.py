"""Rules that read the critic: a promising state is one it values (RRL, arXiv 2504.14363; the exact rule is unknown)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from rrl.interfaces import Selection
from rrl.ranges import at_least_one, check_ranges
from rrl.types import TokenScores


@dataclass(frozen=True, kw_only=True)
class _HighestValue(Selection):
    """At most one cut, in the state of highest value, and the value as its score; rules add when that suffices.

    Nothing is collected while the critic explains less than ``min_explained_variance`` of the returns (None: no gate).
    """

    min_explained_variance: float | None = field()  # without the default of Selection

    needs_critic = True

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none when the state of highest value does not suffice."""
        best = max(legal, key=lambda cut: response.values[cut], default=None)
        return [best] if best is not None and self._suffices(response, best) else []

    def score(self, response: TokenScores, cut: int) -> float:
        return response.values[cut]

    def _suffices(self, response: TokenScores, cut: int) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class CriticThreshold(_HighestValue):
    """The state of highest value, if that is at least ``tau`` (in units of the return)."""

    tau: float

    def _suffices(self, response: TokenScores, cut: int) -> bool:
        return response.values[cut] >= self.tau


@dataclass(frozen=True, kw_only=True)
class CriticMiddle(_HighestValue):
    """The state whose value is nearest ``middle`` (in units of the return): of largest p(1-p) where that is one half.

    After TRACE (arXiv 2606.11119) and PROS (OpenReview lz1SRTcnUb), which estimate the success by other means.
    """

    middle: float

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none when there is no legal point."""
        return [max(legal, key=lambda cut: self.score(response, cut))] if legal else []

    def score(self, response: TokenScores, cut: int) -> float:
        """Less the distance from the middle."""
        return -abs(response.values[cut] - self.middle)


@dataclass(frozen=True, kw_only=True)
class CriticRise(_HighestValue):
    """The state whose value rose most over the bare prompt's, V(s) - V(s0), if that is at least ``delta``."""

    delta: float

    def score(self, response: TokenScores, cut: int) -> float:
        return response.values[cut] - response.values[0]

    def _suffices(self, response: TokenScores, cut: int) -> bool:
        return self.score(response, cut) >= self.delta


@dataclass(frozen=True, kw_only=True)
class CriticTopK(_HighestValue):
    """The ``k`` states of highest value along the response; the buffer's cap per problem keeps the best of them."""

    k: int

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("k"))

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        return sorted(sorted(legal, key=lambda cut: response.values[cut], reverse=True)[: self.k])


@dataclass(frozen=True, kw_only=True)
class CriticPeak(_HighestValue):
    """The last good moment: the state of highest value, if the value later falls by at least ``fall``."""

    fall: float

    def _suffices(self, response: TokenScores, cut: int) -> bool:
        states = response.values[: len(response.logprobs)]  # after the end token is none: its value was never learnt
        return states[cut] - min(states[cut:]) >= self.fall
