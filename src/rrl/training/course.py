"""The forecast of a training loop from its settings: steps, tokens, measurements."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Between(NamedTuple):
    """A number that is not known before training: its bounds, and an estimate (None: there is none)."""

    least: int
    likely: int | None
    most: int

    def over(self, function: Callable[[int], int]) -> "Between":
        """A rising function applied to each."""
        return Between(
            function(self.least), None if self.likely is None else function(self.likely), function(self.most)
        )


@dataclass(frozen=True)
class Course:
    """Steps, optimiser steps, the most new tokens, and a step in words, a line each.

    After ``milestones`` of its steps, at most, the policy is measured and saved whatever the frequencies say.
    """

    steps: Between
    optimised: Between
    tokens: int
    milestones: int
    of_a_step: Sequence[str]

    def checkpoints(self, every: int | None) -> Between:
        """The largest number: after ``every`` steps, at milestones (of which the end is one), and at the end."""
        more = max(0, self.milestones - 1)
        return self.steps.over(lambda steps: more + (1 if every is None else math.ceil(steps / every)))

    def evaluations(self, every: int | None) -> Between:
        """The largest number: one before training, then as checkpoints."""
        return self.checkpoints(every).over(lambda count: 1 + count)


def some(count: int, thing: str) -> str:
    """A number of things."""
    plural = f"{thing}es" if thing.endswith(("batch", "process")) else f"{thing}s"
    return f"{count:,} {thing if count == 1 else plural}"
