"""The control that any rule must beat: cut anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from rrl.interfaces import Selection
from rrl.ranges import refuse
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


@dataclass(frozen=True, kw_only=True)
class RandomWithin(RandomCut):
    """One legal point within a window of the response, drawn evenly; ``window`` are two shares of its length."""

    window: tuple[float, float]

    def __post_init__(self) -> None:
        begin, end = self.window
        expected = "window: expected two rising shares from 0 to 1, as [0.4, 0.8]"
        refuse({f"{expected}, got {[begin, end]}": not 0 <= begin < end <= 1})

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none when there is no legal point in the window."""
        begin, end = (share * len(response.logprobs) for share in self.window)
        return super().cuts(response, [cut for cut in legal if begin <= cut <= end], rng)
