"""Paired comparisons over few seeds: an exact test, its correction for several rules, the share of another lead."""

import math
from collections.abc import Sequence
from statistics import covariance, fmean, variance
from typing import Any

from rrl.study.comparison import students_quantile

ROUNDING = 1e-12
"""Sums of differences that are equal but for the order of their terms."""


def sign_flip_test(differences: Sequence[float]) -> float:
    """The exact two-sided p-value of the mean of paired differences, if each could as well have the other sign.

    The share of all 2^n choices of signs whose sum is at least as far from 0 (Fisher, The Design of Experiments, 1935).
    It is never below 2^(1-n): of three seeds 0.25, of six 0.03.
    """
    seen = abs(sum(differences)) - ROUNDING * sum(map(abs, differences))
    sums = [0.0]
    for difference in differences:
        sums = [each + signed for each in sums for signed in (difference, -difference)]
    return sum(abs(each) >= seen for each in sums) / len(sums)


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, so that the chance of any false finding stays at the level (Holm, 1979)."""
    order, adjusted, highest = sorted(range(len(values)), key=values.__getitem__), list(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted


def share_of_lead(own: Sequence[float], bound: Sequence[float]) -> dict[str, Any] | None:
    """The mean of ``own`` differences as a share of the mean of ``bound``, of the same seeds; None if that is <= 0.

    The 95 % interval has every share r for which a paired t test cannot tell ``own`` from r times ``bound`` (Fieller,
    Some problems in interval estimation, 1954). ``low`` and ``high`` are None with a single seed, and where ``bound``
    itself cannot be told from 0, for then no share can be excluded.
    """
    a, b, n = fmean(own), fmean(bound), len(own)
    if b <= 0:
        return None
    result: dict[str, Any] = {"share": a / b, "low": None, "high": None}
    if n < 2:
        return result
    scale = students_quantile(n - 1) ** 2 / n
    square = b * b - scale * variance(bound)
    if square <= 0:
        return result
    middle, rest = a * b - scale * covariance(own, bound), a * a - scale * variance(own)
    root = math.sqrt(max(0.0, middle * middle - square * rest))
    return result | {"low": (middle - root) / square, "high": (middle + root) / square}
