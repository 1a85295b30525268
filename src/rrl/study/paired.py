"""Paired comparisons over few seeds: an exact test of differences, and its correction for several rules."""

from collections.abc import Sequence

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
