"""What came of each start, whatever the number of rollouts from it."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import fmean
from typing import NamedTuple

from rrl.types import Judged, State


class Start(NamedTuple):
    """A start, its rollouts (siblings), and the share of them that were solved."""

    state: State
    judged: list[Judged]
    success: float


def by_start(judged: Sequence[Judged]) -> Iterator[Start]:
    """The starts of a step in order; equal ones that follow each other are one, since siblings do."""
    for state, siblings in groupby(judged, key=lambda each: each.rollout.state):
        group = list(siblings)
        yield Start(state, group, fmean(each.feedback.solved for each in group))
