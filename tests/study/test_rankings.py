"""Rank correlation, calibration and intervals against numbers that were worked out elsewhere or by hand."""

import pytest

from rrl.study.rankings import calibration, interval, rank_correlation


def test_the_rank_correlation_is_spearmans() -> None:
    """IQ and hours of television of ten people, rho = -29/165 (Wikipedia, Spearman's rank correlation, Example)."""
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert rank_correlation(iq, hours) == pytest.approx(-29 / 165)


def test_ties_share_their_mean_rank() -> None:
    """Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5)."""
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.948683, abs=1e-6)


@pytest.mark.parametrize("columns", [([0.5, 0.5], [1, 2]), ([1, 2], [0, 0]), ([1], [1])])
def test_what_is_constant_ranks_nothing(columns: tuple[list[float], list[float]]) -> None:
    assert rank_correlation(*columns) is None


def test_calibration_compares_means_in_groups_of_rising_foretold_numbers() -> None:
    assert calibration([0.9, 0.1, 0.5, 0.3, 0.7], [1, 0, 1, 0, 0.5], 2) == [
        {"count": 2, "foretold": pytest.approx(0.2), "found": 0.0},
        {"count": 3, "foretold": pytest.approx(0.7), "found": pytest.approx(5 / 6)},
    ]


def test_there_are_no_more_groups_than_items() -> None:
    assert [group["foretold"] for group in calibration([3.0, 1.0], [0, 0], 4)] == [1.0, 3.0]


def mean(items: list[tuple[str, float]]) -> float:
    return sum(value for _, value in items) / len(items)


def test_items_of_one_group_are_drawn_together() -> None:
    """Two groups, of zeros and of ones: a quarter of the samples has only zeros. Item by item it were .5 +- .07."""
    items = [(name, value) for name, value in (("p", 0.0), ("q", 1.0)) for _ in range(100)]
    assert interval(items, lambda item: item[0], mean, seed=0) == [0.0, 1.0]


def test_an_interval_covers_most_of_the_bootstraps_samples() -> None:
    """The mean of 100 independent coins: 1.96 * .5 / sqrt(100) on each side."""
    low, high = interval(list(enumerate([0.0, 1.0] * 50)), lambda item: item[0], mean, seed=0) or [0.0, 0.0]
    assert (low, high) == (pytest.approx(0.402, abs=0.02), pytest.approx(0.598, abs=0.02))


def test_samples_without_a_number_are_left_out_and_too_few_give_no_interval() -> None:
    items = [("p", 0.0), ("q", 1.0)]
    assert interval(items[:1], lambda item: item[0], mean, seed=0) is None
    assert interval(items, lambda item: item[0], lambda drawn: None, seed=0) is None
    assert interval(items, lambda item: item[0], lambda drawn: mean(drawn) or None, seed=0) == [0.5, 1.0]
