"""A step of the optimisers: critic warm-up, schedules, clipping, and losses that are not finite."""

import math

import pytest
import torch

from fixtures.policy import CRITICS, KL, total_norm, trunk_of
from fixtures.training import (
    LORA,
    accumulate,
    apart,
    critic_head,
    critic_of,
    gradients,
    improve,
    make_policy,
    plain_descent,
    ppo,
    raw_batch,
    ready_batch,
    shaken,
    weights,
)
from rrl.errors import DivergenceError


@CRITICS
@pytest.mark.parametrize("changes", [{}, {"zero_stage": 2}, {"dtype": "bfloat16", "weight_decay": 0.1}])
def test_critic_warm_up_moves_the_critic_and_no_bit_of_the_actor(critic, changes):
    policy, objective = make_policy(critic=critic, **changes), ppo(**KL)
    batch, before = ready_batch(policy, objective), weights(policy)
    policy.train_critic_only(True)
    for _ in range(2):
        metrics = improve(policy, objective, batch, 3)
    assert (metrics.get("actor/lr", 0.0), metrics["critic/lr"]) == (0.0, pytest.approx(0.01))
    moved = apart(before, weights(policy))
    heads = {name for name in before if "head." in name and "lm_head" not in name}
    assert heads <= moved <= (heads if critic == "shared" else {name for name in before if name.startswith("1.")})
    assert any("trunk" in name for name in moved) == (critic == "own")


@CRITICS
def test_during_critic_warm_up_no_gradient_reaches_the_actor(critic):
    policy, objective = shaken(make_policy(critic=critic)), ppo(**KL)
    batch = ready_batch(policy, objective)
    policy.train_critic_only(True)
    accumulate(policy, objective, batch, 3)
    assert not any(p.grad is not None and p.grad.any() for p in trunk_of(policy))
    assert all(p.grad.any() for p in critic_head(policy).parameters())


def test_an_actor_that_waited_for_its_own_critic_starts_afresh():
    waiting, fresh, objective = make_policy(critic="own"), make_policy(critic="own"), ppo(**KL)
    batch = ready_batch(fresh, objective)
    waiting.train_critic_only(True)
    improve(waiting, objective, batch, 6)
    waiting.train_critic_only(False)
    for policy in (waiting, fresh):
        improve(policy, objective, batch, 6)
    assert not any(name.startswith("0.") for name in apart(weights(waiting), weights(fresh)))


@CRITICS
def test_schedules_go_on_while_the_actor_waits(critic):
    policy = make_policy(critic=critic, steps=4, lr_schedule="linear", actor_lr=0.1)
    batch = ready_batch(policy, ppo())
    policy.train_critic_only(True)
    for _ in range(2):
        improve(policy, ppo(), batch, 6)
    policy.train_critic_only(False)
    assert improve(policy, ppo(), batch, 6)["actor/lr"] == pytest.approx(0.05)


@CRITICS
def test_after_critic_warm_up_the_actor_learns_at_its_full_rate(critic):
    policy, objective = shaken(make_policy(critic=critic, actor_lr=0.01)), ppo()
    batch = ready_batch(policy, objective)
    policy.train_critic_only(True)
    improve(policy, objective, batch, 6)
    policy.train_critic_only(False)
    before = weights(policy)
    metrics = improve(policy, objective, batch, 6)
    assert metrics["actor/lr"] == 0.01
    assert any("lm_head" in name for name in apart(before, weights(policy)))


@CRITICS
def test_after_critic_warm_up_a_shared_trunk_hears_the_critic_again(critic):
    policy = shaken(make_policy(critic=critic))
    policy.train_critic_only(True)
    policy.train_critic_only(False)
    output = policy(raw_batch())
    policy.backward(0 * output.logprobs.sum(), output.values[raw_batch().mask].sum(), last=True)
    trunk = policy.actor.model if critic == "shared" else critic_of(policy).trunk
    assert any(p.grad is not None and p.grad.any() for p in trunk.parameters())


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [1.0, 1.0, 1.0, 1.0]),
        ("constant", 3, [0.25, 0.5, 0.75, 1.0]),
        ("linear", 0, [1.0, 0.75, 0.5, 0.25]),
        ("cosine", 0, [1.0, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4]),  # (1 + cos(k pi / 4)) / 2
        ("linear", 1, [0.5, 0.75, 0.5, 0.25]),
    ],
)
@CRITICS
def test_learning_rates_follow_the_schedule(schedule, warmup, expected, critic):
    policy = make_policy(
        critic=critic, steps=4, lr_schedule=schedule, lr_warmup_steps=warmup, actor_lr=0.1, critic_lr=0.2
    )
    batch = ready_batch(policy, ppo())
    metrics = [improve(policy, ppo(), batch, 6) for _ in range(4)]
    assert [m["actor/lr"] for m in metrics] == pytest.approx([0.1 * x for x in expected])
    assert [m["critic/lr"] for m in metrics] == pytest.approx([0.2 * x for x in expected])


def test_the_reported_learning_rate_is_the_one_used():
    policy = make_policy(steps=4, lr_schedule="linear", **plain_descent(0.01))
    batch = ready_batch(policy, ppo())
    for rate in (0.01, 0.0075):
        before = weights(policy)
        metrics = improve(policy, ppo(), batch, 6)
        change = total_norm(weights(policy)[name] - before[name] for name in before if name.startswith("0."))
        assert change == pytest.approx(rate * metrics["actor/grad_norm"], rel=1e-3)


def test_gradients_are_clipped_for_actor_and_critic_each():
    policy = make_policy(grad_clip=0.5, **plain_descent(0.01))
    batch, before = ready_batch(policy, ppo()), weights(policy)
    metrics = improve(policy, ppo(), batch, 6)
    for number, name in enumerate(("actor", "critic")):
        change = total_norm(x - before[n] for n, x in weights(policy).items() if n.startswith(f"{number}."))
        assert metrics[f"{name}/grad_norm"] > 1
        assert change == pytest.approx(0.01 * 0.5, rel=1e-3)


def test_actor_and_critic_rates_are_their_own():
    policy = make_policy(critic="shared", actor_lr=0.0, critic_lr=0.01)
    batch, before = ready_batch(policy, ppo()), weights(policy)
    improve(policy, ppo(), batch, 6)
    assert apart(before, weights(policy)) == {"0.head.weight", "0.head.bias"}


def test_weights_decay_without_a_gradient():
    policy = make_policy(critic="none", actor_lr=0.1, weight_decay=0.5)
    before = weights(policy)
    policy.backward(0 * policy(raw_batch()).logprobs.sum(), torch.tensor(0.0), last=True)
    policy.step()
    assert all(torch.allclose(w, 0.95 * before[name]) for name, w in weights(policy).items())  # 1 - 0.1 * 0.5


def test_every_step_makes_a_new_version():
    policy = make_policy()
    batch = ready_batch(policy, ppo())
    for _ in range(2):
        improve(policy, ppo(), batch, 6)
    assert policy.version == 2


def test_training_needs_no_global_random_numbers():
    def after_two_steps():
        policy, objective = make_policy(lora=LORA, head_size=4), ppo()
        batch = ready_batch(policy, objective)
        torch.rand(torch.randint(1, 9, ()))
        improve(policy, objective, batch, 3)
        return weights(policy)

    assert apart(after_two_steps(), after_two_steps()) == set()


@pytest.mark.parametrize("bad", ["actor", "critic"])
def test_a_loss_that_is_not_a_number_stops_training_before_it_harms(bad):
    policy, before, nan = make_policy(), weights(make_policy()), torch.tensor(math.nan)
    output = policy(raw_batch())
    losses = {"actor": output.logprobs.sum(), "critic": output.values.sum()}
    losses[bad] = losses[bad] * nan
    with pytest.raises(DivergenceError, match=f"{bad} nan"):
        policy.backward(losses["actor"], losses["critic"], last=True)
    assert apart(before, weights(policy)) == set() and not any(g.any() for g in gradients(policy).values())


@pytest.mark.parametrize("bad", ["actor", "critic"])
def test_a_gradient_that_is_not_a_number_stops_training_before_it_harms(bad):
    policy = shaken(make_policy())
    before, output = weights(policy), policy(raw_batch())
    losses = {"actor": output.logprobs[raw_batch().mask].sum(), "critic": output.values[raw_batch().mask].sum()}
    losses[bad] = losses[bad] + (losses[bad] - losses[bad].detach()).sqrt()  # 0, of infinite slope
    policy.backward(losses["actor"], losses["critic"], last=True)
    with pytest.raises(DivergenceError, match=f"gradient of the {bad}"):
        policy.step()
    assert apart(before, weights(policy)) == set()


@pytest.mark.parametrize("changes", [{"zero_stage": 1}, {"zero_stage": 2}, {"dtype": "bfloat16"}])
def test_an_infinite_gradient_is_refused_under_every_optimiser(changes):
    policy = shaken(make_policy(critic="shared", **changes))
    before, loss = weights(policy), policy(raw_batch()).logprobs[raw_batch().mask].sum()
    policy.backward(loss + (loss - loss.detach()).sqrt(), torch.tensor(0.0), last=True)
    with pytest.raises(DivergenceError, match="gradient of the actor"):
        policy.step()
    assert apart(before, weights(policy)) == set()
