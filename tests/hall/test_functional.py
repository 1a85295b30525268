"""The kernels against numbers worked by hand or published by others, and against slow loops over the definitions.

Each source is named beside its numbers. Where a peer's convention differs from ours, the comment says how the data
were adapted. The loops use ``math`` and ``statistics`` on Python floats, and the definition rather than our recursion.
"""

import math
import statistics

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rrl import functional as F

SEEDS = pytest.mark.parametrize("seed", range(5))


def bools(*rows: str) -> Tensor:
    """A mask from rows of 0 and 1."""
    return torch.tensor([[cell == "1" for cell in row] for row in rows])


def random_mask(generator: torch.Generator, rows: int = 5, time: int = 8) -> Tensor:
    """One contiguous stretch a row, of any length but 0 in the first row."""
    edges = torch.randint(0, time + 1, (rows, 2), generator=generator).sort(-1).values
    edges[0] = torch.tensor([1, time - 1])
    steps = torch.arange(time)
    return (steps >= edges[:, :1]) & (steps < edges[:, 1:])


def noise(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers in double precision."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    """A generator of our own."""
    return torch.Generator().manual_seed(seed)


def chosen(values: Tensor, mask: Tensor) -> list[float]:
    """The masked cells as Python floats."""
    return [v for v, m in zip(values.flatten().tolist(), mask.flatten().tolist(), strict=True) if m]


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


# --- kl_estimate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("k1", [-1.0, 14.0, 29.0]), ("k2", [0.5, 98.0, 420.5]), ("k3", [0.7183, 13.0, 28.0])],
)
def test_kl_estimates_are_those_of_nemo_rl(kind, expected):
    # NVIDIA NeMo-RL test_loss_functions.py, test_calculate_kl without clamps.
    logprobs, ref_logprobs = torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([0.0, -15.0, -30.0])
    assert_close(F.kl_estimate(logprobs, ref_logprobs, kind), torch.tensor(expected), rtol=1e-4, atol=0)


def test_k3_is_that_of_nemo_rl_on_both_sides():
    # NVIDIA NeMo-RL test_loss_functions.py, test_clipped_pg_loss_kl_penalty: 1/e, 0 and e - 2.
    actual = F.kl_estimate(torch.tensor([0.0, -1.0, -2.0]), torch.tensor([-1.0, -1.0, -1.0]), "k3")
    assert_close(actual, torch.tensor([math.exp(-1), 0.0, math.e - 2]))


@pytest.mark.parametrize(("kind", "bias", "spread"), [("k1", 0.0, 2.0), ("k2", 0.25, 1.73), ("k3", 0.0, 1.7)])
def test_kl_estimators_have_the_bias_and_spread_in_schulmans_table(kind, bias, spread):
    # Schulman, "Approximating KL Divergence": x from N(0, 1) against N(1, 1), true KL 0.5; bias and standard
    # deviation, both as multiples of the true KL. The expectations are sums over a fine grid here.
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    drawn = torch.exp(-(x**2) / 2) / torch.exp(-(x**2) / 2).sum()
    estimate = F.kl_estimate(-(x**2) / 2, -((x - 1) ** 2) / 2, kind)
    mean = (drawn * estimate).sum()
    assert ((mean - 0.5) / 0.5).item() == pytest.approx(bias, abs=1e-6)
    assert ((drawn * (estimate - mean) ** 2).sum().sqrt() / 0.5).item() == pytest.approx(spread, abs=0.01)


@SEEDS
@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_k1_and_k3_are_unbiased_for_the_policys_own_tokens(seed, kind):
    policy, reference = noise(seeded(seed), 2, 6).log_softmax(-1)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=policy), torch.distributions.Categorical(logits=reference)
    )
    assert_close((policy.exp() * F.kl_estimate(policy, reference, kind)).sum(), expected)


def test_k3_keeps_its_precision_where_the_policies_almost_agree():
    # exp(x) - 1 - x = x^2 / 2 + x^3 / 6 + ...; at 1e-3 single precision would lose a tenth of it in exp(x) - 1.
    actual = F.kl_estimate(torch.tensor(0.0), torch.tensor(1e-3), "k3")
    assert_close(actual, torch.tensor(5.00167e-7), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("kind", "expected"), [("k1", [1.0, 1.0]), ("k2", [-1.0, 2.0]), ("k3", [1 - math.e, 0.864665])]
)
def test_kl_estimates_have_gradients_worked_by_hand(kind, expected):
    # In the policy's log-probability they are 1, -log r and 1 - r; here log r is 1 and -2.
    logprobs, reference = torch.tensor([-2.0, 0.0], requires_grad=True), torch.tensor([-1.0, -2.0])
    F.kl_estimate(logprobs, reference, kind).sum().backward()
    assert_close(logprobs.grad, torch.tensor(expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
@pytest.mark.parametrize("log_r", [100.0, -100.0, math.inf, -math.inf])
def test_kl_estimates_stay_finite_at_any_distance(kind, log_r):
    assert F.kl_estimate(torch.tensor(0.0), torch.tensor(log_r), kind).isfinite()


# --- clipped_policy_loss ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sign", "expected"), [(1.0, -0.17117467), (-1.0, 0.19333333)])
def test_the_policy_loss_is_that_of_rlax(sign, expected):
    # rlax policy_gradients_test.py, ClippedSurrogatePGLossTest: the mean over three steps, so that a weight is 1/3.
    # Their tolerance is 1e-4; the first number is exactly -(0.3 + 0.2 + 0.1 / e^2) / 3 = -0.1711778.
    logits = torch.tensor([[[1.0, 1.0, 1.0], [2.0, 0.0, 0.0], [-1.0, -2.0, -3.0]]])
    old_logits = torch.tensor([[[1.0, 1.0, 1.0], [2.0, 0.0, 0.0], [-3.0, -2.0, -1.0]]])
    new, old = (F.token_logprobs(z, torch.tensor([[0, 1, 2]])) for z in (logits, old_logits))
    loss, _ = F.clipped_policy_loss(
        new, old, sign * torch.tensor([[0.3, 0.2, 0.1]]), torch.full((1, 3), 1 / 3), clip_ratio=0.2
    )
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_the_policy_loss_is_that_of_nemo_rl():
    # NVIDIA NeMo-RL test_loss_functions.py, test_clipped_pg_loss_ppo_clipping: ratios 0.5, 1 and 1.5 give per-token
    # losses -0.5, 1 and -2.4, with mean -0.6333. Only the last is clipped.
    new, old = torch.tensor([[-1.69315, -1.0, -0.59453]]), torch.full((1, 3), -1.0)
    loss, clipped = F.clipped_policy_loss(
        new, old, torch.tensor([[1.0, -1.0, 2.0]]), torch.full((1, 3), 1 / 3), clip_ratio=0.2
    )
    assert loss.item() == pytest.approx(-0.6333, abs=1e-4)
    assert clipped.item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "loss", "clipped", "gradient"),
    [
        # torchtune test_ppo_loss.py: advantage 1, ratio e is clipped to 1.2, ratio e^0.1 is not clipped. Their
        # relative tolerance of 1e6 lets the sign of the second pass; here it is the negative, as in eq. 7.
        (1.0, 1.0, -1.2, 1.0, 0.0),
        (0.1, 1.0, -math.exp(0.1), 0.0, -math.exp(0.1)),
        # By hand. A low ratio of a good token and a high one of a bad token are never clipped; a low one of a bad is.
        (-1.0, 1.0, -math.exp(-1), 0.0, -math.exp(-1)),
        (1.0, -2.0, 2 * math.e, 0.0, 2 * math.e),
        (-1.0, -2.0, 1.6, 1.0, 0.0),
        (1.0, 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_clipping_stops_only_the_gain(log_ratio, advantage, loss, clipped, gradient):
    new, old = torch.tensor([[log_ratio - 3]], requires_grad=True), torch.tensor([[-3.0]])
    result = F.clipped_policy_loss(new, old, torch.tensor([[advantage]]), torch.ones(1, 1), clip_ratio=0.2)
    result[0].backward()
    assert [x.item() for x in (*result, new.grad)] == pytest.approx([loss, clipped, gradient], rel=1e-5)


def loop_policy_loss(new: Tensor, old: Tensor, advantages: Tensor, weight: Tensor, eps: float) -> tuple[float, float]:
    """The surrogate by cases: a good token gains up to 1 + eps, a bad one loses down to 1 - eps."""
    loss = clipped = 0.0
    for n, o, a, w in zip(*(x.flatten().tolist() for x in (new, old, advantages, weight)), strict=True):
        ratio = math.exp(n - o)
        bounded = min(ratio, 1 + eps) if a > 0 else max(ratio, 1 - eps)
        loss -= w * bounded * a
        clipped += w * (bounded != ratio)
    return loss, clipped


@SEEDS
def test_the_policy_loss_agrees_with_a_loop(seed):
    generator = seeded(seed)
    new, old, advantages = (noise(generator, 5, 8) for _ in range(3))
    weight = random_mask(generator) * noise(generator, 5, 8).abs()
    actual = F.clipped_policy_loss(new, old, advantages, weight, clip_ratio=0.3)
    assert [x.item() for x in actual] == pytest.approx(loop_policy_loss(new, old, advantages, weight, 0.3))


@SEEDS
def test_at_equal_policies_the_gradient_is_that_of_the_plain_policy_gradient(seed):
    old, advantages, weight = noise(seeded(seed), 3, 5, 8)
    new = old.clone().requires_grad_()
    F.clipped_policy_loss(new, old, advantages, weight, clip_ratio=0.2)[0].backward()
    assert_close(new.grad, -weight * advantages)


# --- truncated_importance ---------------------------------------------------------------------------------------------


def test_importance_is_the_trainers_probability_over_the_engines_up_to_a_cap():
    # Probabilities .5 and .25 (ratio 2), .2 and .4 (ratio 1/2), .9 and .3 (ratio 3, cut to 2.5), .1 and .1.
    ours = torch.tensor([[0.5, 0.2, 0.9, 0.1]]).log()
    engines = torch.tensor([[0.25, 0.4, 0.3, 0.1]]).log()
    found = F.truncated_importance(ours, engines, torch.ones(1, 4), cap=2.5)
    assert found.flatten().tolist() == pytest.approx([2.0, 0.5, 2.5, 1.0])


@pytest.mark.parametrize("garbage", [math.inf, -math.inf, math.nan, 1e30])
def test_where_nothing_is_weighed_the_importance_is_one(garbage):
    ours, engines = torch.tensor([[garbage, -1.0]]), torch.tensor([[-1.0, -1.0]])
    assert F.truncated_importance(ours, engines, torch.tensor([[0.0, 1.0]]), cap=2.0).tolist() == [[1.0, 1.0]]


@SEEDS
@pytest.mark.parametrize("cap", [1.0, 2.0, math.inf])
def test_equal_probabilities_have_exactly_the_importance_one(seed, cap):
    logprobs = noise(seeded(seed), 5, 8)
    assert torch.equal(F.truncated_importance(logprobs, logprobs, torch.ones(5, 8), cap=cap), torch.ones(5, 8))


# --- clipped_value_loss -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "clipped", "gradient"),
    [
        # By hand from detail 9, with eps = 0.5: half of the larger of (V - R)^2 and (near - R)^2.
        (1.0, 1.0, 2.0, 0.5, 0.0, -1.0),  # no step, no clip
        (1.4, 1.0, 3.0, 1.28, 0.0, -1.6),  # a step of 0.4 is allowed
        (2.0, 1.0, 3.0, 1.125, 1.0, 0.0),  # moved towards R beyond 1.5: (1.5 - 3)^2 counts and pushes no more
        (0.0, 1.0, -1.0, 1.125, 1.0, 0.0),  # the same downwards: (0.5 + 1)^2
        (2.0, 1.0, 0.0, 2.0, 0.0, 2.0),  # moved away from R: (2 - 0)^2 counts and pulls back
        (0.0, 1.0, 3.0, 4.5, 0.0, -3.0),  # the same downwards
    ],
)
def test_clipping_stops_the_critic_only_on_its_way_to_the_return(value, old, target, loss, clipped, gradient):
    values = torch.tensor([[value]], requires_grad=True)
    result = F.clipped_value_loss(
        values, torch.tensor([[old]]), torch.tensor([[target]]), torch.ones(1, 1), cliprange_value=0.5
    )
    result[0].backward()
    assert [x.item() for x in (*result, values.grad)] == pytest.approx([loss, clipped, gradient])


def loop_value_loss(values: Tensor, old: Tensor, returns: Tensor, weight: Tensor, eps: float) -> tuple[float, float]:
    """The larger of the two squared errors, cell by cell."""
    loss = clipped = 0.0
    for v, o, r, w in zip(*(x.flatten().tolist() for x in (values, old, returns, weight)), strict=True):
        near = o + max(-eps, min(eps, v - o))
        loss += w * max((v - r) ** 2, (near - r) ** 2) / 2
        clipped += w * (abs(near - r) > abs(v - r))
    return loss, clipped


@SEEDS
def test_the_value_loss_agrees_with_a_loop(seed):
    generator = seeded(seed)
    values, old, returns = (noise(generator, 5, 8) for _ in range(3))
    weight = random_mask(generator) * noise(generator, 5, 8).abs()
    actual = F.clipped_value_loss(values, old, returns, weight, cliprange_value=0.3)
    assert [x.item() for x in actual] == pytest.approx(loop_value_loss(values, old, returns, weight, 0.3))


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


def test_group_advantages_add_1e_6_to_the_standard_deviation():
    # Scores +-1e-6 have a standard deviation of 1e-6: 1e-6 / (1e-6 + 1e-6).
    actual = F.group_advantages(torch.tensor([-1e-6, 1e-6]), torch.tensor([0, 0]))
    assert_close(actual, torch.tensor([-0.5, 0.5]), rtol=1e-4, atol=0)
