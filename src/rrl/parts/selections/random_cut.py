"""The control that any rule must beat: cut anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from rrl.interfaces import Selection
from rrl.types import TokenScores


@dataclass(frozen=True, kw_only=True)
class RandomCut(Selection):
    """One legal point, drawn evenly."""

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none when there is no legal point."""
        return [rng.choice(legal)] if legal else []

    def score(self, response: TokenScores, cut: int) -> float:
        """No state is better than another."""
        return 0.0
