"""Exact paired tests, against numbers worked by hand and by others."""

import random

import pytest
from scipy.stats import permutation_test, ttest_1samp

from rrl.study.paired import holm, share_of_lead, sign_flip_test


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


# By hand: a constant lead of the bound of .4 makes it a t interval of own / .4: .5 +- 4.302653 * .1 / sqrt(3) / .4.
def test_the_share_of_a_constant_lead_is_a_t_interval() -> None:
    found = share_of_lead([0.1, 0.2, 0.3], [0.4, 0.4, 0.4])
    assert found == pytest.approx({"share": 0.5, "low": 0.5 - 0.621034, "high": 0.5 + 0.621034}, abs=1e-6)


def test_at_the_ends_of_the_interval_a_paired_t_test_has_p_of_5_per_cent() -> None:
    own, bound = [0.11, 0.05, 0.21, 0.16, 0.08, 0.13], [0.2, 0.14, 0.31, 0.18, 0.15, 0.22]
    found = share_of_lead(own, bound)
    assert found is not None and found["share"] == pytest.approx(0.74 / 1.2)
    for end in (found["low"], found["high"]):
        p = ttest_1samp([a - end * b for a, b in zip(own, bound, strict=True)], 0).pvalue
        assert p == pytest.approx(0.05)
    assert found["low"] < found["share"] < found["high"]


def test_there_is_no_share_of_a_lead_that_is_none_and_no_interval_of_one_that_may_be_none() -> None:
    assert share_of_lead([0.1, 0.2], [-0.3, 0.3]) is None
    assert share_of_lead([0.1, 0.2], [0.1, 0.3]) == {"share": pytest.approx(0.75), "low": None, "high": None}
    assert share_of_lead([0.1], [0.2]) == {"share": 0.5, "low": None, "high": None}
