"""The gradient of the policy: what it consists of, and what must not change it."""

import math

import pytest
import torch
from torch.testing import assert_close

from fixtures.policy import CLOSE, CRITICS, KL, total_norm
from fixtures.training import (
    LORA,
    accumulate,
    acted,
    apart,
    gradients,
    improve,
    loss_kl,
    make_policy,
    padded,
    plain_descent,
    poison,
    ppo,
    raw_batch,
    ready_batch,
    shaken,
    tiny,
    weights,
)
from rrl.types import PolicyOutput

KL_IN_LOSS = {"kl": loss_kl(0.1, "k2"), "entropy_coef": 0.01}


def test_the_policy_gradient_is_that_of_the_actions_alone():
    policy, objective = make_policy(critic="none", temperature=0.7), ppo()
    batch = ready_batch(policy, objective)
    output = policy(batch)
    actor_loss, _, _ = objective.loss(batch, PolicyOutput(output.logprobs, output.entropy, batch.values))
    policy.backward(actor_loss, torch.tensor(0.0), last=True)
    model = tiny()
    for b, t in batch.mask.nonzero().tolist():  # at ratio one, d(ratio) = d(log pi)
        logits = model(input_ids=batch.tokens[b : b + 1, :t]).logits[0, -1] / 0.7
        (-batch.weight[b, t] * batch.advantages[b, t] * logits.log_softmax(-1)[batch.tokens[b, t]]).backward()
    for ours, slow in zip(policy.actor.model.parameters(), model.parameters(), strict=True):
        assert_close(ours.grad, slow.grad, **CLOSE)


@pytest.mark.parametrize("kl", [KL, KL_IN_LOSS])
def test_the_loss_gives_prompt_prefix_and_padding_no_gradient_of_their_own(kl):
    policy, objective = shaken(make_policy(reference=True)), ppo(**kl)
    batch = ready_batch(policy, objective)
    cells = [x.detach().requires_grad_() for x in (batch.old_logprobs + 0.01, batch.old_logprobs, batch.values + 0.01)]
    sum(objective.loss(batch, PolicyOutput(*cells))[:2]).backward()
    for cell in cells:
        assert not cell.grad[~batch.mask].any()
        assert (cell.grad[batch.mask] != 0).all()


@pytest.mark.parametrize("garbage", [1e9, math.inf, math.nan])
def test_garbage_outside_the_mask_changes_no_gradient(garbage):
    policy, objective = make_policy(reference=True), ppo(**KL_IN_LOSS)
    batch = ready_batch(policy, objective)
    names = ("rewards", "old_logprobs", "ref_logprobs", "values", "advantages", "returns")
    accumulate(policy, objective, batch, 6)
    clean = gradients(policy)
    policy.step()
    dirty = make_policy(reference=True)
    accumulate(dirty, objective, poison(batch, garbage, names), 6)
    assert apart(clean, gradients(dirty)) == set()


def test_a_shared_network_gets_the_sum_of_both_losses_gradients():
    def gradient(actor, critic):
        policy = shaken(make_policy(critic="shared"))
        actor_loss, critic_loss, _ = ppo().loss(batch, policy(batch))
        policy.backward(actor * actor_loss, critic * critic_loss, last=True)
        return gradients(policy)

    batch = ready_batch(shaken(make_policy(critic="shared")), ppo())
    actor, critic, both = gradient(1, 0), gradient(0, 1), gradient(1, 1)
    assert all(torch.allclose(both[name], actor[name] + critic[name], **CLOSE) for name in both)
    assert min(total_norm(part.values()) for part in (actor, critic)) > 0.1


@CRITICS
@pytest.mark.parametrize("size", [1, 3])
def test_the_micro_batch_changes_neither_gradient_nor_step(critic, size):
    changes, objective = {"critic": critic, "reference": True, **plain_descent()}, ppo(**KL_IN_LOSS)
    whole, parts = (shaken(make_policy(**changes)) for _ in range(2))
    batch = ready_batch(whole, objective)
    expected, actual = improve(whole, objective, batch, 6), improve(parts, objective, batch, size)
    assert actual == pytest.approx(expected, rel=1e-4)
    for name, weight in weights(parts).items():  # one part in 10,000 of rounding
        assert_close(weight, weights(whole)[name], rtol=1e-4, atol=1e-5)


def test_gradients_do_not_outlive_their_step():
    policy, objective = make_policy(actor_lr=0.0, critic_lr=0.0), ppo()
    batch = ready_batch(policy, objective)
    assert improve(policy, objective, batch, 2) == improve(policy, objective, batch, 2)


def test_padding_changes_no_gradient():
    objective = ppo(**KL)
    policies = [shaken(make_policy(reference=True)) for _ in range(2)]
    batch = ready_batch(policies[0], objective)
    for policy, rows in zip(policies, (batch, padded(batch, 4, garbage=7.0)), strict=True):
        actor_loss, critic_loss, _ = objective.loss(rows, policy(rows))
        policy.backward(actor_loss, critic_loss, last=True)
    narrow, wide = map(gradients, policies)
    assert all(torch.allclose(narrow[name], wide[name], rtol=1e-4, atol=1e-5) for name in narrow)


@pytest.mark.parametrize(
    ("critic", "stage"),
    [
        ("own", 1), ("shared", 2), ("own", 3),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("shared", 1), ("own", 2), ("shared", 3))),
    ],
)  # fmt: skip
def test_zero_stages_train_alike(critic, stage):
    changes, objective = {"critic": critic, "reference": True, "grad_clip": 1.0, **plain_descent()}, ppo(**KL)
    plain, sharded = make_policy(**changes), make_policy(zero_stage=stage, **changes)
    batch = ready_batch(plain, objective)
    for _ in range(2):
        assert improve(sharded, objective, batch, 2) == pytest.approx(improve(plain, objective, batch, 2), rel=1e-3)
    with plain.generation_model() as ours, sharded.generation_model() as theirs:
        assert all(map(torch.allclose, ours.parameters(), theirs.parameters()))
    assert_close(sharded.annotate(batch).values, plain.annotate(batch).values, **CLOSE)
    assert plain.annotate(batch).values[batch.mask].abs().min() > 1e-3


def test_a_bucket_holds_what_is_trained_and_no_more():
    policy = make_policy(zero_stage=2, critic="own", lora=LORA)
    for engine in policy._engines.values():
        trained = sum(p.numel() for p in engine.module.parameters() if p.requires_grad)
        assert engine.zero_reduce_bucket_size() == trained > 0


@pytest.mark.parametrize(("critic", "stage"), [("own", 0), ("shared", 0), ("own", 1)])
def test_bfloat16_trains(critic, stage):
    policy, objective = make_policy(dtype="bfloat16", critic=critic, zero_stage=stage), ppo()
    batch = ready_batch(policy, objective)
    batch = batch.with_(advantages=acted(batch, torch.ones(batch.mask.shape)))
    for _ in range(3):
        metrics = improve(policy, objective, batch, 3)
    after = policy.annotate(batch)
    assert math.isfinite(metrics["actor/grad_norm"])
    assert (after.old_logprobs - batch.old_logprobs)[batch.mask].mean() > 0.1
    assert (after.values - batch.returns)[batch.mask].square().mean() < batch.returns[batch.mask].square().mean()
    assert {p.dtype for p in policy.actor.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("lora", [None, LORA])
def test_gradient_checkpointing_changes_no_gradient(lora):
    def gradient(checkpointing):
        policy = shaken(
            make_policy(model=tiny(layers=2), critic="shared", lora=lora, gradient_checkpointing=checkpointing)
        )
        accumulate(policy, ppo(), ready_batch(policy, ppo()), 3)
        return gradients(policy)

    plain, checkpointed = gradient(False), gradient(True)
    assert total_norm(plain.values()) > 1
    assert all(torch.allclose(plain[name], checkpointed[name], rtol=1e-4, atol=1e-5) for name in plain)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_checkpointing_works_on_a_model_as_it_was_loaded(checkpointing):
    policy = make_policy(model=tiny().eval(), gradient_checkpointing=checkpointing)  # from_pretrained gives eval mode
    calls = []
    policy.actor.model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    output = policy(raw_batch())
    policy.backward(output.logprobs.sum(), output.values.sum(), last=True)
    assert len(calls) == (2 if checkpointing else 1)
