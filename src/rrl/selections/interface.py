"""What a selection rule must do."""

from collections.abc import Sequence
from random import Random
from typing import Protocol

from rrl.types import Scored


class Selection(Protocol):
    """Finds the promising states along a response."""

    needs_critic: bool
    """True when it reads the critic's values."""

    def cuts(self, response: Scored, legal: Sequence[int], rng: Random) -> list[int]:
        """Of the ``legal`` lengths, in rising order, those at which to cut; may be none."""

    def score(self, response: Scored, cut: int) -> float:
        """How promising the state after the first ``cut`` tokens is; for ranking and reporting."""
