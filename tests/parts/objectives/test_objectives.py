"""PPO and GRPO on numbers worked by hand."""

import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from fixtures.training import adaptive_kl, by_hand, grpo, loss_kl, poison, ppo, reward_kl
from rrl.parts.objectives.grpo import RLOO
from rrl.parts.objectives.kl import NoKL
from rrl.types import Batch, PolicyOutput

FILLED = ("rewards", "old_logprobs", "ref_logprobs", "values", "advantages", "returns")

# Three actions between a prompt token and a padding cell. log(pi / ref) is .5, -1 and 0.
EPISODE = by_hand(
    ["01110"],
    rewards=[[7.0, 0.0, 0.0, 1.0, 7.0]],
    old_logprobs=[[7.0, -1.0, -2.0, -0.5, 7.0]],
    ref_logprobs=[[9.0, -1.5, -1.0, -0.5, -9.0]],
    values=[[7.0, 0.2, 0.4, 0.6, 7.0]],
)
# Two actions of weight a half each.
PAIR = by_hand(
    ["011"],
    old_logprobs=[[0.0, -1.0, -2.0]],
    ref_logprobs=[[0.0, -1.2, -2.4]],
    advantages=[[0.0, 1.0, 3.0]],
    values=[[0.0, 0.5, 0.5]],
    returns=[[0.0, 1.0, 0.5]],
)


def output(logprobs: list[float], entropy: list[float], values: list[float]) -> PolicyOutput:
    """What a policy says of PAIR's two actions."""
    return PolicyOutput(*(torch.tensor([[0.0, *row]]).requires_grad_() for row in (logprobs, entropy, values)))


UNMOVED = ([-1.0, -2.0], [0.5, 1.5], [0.5, 0.5])


def advantages_of(rewards: list[float], levels: list[int], normalise: str, **rows: Any) -> list[float]:
    """Advantages of one-token responses, which without values are their rewards before normalisation."""
    batch = by_hand(["01"] * len(rewards), rewards=[[5.0, r] for r in rewards], level=levels, **rows)
    return ppo(advantage_norm=normalise).assign_credit(batch).advantages[:, 1].tolist()


# --- PPO: credit ------------------------------------------------------------------------------------------------------


def test_divergence_is_paid_for_token_by_token_and_the_outcome_comes_last():
    batch = ppo(kl=reward_kl(0.1)).assign_credit(EPISODE)
    assert_close(batch.rewards, torch.tensor([[0.0, -0.05, 0.1, 1.0, 0.0]]))


def test_credit_by_hand_without_discount():
    # deltas: -.05 + .4 - .2 = .15; .1 + .6 - .4 = .3; 1 + 0 - .6 = .4. Then A3 = .4, A2 = .3 + .5 A3, A1 = .15 + .5 A2.
    batch = ppo(kl=reward_kl(0.1), gamma=1.0, gae_lambda=0.5).assign_credit(EPISODE)
    assert_close(batch.advantages, torch.tensor([[0.0, 0.4, 0.5, 0.4, 0.0]]))
    assert_close(batch.returns, torch.tensor([[0.0, 0.6, 0.9, 1.0, 0.0]]))


def test_credit_by_hand_with_discount():
    # deltas: -.05 + .2 - .2 = -.05; .1 + .3 - .4 = 0; 1 + 0 - .6 = .4. Then A3 = .4, A2 = .5 A3, A1 = -.05 + .5 A2.
    batch = ppo(kl=reward_kl(0.1), gamma=0.5, gae_lambda=1.0).assign_credit(EPISODE)
    assert_close(batch.advantages, torch.tensor([[0.0, 0.05, 0.2, 0.4, 0.0]]))
    assert_close(batch.returns, torch.tensor([[0.0, 0.25, 0.6, 1.0, 0.0]]))


def test_divergence_in_the_loss_is_not_paid_for_as_well():
    batch = ppo(kl=loss_kl(0.1, "k2")).assign_credit(EPISODE)
    assert batch.rewards[batch.mask].tolist() == [0.0, 0.0, 1.0]


def test_whitened_advantages_have_mean_zero_and_variance_one():
    assert advantages_of([1.0, 3.0, 1.0, 3.0], [0, 0, 1, 1], "batch") == pytest.approx([-1.0, 1.0, -1.0, 1.0])


def test_advantages_by_level_are_centred_per_level_and_scaled_over_the_batch():
    # centred: -1, 1, -2, 2; their standard deviation is sqrt(10 / 4) = 1.5811.
    actual = advantages_of([1.0, 3.0, 10.0, 14.0], [0, 0, 1, 1], "level")
    assert actual == pytest.approx([-0.632456, 0.632456, -1.264911, 1.264911], abs=1e-5)


def test_advantages_by_origin_are_whitened_apart():
    # fresh 1, 3 and replayed 10, 16, 13: standard deviations 1 and sqrt(6) = 2.4495.
    replayed = [False, True, False, True, True]
    actual = advantages_of([1.0, 10.0, 3.0, 16.0, 13.0], [0] * 5, "origin", replayed=replayed)
    assert actual == pytest.approx([-1.0, -1.224745, 1.0, 1.224745, 0.0], abs=1e-5)


def test_advantages_of_a_states_continuations_are_relative_to_their_own_mean():
    # fresh 1, 3; states of two rollouts, 10, 14 and 1, 3; two of one rollout each, 5 and 9, which share the mean 7. The
    # distances are 2, 2, 1, 1, 2, 2, whose mean square is 3. A fresh start of a replayed state's group is no sibling.
    advantages = advantages_of(
        [1.0, 10.0, 3.0, 14.0, 1.0, 3.0, 5.0, 9.0], [0] * 8, "siblings",
        group=[7, 1, 3, 1, 2, 2, 3, 4], replayed=[False, True, False, True, True, True, True, True],
    )  # fmt: skip
    two, one = 1.154701, 0.577350
    assert advantages == pytest.approx([-1.0, -two, 1.0, two, -one, one, -two, two], abs=1e-5)


def test_advantages_may_stay_as_they_are():
    assert advantages_of([1.0, 3.0, 10.0, 14.0], [0, 0, 1, 1], "none") == [1.0, 3.0, 10.0, 14.0]


def test_returns_are_not_normalised():
    batch = by_hand(["01"] * 2, rewards=[[0.0, 1.0], [0.0, 3.0]])
    assert ppo(advantage_norm="batch").assign_credit(batch).returns[:, 1].tolist() == [1.0, 3.0]


@pytest.mark.parametrize("normalise", ["batch", "origin", "siblings", "level", "none"])
@pytest.mark.parametrize("garbage", [1e9, math.inf, math.nan])
def test_garbage_outside_the_mask_changes_no_credit(normalise, garbage):
    objective = ppo(kl=reward_kl(0.1), advantage_norm=normalise)
    clean, dirty = (objective.assign_credit(b) for b in (EPISODE, poison(EPISODE, garbage, FILLED)))
    for name in ("advantages", "returns", "rewards"):
        assert torch.equal(getattr(clean, name), getattr(dirty, name))


# --- PPO: the adaptive coefficient ------------------------------------------------------------------------------------


def diverged(*nats: float) -> Batch:
    """A response of two actions per number, which is its divergence from the reference."""
    return by_hand(["011"] * len(nats), old_logprobs=[[3.0, -1.0, -1.0 + n] for n in nats],
                   ref_logprobs=[[-3.0, -1.0, -1.0]] * len(nats))  # fmt: skip


@pytest.mark.parametrize(
    ("nats", "expected"),
    [
        ((2.2, 2.2, 2.2, 2.2), 0.104),  # 10 % over the target: 0.1 * (1 + 0.1 * 4 / 10)
        ((1.0, 2.8, 1.8, 2.0), 0.098),  # 5 % under, on average: 0.1 * (1 - 0.05 * 4 / 10)
        ((9.0, 9.0, 9.0, 9.0), 0.108),  # clipped at 0.2
        ((0.0, 0.0, 0.0, 0.0), 0.092),  # clipped at -0.2
        ((2.0, 2.0, 2.0, 2.0), 0.1),
        ((9.0, 9.0), 0.104),  # half as many rollouts, half the change
    ],
)
def test_the_coefficient_follows_the_divergence(nats, expected):
    objective = ppo(kl=adaptive_kl(0.1, 2.0, 10))
    objective.assign_credit(diverged(*nats))
    assert objective.state_dict()["kl"]["price"] == pytest.approx(expected)


def test_a_batch_is_paid_at_the_coefficient_from_before_it():
    objective = ppo(kl=adaptive_kl(0.1, 2.0, 10))
    rewards = [objective.assign_credit(diverged(9.0, 9.0, 9.0, 9.0)).rewards[0, 2].item() for _ in range(2)]
    assert rewards == pytest.approx([-0.9, -0.9 * 1.08])


def test_without_a_target_the_price_stays():
    objective = ppo(kl=reward_kl(0.1))
    objective.assign_credit(diverged(9.0, 9.0))
    assert (objective.state_dict(), objective.kl.price) == ({"kl": {}}, 0.1)


def test_garbage_outside_the_mask_does_not_move_the_coefficient():
    objective = ppo(kl=adaptive_kl(0.1, 2.0, 10))
    objective.assign_credit(poison(diverged(2.2, 2.2), math.nan, FILLED))
    assert objective.state_dict()["kl"]["price"] == pytest.approx(0.102)


def test_the_coefficient_is_saved_and_restored():
    first, second = (ppo(kl=adaptive_kl(0.1, 2.0, 10)) for _ in range(2))
    first.assign_credit(diverged(9.0, 9.0))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.assign_credit(EPISODE).rewards, second.assign_credit(EPISODE).rewards)


# --- PPO: loss --------------------------------------------------------------------------------------------------------


def test_losses_by_hand_before_the_policy_has_moved():
    actor_loss, critic_loss, metrics = ppo(vf_coef=2.0).loss(PAIR, output(*UNMOVED))
    assert actor_loss.item() == pytest.approx(-2.0)  # - (1 + 3) / 2
    assert critic_loss.item() == pytest.approx(0.125)  # 2 * (.5^2 / 2 + 0) / 2
    assert metrics == pytest.approx(
        {"actor/pg_loss": -2.0, "actor/pg_clipfrac": 0.0, "actor/ppo_kl": 0.0, "actor/entropy": 1.0,
         "critic/vf_loss": 0.0625, "critic/vf_clipfrac": 0.0}
    )  # fmt: skip


def test_losses_by_hand_after_the_policy_has_moved():
    # Ratios 1.5, clipped to 1.2, and 1. Values .9, clipped to .7: max(.1^2, .3^2) / 2; and .6: .1^2 / 2.
    moved = output([-1.0 + math.log(1.5), -2.0], [0.5, 1.5], [0.9, 0.6])
    actor_loss, critic_loss, metrics = ppo().loss(PAIR, moved)
    assert actor_loss.item() == pytest.approx(-(1.2 + 3.0) / 2)
    assert critic_loss.item() == pytest.approx((0.045 + 0.005) / 2)
    assert (metrics["actor/pg_clipfrac"], metrics["critic/vf_clipfrac"]) == (0.5, 0.5)
    assert metrics["actor/ppo_kl"] == pytest.approx((1.5 - 1 - math.log(1.5)) / 2)  # of KL(old, new)


def test_a_good_action_is_made_likelier_and_a_bad_one_less_likely():
    batch, moved = PAIR.with_(advantages=torch.tensor([[0.0, 1.0, -3.0]])), output(*UNMOVED)
    ppo().loss(batch, moved)[0].backward()
    assert moved.logprobs.grad.tolist() == [[0.0, -0.5, 1.5]]


def test_values_are_drawn_towards_returns():
    moved = output([-1.0, -2.0], [0.5, 1.5], [0.6, 0.6])  # returns are 1 and .5
    ppo(cliprange_value=9.0).loss(PAIR, moved)[1].backward()
    assert moved.values.grad.flatten().tolist() == pytest.approx([0.0, -0.2, 0.05])


def test_entropy_lowers_the_loss():
    moved = output(*UNMOVED)
    loss, _, _ = ppo(entropy_coef=0.1).loss(PAIR, moved)
    loss.backward()
    assert loss.item() == pytest.approx(-2.0 - 0.1 * 1.0)
    assert moved.entropy.grad.flatten().tolist() == pytest.approx([0.0, -0.05, -0.05])


def test_divergence_in_the_loss_raises_it():
    moved = output(*UNMOVED)  # log(pi / ref) is .2 and .4, so that k2 is .02 and .08 with slopes .2 and .4
    loss, _, metrics = ppo(kl=loss_kl(0.1, "k2")).loss(PAIR.with_(advantages=torch.zeros(1, 3)), moved)
    loss.backward()
    assert loss.item() == pytest.approx(0.1 * 0.05)
    assert metrics["actor/kl_loss"] == pytest.approx(0.05)
    assert moved.logprobs.grad.flatten().tolist() == pytest.approx([0.0, 0.01, 0.02])


def test_divergence_in_the_reward_is_not_in_the_loss():
    loss, _, metrics = ppo(kl=reward_kl(0.1)).loss(PAIR, output(*UNMOVED))
    assert loss.item() == pytest.approx(-2.0) and "actor/kl_loss" not in metrics


def test_each_token_counts_by_its_weight():
    batch = PAIR.with_(weight=torch.tensor([[0.0, 0.75, 0.25]]))
    actor_loss, critic_loss, metrics = ppo(entropy_coef=0.1).loss(batch, output(*UNMOVED))
    assert actor_loss.item() == pytest.approx(-(0.75 + 0.75) - 0.1 * (0.375 + 0.375))
    assert critic_loss.item() == pytest.approx(0.75 * 0.125)
    assert metrics["actor/entropy"] == pytest.approx(0.75)


@pytest.mark.parametrize("garbage", [1e9, math.inf, math.nan])
@pytest.mark.parametrize("objective", [ppo(kl=loss_kl(0.1, "k2"), entropy_coef=0.1), grpo(kl=loss_kl(0.1, "k3"))])
def test_garbage_outside_the_mask_changes_neither_loss_nor_gradient(objective, garbage):
    clean, dirty = output(*UNMOVED), output(*UNMOVED)
    for cell in (dirty.logprobs, dirty.entropy, dirty.values):
        cell.data[0, 0] = garbage
    ours = objective.loss(PAIR, clean)
    theirs = objective.loss(poison(PAIR, garbage, FILLED), dirty)
    assert ours == theirs
    for losses in (ours, theirs):
        losses[0].backward()
    assert torch.equal(clean.logprobs.grad, dirty.logprobs.grad)


# --- GRPO -------------------------------------------------------------------------------------------------------------

# Two starts with two responses each; the first one's scores are 1 and 0, the second one's both 1.
SIBLINGS = by_hand(
    ["0110", "0111", "0100", "0110"],
    rewards=[[5.0, 0.0, 1.0, 5.0], [5.0, 0.0, 0.0, 0.0], [5.0, 1.0, 5.0, 5.0], [5.0, 0.5, 0.5, 5.0]],
    group=[4, 4, 2, 2],
)


def test_a_response_is_credited_relative_to_its_siblings_at_every_token():
    advantages = grpo().assign_credit(SIBLINGS).advantages
    expected = [[0.0, 1.0, 1.0, 0.0], [0.0, -1.0, -1.0, -1.0], [0.0] * 4, [0.0] * 4]
    assert_close(advantages, torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_leave_one_out_compares_with_the_siblings_alone_and_learns_as_grpo():
    objective = RLOO(clip_ratio=0.2, importance_cap=None, recovery_coef=0.0, kl=NoKL())
    three = by_hand(["01"] * 3, rewards=[[0.0, 1.0], [0.0, 0.0], [0.0, 0.5]], group=[1, 1, 1])
    assert objective.assign_credit(three).advantages[:, 1].tolist() == pytest.approx([0.75, -0.75, 0.0])
    moved = output([-1.0 + math.log(1.5), -2.0], [0.5, 1.5], [0.0, 0.0])
    assert objective.loss(PAIR, moved) == grpo().loss(PAIR, moved)


def test_grpos_loss_by_hand():
    moved = output([-1.0 + math.log(1.5), -2.0], [0.5, 1.5], [0.0, 0.0])
    actor_loss, critic_loss, metrics = grpo().loss(PAIR, moved)
    assert actor_loss.item() == pytest.approx(-(1.2 + 3.0) / 2)
    assert critic_loss.item() == 0.0
    assert metrics.keys() == {"actor/pg_loss", "actor/pg_clipfrac", "actor/ppo_kl", "actor/entropy"}
    assert (metrics["actor/pg_clipfrac"], metrics["actor/entropy"]) == (0.5, 1.0)


def test_grpos_divergence_raises_the_loss():
    loss, _, metrics = grpo(kl=loss_kl(0.1, "k2")).loss(PAIR, output(*UNMOVED))
    assert loss.item() == pytest.approx(-2.0 + 0.1 * 0.05)
    assert metrics["actor/kl_loss"] == pytest.approx(0.05)


def test_grpo_is_paid_less_where_divergence_costs():
    # k1 is .5 and -1 at the first two actions of EPISODE: its score is 1 - .1 * .5 + .1 * 1 = 1.05, its sibling's 1.
    pair = by_hand(["0111", "0111"], rewards=[[0.0, 0.0, 0.0, 1.0]] * 2, group=[0, 0],
                   old_logprobs=[[0.0, -1.0, -2.0, -1.0], [0.0, -1.0, -1.0, -1.0]],
                   ref_logprobs=[[0.0, -1.5, -1.0, -1.0], [0.0, -1.0, -1.0, -1.0]])  # fmt: skip
    advantages = grpo(kl=reward_kl(0.1)).assign_credit(pair).advantages
    assert_close(advantages[:, 1], torch.tensor([1.0, -1.0]), rtol=1e-4, atol=1e-4)


def test_garbage_outside_the_mask_changes_no_relative_score():
    dirty = grpo().assign_credit(poison(SIBLINGS, math.nan, FILLED)).advantages
    assert torch.equal(dirty, grpo().assign_credit(SIBLINGS).advantages)


# --- what they need, and what they refuse -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [ppo, grpo])
def test_a_reference_is_needed_only_where_divergence_costs(make):
    costs = (NoKL(), reward_kl(0.1), adaptive_kl(0.1, 2.0, 10), loss_kl(0.1, "k2"))
    assert [make(kl=kl).needs_reference for kl in costs] == [False, True, True, True]


def test_ppo_trains_a_critic_and_grpo_none():
    assert ppo().needs_critic and not grpo().needs_critic


@pytest.mark.parametrize(
    ("name", "value"),
    [("gamma", 1.1), ("gamma", -0.1), ("gae_lambda", 1.1), ("clip_ratio", 0.0), ("cliprange_value", 0.0),
     ("vf_coef", -1.0), ("importance_cap", 0.0), ("importance_cap", -1.0),
     ("entropy_coef", -1.0)],
)  # fmt: skip
def test_ppo_refuses_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"^{name}: .*{value}"):
        ppo(**{name: value})


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: reward_kl(0.0), "^coef: expected a number > 0, got 0; kl=none lets divergence be free$"),
        (lambda: loss_kl(0.0, "k3"), "^coef: expected a number > 0, got 0; kl=none lets divergence be free$"),
        (lambda: reward_kl(-1.0), "^coef: expected a number > 0, got -1; kl=none lets divergence be free$"),
        (lambda: adaptive_kl(0.1, 0.0, 10), "^target: expected a number > 0, got 0"),
        (lambda: adaptive_kl(0.1, 1.0, 0), "^horizon: expected at least 1, got 0"),
    ],
)
def test_a_cost_of_divergence_refuses_numbers_out_of_range(make, fault):
    with pytest.raises(ValueError, match=fault):
        make()


def test_grpo_refuses_all_numbers_out_of_range_at_once():
    with pytest.raises(ValueError, match=r"^clip_ratio: expected a number > 0, got 0\.0\nimportance_cap: .* got -0.1$"):
        grpo(clip_ratio=0.0, importance_cap=-0.1)


# --- an engine that differs from the policy ---------------------------------------------------------------------------


def differing(objective, **changes):
    """Actor's loss and metrics of two tokens with advantages 1 and -2 that the engine found half and 4 times as likely.

    The policy is as it was when they were written, so that its ratio to that is 1.
    """
    old = torch.tensor([[-9.0, -1.0, -2.0]])
    engine = old - torch.tensor([[3.0, math.log(2), math.log(0.25)]])
    tensors = {"old_logprobs": old, "engine_logprobs": engine, "advantages": torch.tensor([[5.0, 1.0, -2.0]])}
    batch = by_hand(["011"], **{name: value.tolist() for name, value in (tensors | changes).items()})
    zeros = torch.zeros(1, 3)
    loss, _, metrics = objective.loss(batch, PolicyOutput(batch.old_logprobs, zeros, zeros))
    return loss, metrics


@pytest.mark.parametrize("make", [ppo, grpo])
@pytest.mark.parametrize(
    ("cap", "loss", "reported"),
    [
        (None, 0.5, {}),  # -(1 - 2) / 2
        (math.inf, -0.75, {"mean": 1.125, "capfrac": 0.0}),  # -(2 - 2 / 4) / 2
        (1.5, -0.5, {"mean": 0.875, "capfrac": 0.5}),  # -(1.5 - 2 / 4) / 2
    ],
)
def test_a_token_counts_as_much_likelier_as_the_policy_finds_it_up_to_the_cap(make, cap, loss, reported):
    found, metrics = differing(make(importance_cap=cap))
    assert found.item() == pytest.approx(loss)
    shown = {n.removeprefix("actor/importance_"): v for n, v in metrics.items() if n.startswith("actor/importance")}
    assert shown == pytest.approx(reported)


@pytest.mark.parametrize("make", [ppo, grpo])
def test_where_engine_and_policy_agree_the_correction_changes_no_bit(make):
    logprobs = torch.tensor([[-9.0, -1.2345678, -2.3456789]])
    advantages = torch.tensor([[5.0, 0.1234567, -0.7654321]])
    same = {"old_logprobs": logprobs, "engine_logprobs": logprobs, "advantages": advantages}
    losses = [differing(make(importance_cap=cap), **same)[0] for cap in (None, 1.0, 2.0, math.inf)]
    assert all(torch.equal(loss, losses[0]) for loss in losses)


@pytest.mark.parametrize("cap", [0.0, -1.0, math.nan])
def test_a_cap_is_above_zero(cap):
    for make in (ppo, grpo):
        with pytest.raises(ValueError, match=r"^importance_cap: expected a number > 0"):
            make(importance_cap=cap)
