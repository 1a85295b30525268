"""The upper bound of any rule: cut right before the first error, which only the task knows."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from rrl.errors import DataError
from rrl.interfaces import Selection
from rrl.types import TokenScores


@dataclass(frozen=True)
class Oracle(Selection):
    """Cuts at the last legal point before the first error. The score is the length of the prefix."""

    needs = frozenset({"first_errors"})

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none when the error is before the first legal point. Raises DataError if the task tells none."""
        if response.right is None:
            raise DataError(
                "selection: oracle needs the place of the first error, which this task does not tell; expected "
                "task=trace or task=minicode, and own responses (sampler.sources=self); use another rule"
            )
        return [cut for cut in legal if cut <= response.right][-1:]

    def score(self, response: TokenScores, cut: int) -> float:
        return float(cut)
