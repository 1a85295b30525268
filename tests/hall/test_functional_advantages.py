"""Advantages and explained variance, against numbers worked by hand or published by others."""

import math
import statistics

import pytest
import torch
from torch.testing import assert_close

from fixtures.functional import SEEDS, bools, chosen, noise, random_mask, seeded
from rrl import functional as F

# --- centre_by_level --------------------------------------------------------------------------------------------------


def test_centre_by_level_worked_by_hand():
    # Level 7: 1, 5 (mean 3) -> -2, 2. Level 2: 10, 14, 12 (mean 12) -> -2, 2, 0. Variance (4 * 4 + 0) / 5 = 3.2.
    values, mask = torch.tensor([[10.0, 14.0, 99.0], [1.0, 5.0, 99.0], [99.0, 12.0, 99.0]]), bools("110", "110", "010")
    expected = torch.tensor([[-2.0, 2.0, 0.0], [-2.0, 2.0, 0.0], [0.0, 0.0, 0.0]]) / math.sqrt(3.2)
    assert_close(F.centre_by_level(values, mask, torch.tensor([2, 7, 2])), expected)


@SEEDS
def test_centre_by_level_agrees_with_a_loop(seed):
    generator = seeded(seed)
    mask, values, level = random_mask(generator), noise(generator, 5, 8), torch.tensor([1, 0, 1, 0, 3])
    centred = torch.zeros_like(values)
    for number in (0, 1, 3):
        own = mask & (level == number)[:, None]
        centred[own] = values[own] - (statistics.mean(chosen(values, own)) if own.any() else 0.0)
    expected = centred / statistics.pstdev(chosen(centred, mask))
    assert_close(F.centre_by_level(values, mask, level), expected, rtol=1e-6, atol=1e-7)


@SEEDS
def test_one_level_is_whitening(seed):
    generator = seeded(seed)
    mask, values = random_mask(generator), noise(generator, 5, 8)
    assert_close(F.centre_by_level(values, mask, torch.full((5,), 4)), F.whiten(values, mask))


def test_rows_that_are_alone_and_constant_in_their_level_get_zero():
    values = torch.tensor([[0.25, 0.25], [8.0, 8.0]])
    assert_close(F.centre_by_level(values, bools("11", "11"), torch.tensor([0, 1])), torch.zeros(2, 2))


def test_centring_adds_1e_8_to_the_variance():
    # As in whitening: variance 1e-8, so 1e-4 / sqrt(2e-8).
    values, expected = torch.tensor([[-1e-4, 1e-4]]), torch.tensor([[-1.0, 1.0]]) / math.sqrt(2)
    assert_close(F.centre_by_level(values, bools("11"), torch.tensor([0])), expected)


# --- generalised_advantages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        (1.0, [[-1.45118, -4.4557, 2.5396, 0.5249, -0.49]]),
        (0.7, [[-0.676979, -5.248167, 2.4846, 0.6704, -0.49]]),
        (0.4, [[0.56731, -6.042, 2.3431, 0.815, -0.49]]),
    ],
)
def test_advantages_are_those_of_rlax(lam, expected):
    # rlax multistep_test.py, truncated GAE, first row. They bootstrap from a last value of -1, discounted by .99;
    # our episode ends there, so that .99 * -1 is part of the last reward instead: -0.5 - 0.99.
    rewards, values = torch.tensor([[0.0, 0.0, 1.0, 0.0, -1.49]]), torch.tensor([[1.0, 4.0, -3.0, -2.0, -1.0]])
    actual, _ = F.generalised_advantages(rewards, values, bools("11111"), gamma=0.99, lam=lam)
    assert_close(actual, torch.tensor(expected), rtol=0, atol=1e-3)  # their tolerance


@pytest.mark.parametrize(
    ("lam", "expected"),
    [(1.0, [3.0, 2.0, 1.0, 0.0]), (0.7, [2.2899, 1.73, 1.0, 0.0]), (0.4, [1.725, 1.46, 1.0, 0.0])],
)
def test_advantages_are_those_of_rlax_when_the_episode_ends(lam, expected):
    # rlax multistep_test.py, truncated GAE, second row. Their discount 0 after the fourth step ends the episode, as
    # our mask does; the value 5 that follows must not be seen.
    rewards, values = torch.zeros(1, 5), torch.tensor([[-3.0, -2.0, -1.0, 0.0, 5.0]])
    actual, _ = F.generalised_advantages(rewards, values, bools("11110"), gamma=0.9, lam=lam)
    assert_close(actual, torch.tensor([[*expected, 0.0]]), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("gamma", "lam", "expected"),
    [(1.0, 1.0, [6.0, 5.0, 3.0]), (0.5, 1.0, [2.75, 3.5, 3.0]), (1.0, 0.5, [3.625, 4.25, 3.0])],
)
def test_returns_are_those_of_skyrl(gamma, lam, expected):
    # SkyRL test_ppo_utils.py, test_compute_gae_advantage_return, _gamma and _lam. Same convention as ours.
    rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 1.0, 1.5]])
    _, actual = F.generalised_advantages(rewards, values, bools("111"), gamma=gamma, lam=lam)
    assert_close(actual, torch.tensor([expected]))


def test_returns_are_those_of_torchtune():
    # torchtune test_rewards.py, TestEstimateAdvantages: gamma^3 lam^2, gamma^2 lam, gamma and 1. Same convention.
    values = rewards = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    _, actual = F.generalised_advantages(rewards, values, bools("1111"), gamma=0.9, lam=0.95)
    assert_close(actual, torch.tensor([[0.6579225, 0.7695, 0.9, 1.0]]))


def test_advantages_worked_by_hand_on_a_middle_stretch():
    # Last step: 4 - 2 = 2. Before it: 1 + .5 * 2 - 3 = -1, and -1 + .5 * .25 * 2 = -.75. Returns: -.75 + 3, 2 + 2.
    rewards, values = torch.tensor([[9.0, 1.0, 4.0, 9.0]]), torch.tensor([[8.0, 3.0, 2.0, 8.0]])
    advantages, returns = F.generalised_advantages(rewards, values, bools("0110"), gamma=0.5, lam=0.25)
    assert advantages.tolist() == [[0.0, -0.75, 2.0, 0.0]]
    assert returns.tolist() == [[0.0, 2.25, 4.0, 0.0]]


def loop_advantages(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Eq. 16 as it is printed, a sum over the future: A_t = sum_l (gamma lambda)^l delta_{t+l}."""
    ahead = [*values[1:], 0.0]
    deltas = [r + gamma * w - v for r, w, v in zip(rewards, ahead, values, strict=True)]
    return [sum((gamma * lam) ** i * d for i, d in enumerate(deltas[t:])) for t in range(len(deltas))]


@SEEDS
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.7, 0.0), (0.0, 0.7)])
def test_advantages_agree_with_the_sum_over_the_future(seed, gamma, lam):
    generator = seeded(seed)
    mask, rewards, values = random_mask(generator), noise(generator, 5, 8), noise(generator, 5, 8)
    expected = torch.zeros_like(values)
    for row, own in enumerate(mask):
        future = loop_advantages(rewards[row, own].tolist(), values[row, own].tolist(), gamma, lam)
        expected[row, own] = torch.tensor(future, dtype=torch.float64)
    advantages, returns = F.generalised_advantages(rewards, values, mask, gamma=gamma, lam=lam)
    assert_close(advantages, expected)
    assert_close(returns, torch.where(mask, expected + values, 0.0))


def test_advantages_leave_their_arguments_alone():
    rewards, values = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])
    F.generalised_advantages(rewards, values, bools("10"), gamma=0.9, lam=0.9)
    assert (rewards.tolist(), values.tolist()) == ([[1.0, 2.0]], [[3.0, 4.0]])


# --- explained_variance -----------------------------------------------------------------------------------------------


def test_explained_variance_is_that_of_scikit_learn():
    # sklearn.metrics.explained_variance_score, reference page: 0.957...; lagom's docstring prints all digits.
    predicted, true = torch.tensor([[2.5, 0.0, 2.0, 8.0, 50.0]]), torch.tensor([[3.0, -0.5, 2.0, 7.0, -50.0]])
    assert_close(F.explained_variance(predicted, true, bools("11110")), torch.tensor(0.9571734475374732))


def test_explained_variance_of_two_columns_is_that_of_scikit_learn():
    # The same page: columns (0.5, -1, 7) by (0, -1, 8) and (1, 1, -6) by (2, 2, -5), mean 0.98387...; the second
    # column is off by a constant only, so that it is explained wholly.
    columns = [([0.0, -1.0, 8.0], [0.5, -1.0, 7.0]), ([2.0, 2.0, -5.0], [1.0, 1.0, -6.0])]
    scores = [F.explained_variance(torch.tensor([p]), torch.tensor([t]), bools("111")).item() for p, t in columns]
    assert statistics.mean(scores) == pytest.approx(0.9838709677419355)
    assert scores[1] == pytest.approx(1)


@SEEDS
def test_explained_variance_agrees_with_the_statistics_module(seed):
    generator = seeded(seed)
    mask, values, returns = random_mask(generator), noise(generator, 5, 8), 2 + noise(generator, 5, 8)
    left = statistics.pvariance(chosen(returns - values, mask))
    expected = 1 - left / statistics.pvariance(chosen(returns, mask))
    assert F.explained_variance(values, returns, mask).item() == pytest.approx(expected)


@pytest.mark.parametrize("mask", ["111", "010", "000"])
def test_returns_that_do_not_vary_leave_nothing_to_explain(mask):
    values, returns = torch.tensor([[1.0, 2.0, 4.0]], requires_grad=True), torch.full((1, 3), 0.25)
    score = F.explained_variance(values, returns, bools(mask))
    score.backward()
    assert score.item() == 0
    assert values.grad.tolist() == [[0.0, 0.0, 0.0]]


def test_small_returns_still_count():
    # Standard deviation 1e-4, in binary rewards a success in 1e8: the predictions explain three quarters.
    returns = torch.tensor([[-1e-4, 1e-4]])
    assert_close(F.explained_variance(returns / 2, returns, bools("11")), torch.tensor(0.75))


# --- group_advantages -------------------------------------------------------------------------------------------------


def test_group_advantages_have_the_published_values():
    # SkyRL test_ppo_utils.py: scores 6, 3 | 9, 12 | 1 are centred to 1.5, -1.5 | -1.5, 1.5 (GRPO without the
    # division) and a group of one gets 0 (RLOO). Our standard deviation, divided by n, is 1.5 in both pairs.
    actual = F.group_advantages(torch.tensor([6.0, 3.0, 9.0, 12.0, 1.0]), torch.tensor([0, 0, 1, 1, 2]))
    assert_close(actual, torch.tensor([1.0, -1.0, -1.0, 1.0, 0.0]))


def test_group_advantages_worked_by_hand():
    # One success in four: mean 1/4, variance 3/16; 3/4 and -1/4 divided by sqrt(3) / 4. Groups need not be adjacent.
    scores, group = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 0.0]), torch.tensor([5, 5, -3, 5, 5, -3])
    low, high = -1 / math.sqrt(3), math.sqrt(3)
    assert_close(F.group_advantages(scores, group), torch.tensor([low, high, 1.0, low, low, -1.0]), rtol=1e-5, atol=0)


def test_leave_one_out_advantages_of_pairs_are_their_differences_and_a_group_of_one_gets_none():
    actual = F.leave_one_out_advantages(torch.tensor([6.0, 3.0, 9.0, 12.0, 1.0]), torch.tensor([0, 0, 1, 1, 2]))
    assert_close(actual, torch.tensor([3.0, -3.0, -3.0, 3.0, 0.0]))


def test_leave_one_out_advantages_worked_by_hand():
    # One success in four: 1 - 0 for it, 0 - 1/3 for the others.
    scores, group = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 0.0]), torch.tensor([5, 5, -3, 5, 5, -3])
    expected = torch.tensor([-1 / 3, 1.0, 1.0, -1 / 3, -1 / 3, -1.0])
    assert_close(F.leave_one_out_advantages(scores, group), expected)


@SEEDS
def test_group_advantages_agree_with_the_statistics_module(seed):
    generator = seeded(seed)
    scores, group = noise(generator, 20), torch.randint(0, 6, (20,), generator=generator)
    members = {g: [s for s, h in zip(scores.tolist(), group.tolist(), strict=True) if h == g] for g in group.tolist()}
    expected = [
        (s - statistics.mean(members[g])) / (statistics.pstdev(members[g]) + 1e-6)
        for s, g in zip(scores.tolist(), group.tolist(), strict=True)
    ]
    assert_close(F.group_advantages(scores, group), torch.tensor(expected, dtype=torch.float64))


def test_equal_scores_give_no_signal():
    actual = F.group_advantages(torch.tensor([1.0, 1.0, 0.0, 0.0, 0.5]), torch.tensor([0, 0, 1, 1, 2]))
    assert actual.tolist() == [0.0] * 5


@pytest.mark.parametrize("size", [2, 3, 5, 8, 16])
@pytest.mark.parametrize("score", [-0.3, 0.1, 0.7, 0.9])
def test_equal_scores_give_no_signal_however_their_mean_is_rounded(score, size):
    # in float32 the sum of eight times -0.3 is -2.3999999, so that the mean is 3e-8 off: 0.03 when divided by 1e-6
    scores, group = torch.tensor([*[score] * size, 0.0, 1.0]), torch.tensor([*[4] * size, 2, 2])
    assert F.group_advantages(scores, group)[:size].tolist() == [0.0] * size
    assert F.leave_one_out_advantages(scores, group).tolist() == [0.0] * size + [-1.0, 1.0]
    assert F.recovery_credit(scores, torch.arange(size + 2), group == 4).tolist() == [0.0] * (size + 2)


def test_group_advantages_add_1e_6_to_the_standard_deviation():
    # Scores +-1e-6 have a standard deviation of 1e-6: 1e-6 / (1e-6 + 1e-6).
    actual = F.group_advantages(torch.tensor([-1e-6, 1e-6]), torch.tensor([0, 0]))
    assert_close(actual, torch.tensor([-0.5, 0.5]), rtol=1e-4, atol=0)
