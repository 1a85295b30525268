"""The upper bound of any rule: cut right before the first error, which only the task knows."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from rrl.errors import DataError
from rrl.interfaces import Selection
from rrl.types import TokenScores


@dataclass(frozen=True, kw_only=True)
class Oracle(Selection):
    """Cuts at a legal point before the first error: the last one, or a random one.

    The score is the length of the prefix or, of random ones, the same for all.
    """

    cut: Literal["last", "random"]

    needs = frozenset({"first_errors"})

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none when the error is before the first legal point. Raises DataError if the task tells none."""
        if response.right is None:
            raise DataError(
                "selection: oracle needs the place of the first error, which this task does not tell; expected "
                "task=trace or task=minicode, and own responses (sampler.sources=self); use another rule"
            )
        right = [cut for cut in legal if cut <= response.right]
        return right[-1:] if self.cut == "last" or not right else [rng.choice(right)]

    def score(self, response: TokenScores, cut: int) -> float:
        return float(cut) if self.cut == "last" else 0.0
