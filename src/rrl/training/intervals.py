"""95 % intervals of shares and means in [0, 1]."""

import math
from collections.abc import Sequence
from statistics import fmean, variance
from typing import Any

Z95 = 1.959964  # the normal distribution's 97.5 % quantile


def wilson(share: float, n: int) -> list[float]:
    """Wilson's score interval (Wilson, JASA 1927, 22:209) of a share of ``n`` >= 1 independent units.

    ``share`` may also be the mean of ``n`` values from 0 to 1: their variance is at most share * (1 - share), so that
    the interval is then too wide rather than too narrow.
    """
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n)) / (1 + Z95**2 / n)
    return _within(centre, half)


def normal(values: Sequence[float]) -> list[float]:
    """The normal interval of the mean of values from 0 to 1; [0, 1] for a single value."""
    half = Z95 * math.sqrt(variance(values) / len(values)) if len(values) > 1 else 1.0
    return _within(fmean(values), half)


def accuracy(scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Mean of per-problem means with its 95 % interval.

    One 0/1 score a problem: Wilson's interval (Wilson, JASA 1927). Several: the normal interval with problems as
    the independent units, because responses to one problem are not independent; Wilson's again where all problems
    agree, because without a deviation the normal interval would have no width. Without problems the accuracy is 0
    with the interval [0, 1].
    """
    if not scores:
        return {"accuracy": 0.0, "interval95": [0.0, 1.0], "n_problems": 0, "n_samples": 0}
    means = [fmean(row) for row in scores]
    n, mean = len(means), fmean(means)
    of_shares = all(len(row) == 1 for row in scores) or len(set(means)) == 1 < n
    interval = wilson(mean, n) if of_shares else normal(means)
    return {"accuracy": mean, "interval95": interval, "n_problems": n, "n_samples": max(map(len, scores))}


def _within(centre: float, half: float) -> list[float]:
    return [max(0.0, centre - half), min(1.0, centre + half)]
