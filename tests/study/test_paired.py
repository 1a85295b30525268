"""Exact paired tests, against numbers worked by hand and by others."""

import random

import pytest
from scipy.stats import permutation_test

from rrl.study.paired import holm, sign_flip_test


# Of 8 choices of signs, 2 have a sum of 0.6 or more; with 0.1, 0.2 and -0.3 all 8 are at least as far from 0 as 0.
@pytest.mark.parametrize(
    ("differences", "p"),
    [([0.1, 0.2, 0.3], 0.25), ([-0.1, -0.2, -0.3], 0.25), ([0.1, 0.2, -0.3], 1.0), ([0.1, 0.2, -0.05], 0.5),
     ([0.5], 1.0), ([0.1] * 6, 2 / 64), ([0.0, 0.0], 1.0)],
)  # fmt: skip
def test_the_sign_flip_test_counts_all_choices_of_signs(differences: list[float], p: float) -> None:
    assert sign_flip_test(differences) == p


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_exact_permutation_test_of_scipy(seed: int) -> None:
    rng = random.Random(seed)
    differences = [rng.gauss(0.1, 0.2) for _ in range(9)]
    found = permutation_test((differences,), lambda x: sum(x), permutation_type="samples", n_resamples=10_000)
    assert sign_flip_test(differences) == pytest.approx(found.pvalue)


# By hand: 4 * .01, 3 * .02, 2 * .03, .04.
@pytest.mark.parametrize(
    ("values", "adjusted"),
    [([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]), ([0.04, 0.01], [0.04, 0.02]), ([0.6, 0.7], [1.0, 1.0]),
     ([0.03], [0.03]), ([], [])],
)  # fmt: skip
def test_holms_correction(values: list[float], adjusted: list[float]) -> None:
    assert holm(values) == pytest.approx(adjusted)
