"""Sigmoids of learning curves: of curves with known parameters, against SciPy, and where nothing can be told."""

import random
from collections.abc import Sequence

import pytest
from scipy.optimize import curve_fit

from rrl.study.sigmoid import fit

BUDGETS = [15_000.0 * number for number in range(21)]


def curve(asymptote: float, midpoint: float, exponent: float, start: float = 0.05) -> list[float]:
    """ScaleRL, arXiv 2510.13786, equation 1."""
    return [start, *(start + (asymptote - start) / (1 + (midpoint / c) ** exponent) for c in BUDGETS[1:])]


def noisy(count: int, asymptote: float, midpoint: float, exponent: float) -> list[list[float]]:
    rng = random.Random(1)
    return [[height + rng.gauss(0, 0.02) for height in curve(asymptote, midpoint, exponent)] for _ in range(count)]


def test_half_of_the_rise_is_at_the_midpoint() -> None:
    assert curve(0.65, 150_000, 3)[10] == pytest.approx(0.35)


@pytest.mark.parametrize(
    "known", [(0.7, 120_000, 2.5), (0.9, 250_000, 6.0), (0.3, 30_000, 0.8), (0.5, 200_000, 1.2), (0.95, 60_000, 12.0)]
)
def test_the_parameters_of_a_curve_are_found(known: tuple[float, float, float]) -> None:
    found = fit(BUDGETS, [curve(*known)])
    values = [found[name]["value"] for name in ("asymptote", "midpoint", "exponent")]
    assert values == pytest.approx(known, rel=1e-3)
    assert found["error"] < 1e-4 and found["start"] == 0.05
    assert (found["asymptote"]["low"], found["identified"]) == (None, False)  # a single seed has no interval


def test_the_fit_is_the_least_squares_of_scipy() -> None:
    rows = noisy(5, 0.7, 120_000, 2.5)
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]

    def sigmoid(c: Sequence[float], asymptote: float, midpoint: float, exponent: float) -> list[float]:
        return [mean[0] + (asymptote - mean[0]) / (1 + (midpoint / each) ** exponent) for each in c]

    expected, _ = curve_fit(sigmoid, BUDGETS[1:], mean[1:], p0=(0.6, 1e5, 2.0))
    found = fit(BUDGETS, rows)
    values = [found[name]["value"] for name in ("asymptote", "midpoint", "exponent")]
    assert values == pytest.approx(list(expected), rel=1e-3)


def test_a_curve_that_bends_is_identified_and_its_interval_holds_the_truth() -> None:
    found = fit(BUDGETS, noisy(12, 0.7, 120_000, 2.5))
    assert found["identified"]
    ends = [(found[name]["low"], found[name]["high"]) for name in ("asymptote", "midpoint", "exponent")]
    assert all(low < truth < high for (low, high), truth in zip(ends, (0.7, 120_000, 2.5), strict=True))
    assert ends[0][1] - ends[0][0] < 0.1
    assert fit(BUDGETS, noisy(12, 0.7, 120_000, 2.5)) == found  # drawn by a seed of its own


def test_a_curve_that_still_rises_tells_no_asymptote() -> None:
    rows = [[0.05 + share * (c / BUDGETS[-1]) ** 2 for c in BUDGETS] for share in (0.18, 0.2, 0.22)]
    found = fit(BUDGETS, rows)
    assert found["asymptote"]["high"] == 1.0 and not found["identified"]


def test_a_flat_curve_tells_nothing() -> None:
    assert not fit(BUDGETS, [[0.05] * 21, [0.05] * 21])["identified"]


@pytest.mark.parametrize("budgets", [[1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 1.0, 2.0, 3.0]])
def test_budgets_that_are_too_few_or_begin_late_are_refused(budgets: list[float]) -> None:
    with pytest.raises(ValueError, match="expected five or more that begin with 0"):
        fit(budgets, [[0.1] * len(budgets)])
