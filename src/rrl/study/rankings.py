"""How well one number foretells another: rank correlation, calibration, and intervals over groups of items."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from random import Random
from statistics import fmean
from typing import TypeVar

Item = TypeVar("Item")
RESAMPLES = 1000


def rank_correlation(foretold: Sequence[float], found: Sequence[float]) -> float | None:
    """Spearman's correlation of ranks, ties sharing their mean rank; None where one of them is constant."""
    from scipy.stats import spearmanr

    if len(set(foretold)) < 2 or len(set(found)) < 2:
        return None
    return float(spearmanr(foretold, found).statistic)


def calibration(foretold: Sequence[float], found: Sequence[float], bins: int) -> list[dict[str, float]]:
    """Means of both numbers in ``bins`` groups of (almost) equal size, from the lowest foretold numbers to the highest.

    There are fewer groups where there are fewer items.
    """
    pairs = sorted(zip(foretold, found, strict=True), key=lambda pair: pair[0])
    count = min(bins, len(pairs))
    ends = [len(pairs) * i // count for i in range(count + 1)]
    groups = [pairs[begin:end] for begin, end in pairwise(ends)]
    return [
        {"count": len(group), "foretold": fmean(x for x, _ in group), "found": fmean(y for _, y in group)}
        for group in groups
    ]


def interval(
    items: Sequence[Item], group: Callable[[Item], Hashable], statistic: Callable[[Sequence[Item]], float | None],
    seed: int,
) -> list[float] | None:  # fmt: skip
    """The 95 % interval of a statistic by the percentile bootstrap over groups (Efron and Tibshirani, 1993, 13.3).

    Groups are drawn whole, with replacement, because items of one group are not independent. Samples in which the
    statistic is None are left out. None with a single group, or where the statistic is None in half of the samples.
    """
    members = defaultdict[Hashable, list[Item]](list)
    for item in items:
        members[group(item)].append(item)
    groups, rng = list(members.values()), Random(f"bootstrap/{seed}")
    if len(groups) < 2:
        return None
    samples = ([item for drawn in rng.choices(groups, k=len(groups)) for item in drawn] for _ in range(RESAMPLES))
    values = sorted(value for sample in samples if (value := statistic(sample)) is not None)
    if len(values) < RESAMPLES / 2:
        return None
    return [values[int(0.025 * len(values))], values[int(0.975 * len(values))]]
