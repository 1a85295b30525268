"""Several responses to one problem: the unbiased pass@k, the majority's answer, and intervals over problems."""

from collections import Counter
from collections.abc import Sequence
from math import comb
from statistics import fmean

from rrl.training.intervals import wilson

RESAMPLES = 2000
"""Resamples of the problems behind an interval."""


def pass_at_k(n: int, right: int, k: int) -> float:
    """The probability that at least one of ``k`` responses, drawn from ``n`` without replacement, is right.

    pass@k = 1 - C(n - c, k) / C(n, k) for c = ``right`` (Chen et al. 2021, arXiv:2107.03374, equation 1), here in exact
    integers. Its mean over problems is unbiased for each k <= n; 1 - (1 - c/n)^k is not.
    """
    return 1 - comb(n - right, k) / comb(n, k)


def budgets(n: int) -> list[int]:
    """The k up to ``n`` at which pass@k is reported: powers of two, and ``n`` itself."""
    return sorted({*(2**i for i in range(n.bit_length())), n})


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer, of several the one that was written first; None votes for nothing."""
    votes = Counter(answer for answer in answers if answer is not None)
    return max(votes, key=votes.__getitem__, default=None)


def bootstrap(values: Sequence[float], seed: int) -> list[float]:
    """The 95 % percentile interval (Efron 1979) of the mean of one value from 0 to 1 for each problem.

    Problems are drawn with replacement, ``RESAMPLES`` times: how often each distinct value comes is multinomial. Where
    all values agree, a resample would have no width: Wilson's interval instead. Without values it is [0, 1].
    """
    import numpy

    distinct = Counter(values)
    if len(distinct) <= 1:
        return wilson(fmean(values), len(values)) if values else [0.0, 1.0]
    shares = numpy.array(list(distinct.values())) / len(values)
    drawn = numpy.random.default_rng(seed).multinomial(len(values), shares, size=RESAMPLES)
    low, high = numpy.quantile(drawn @ numpy.array(list(distinct)) / len(values), [0.025, 0.975])
    return [float(low), float(high)]
