"""The kernels against numbers worked by hand or published by others, and against slow loops over the definitions.

Each source is named beside its numbers. Where a peer's convention differs from ours, the comment says how the data
were adapted. The loops use ``math`` and ``statistics`` on Python floats, and the definition rather than our recursion.
"""

import math
import statistics

import pytest
import torch
from torch.testing import assert_close

from fixtures.functional import SEEDS, bools, chosen, noise, random_mask, seeded
from rrl import functional as F

# --- token_logprobs and entropy ---------------------------------------------------------------------------------------


def test_token_logprobs_are_the_logs_of_the_softmax():
    logits = torch.tensor([[0.1, 0.2, 0.7], [3.0, 6.0, 1.0]]).log()  # the second row is ten times .3, .6, .1
    actual = F.token_logprobs(logits, torch.tensor([2, 0]))
    assert_close(actual, torch.tensor([math.log(0.7), math.log(0.3)]))


@SEEDS
def test_token_logprobs_agree_with_torch_distributions(seed):
    generator = seeded(seed)
    logits, tokens = 3 * noise(generator, 2, 4, 7), torch.randint(0, 7, (2, 4), generator=generator)
    assert_close(F.token_logprobs(logits, tokens), torch.distributions.Categorical(logits=logits).log_prob(tokens))


def test_the_gradient_of_a_token_logprob_is_one_hot_minus_softmax():
    logits = torch.tensor([0.1, 0.2, 0.7]).log().requires_grad_()
    F.token_logprobs(logits, torch.tensor(1)).backward()
    assert_close(logits.grad, torch.tensor([-0.1, 0.8, -0.7]))


def test_huge_logits_do_not_overflow():
    logits = torch.tensor([1e4, 0.0, -1e4])
    assert_close(F.token_logprobs(logits.expand(3, 3), torch.arange(3)), torch.tensor([0.0, -1e4, -2e4]))
    assert_close(F.entropy(logits), torch.tensor(0.0))


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        # scipy.stats.entropy, reference page: [9/10, 1/10] has 0.46899559358928117 bits; a fair coin has 1 bit.
        ([0.9, 0.1], 0.46899559358928117 * math.log(2)),
        ([0.5, 0.5], math.log(2)),
        # polars Expr.entropy, reference page: [1, 2, 3], normalised, has 1.459148 bits.
        ([1.0, 2.0, 3.0], 1.459148 * math.log(2)),
        ([1.0, 0.0, 0.0], 0.0),
    ],
)
def test_entropy_has_the_published_values(probabilities, expected):
    assert_close(F.entropy(torch.tensor(probabilities).log()), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_entropy_sums_over_the_vocabulary_of_each_token():
    # rlax policy_gradients_test.py, EntropyLossTest: weighted mean entropies 0.288693 and 1.15422, which are the
    # losses of weights -2, 2, 0 and -3, 1, -1 on three tokens (a loss is minus the entropy).
    logits = torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 0.0], [-1.0, -2.0, -3.0]]).expand(2, 3, 3)
    weights = torch.tensor([[-2.0, 2.0, 0.0], [-3.0, 1.0, -1.0]])
    assert_close(-(weights * F.entropy(logits)).mean(-1), torch.tensor([0.288693, 1.15422]), rtol=1e-5, atol=1e-5)


@SEEDS
def test_entropy_agrees_with_torch_distributions(seed):
    logits = 3 * noise(seeded(seed), 2, 4, 7)
    assert_close(F.entropy(logits), torch.distributions.Categorical(logits=logits).entropy())


@SEEDS
def test_the_gradient_of_entropy_agrees_with_torch_distributions(seed):
    ours = (3 * noise(seeded(seed), 4, 7)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    F.entropy(ours).sum().backward()
    torch.distributions.Categorical(logits=theirs).entropy().sum().backward()
    assert_close(ours.grad, theirs.grad)


def test_entropy_of_nan_is_nan_and_not_a_plausible_zero():
    assert F.entropy(torch.tensor([0.0, math.nan])).isnan()


# --- weighted_sum, masked_mean, whiten --------------------------------------------------------------------------------


def test_weighted_sum_weighs_and_adds():
    values, weight = torch.tensor([[2.0, 3.0], [5.0, 7.0]]), torch.tensor([[0.5, 0.0], [0.25, -1.0]])
    assert F.weighted_sum(values, weight).item() == 1.0 + 1.25 - 7.0


def test_the_gradient_of_a_weighted_sum_is_the_weight():
    values, weight = torch.zeros(2, 2, requires_grad=True), torch.tensor([[0.5, 0.0], [0.25, -1.0]])
    F.weighted_sum(values, weight).backward()
    assert_close(values.grad, weight)


@pytest.mark.parametrize(
    ("values", "mask", "expected"),
    [
        ([[1.0, 2.0, 3.0, 4.0, 5.0]], "11100", 2.0),  # torchtune test_rewards.py, TestMaskedMean
        ([[2.0, 3.0, 4.0, 5.0, 6.0]], "00111", 5.0),  # torchtune test_rewards.py, TestMaskedMean, second row
        ([[1.0, 2.0, 3.0, 4.0]], "0110", 2.5),  # TRL tests/test_core.py: the mean of 2 and 3
        ([[4.0, 8.0, 9.0, 1.0]], "0000", 0.0),
    ],
)
def test_masked_mean_has_the_published_values(values, mask, expected):
    assert F.masked_mean(torch.tensor(values), bools(mask)).item() == expected


def test_masked_mean_averages_over_cells_and_not_over_rows():
    # SkyRL test_ppo_utils.py, test_reduce_loss, "token_mean": (1 + 2 + 3 + 4) / 4.
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert F.masked_mean(values, bools("111", "100")).item() == 2.5


def test_whiten_has_the_published_values():
    # SkyRL test_ppo_utils.py, GAE with masking: 0.7071 and -0.7071 for advantages 5.5, 4.0, 1.5 with the second
    # masked out. They divide the variance by n - 1 and we by n, here 1 and 2: our numbers are sqrt(2) times theirs.
    actual = F.whiten(torch.tensor([[5.5, 4.0, 1.5]]), bools("101"))
    assert_close(actual, math.sqrt(2) * torch.tensor([[0.7071, 0.0, -0.7071]]), rtol=1e-4, atol=1e-6)


def test_whiten_worked_by_hand():
    # 2, 4, 4, 4, 5, 5, 7, 9 have mean 5 and standard deviation 2.
    values = torch.tensor([[2.0, 4.0, 4.0, 4.0], [5.0, 5.0, 7.0, 9.0]])
    expected = torch.tensor([[-1.5, -0.5, -0.5, -0.5], [0.0, 0.0, 1.0, 2.0]])
    assert_close(F.whiten(values, bools("1111", "1111")), expected)


@SEEDS
def test_whiten_agrees_with_the_statistics_module(seed):
    generator = seeded(seed)
    mask, values = random_mask(generator), 3 + 2 * noise(generator, 5, 8)
    mean, std = statistics.mean(chosen(values, mask)), statistics.pstdev(chosen(values, mask))
    assert_close(F.whiten(values, mask, epsilon=0.0), torch.where(mask, (values - mean) / std, 0.0))


@SEEDS
def test_whitening_leaves_mean_zero_and_variance_one(seed):
    generator = seeded(seed)
    mask, values = random_mask(generator), 3 + 2 * noise(generator, 5, 8)
    cells = chosen(F.whiten(values, mask), mask)
    assert statistics.mean(cells) == pytest.approx(0, abs=1e-12)
    assert statistics.pvariance(cells) == pytest.approx(1, rel=1e-6)


def test_whitening_adds_epsilon_to_the_variance():
    # Variance 1, and 1 / sqrt(1 + 3) = 0.5; in the second claim the default, 1e-8 / sqrt(1e-8 + 1e-8) of 1e-4.
    assert_close(F.whiten(torch.tensor([[0.0, 2.0]]), bools("11"), epsilon=3.0), torch.tensor([[-0.5, 0.5]]))
    assert_close(F.whiten(torch.tensor([[-1e-4, 1e-4]]), bools("11")), torch.tensor([[-1.0, 1.0]]) / math.sqrt(2))


@pytest.mark.parametrize("mask", ["111", "010", "000"])
def test_whitening_what_does_not_vary_gives_zero(mask):
    assert_close(F.whiten(torch.full((1, 3), 0.25), bools(mask)), torch.zeros(1, 3))
