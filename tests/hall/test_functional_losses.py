"""Losses and estimates of the divergence, against numbers worked by hand or published by others."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fixtures.functional import SEEDS, noise, random_mask, seeded
from rrl import functional as F

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
