"""Actor, critic and reference against slow loops over the raw model, and what must not matter to a gradient."""

import math

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from fixtures.training import (
    BOS,
    LORA,
    PAD,
    ROLLOUTS,
    accumulate,
    acted,
    apart,
    critic_head,
    critic_of,
    gradients,
    improve,
    loss_kl,
    make_policy,
    padded,
    plain_descent,
    poison,
    ppo,
    problem,
    raw_batch,
    ready_batch,
    reward_kl,
    settings,
    shake,
    shaken,
    slow_distribution,
    slow_logprobs,
    slow_values,
    tiny,
    tokenizer,
    weights,
)
from rrl.collate import micro_batches
from rrl.errors import DivergenceError
from rrl.training.policy import DeepSpeedPolicy
from rrl.training.policy_settings import LoRA
from rrl.types import PolicyOutput, State

CRITICS = pytest.mark.parametrize("critic", ["own", "shared"])
KL = {"kl": reward_kl(0.1), "entropy_coef": 0.01}
KL_IN_LOSS = {"kl": loss_kl(0.1, "k2"), "entropy_coef": 0.01}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def total_norm(tensors) -> float:
    """Euclidean norm of all of them together."""
    return math.sqrt(sum(float(x.double().square().sum()) for x in tensors))


def trunk_gradient_of_values(scale: float) -> torch.Tensor:
    """What the sum of values sends into the trunk, as one vector."""
    policy = shaken(make_policy(critic="shared", value_trunk_grad_scale=scale))
    output = policy(raw_batch())
    policy.backward(torch.tensor(0.0), output.values[raw_batch().mask].sum(), last=True)
    assert any(p.grad.any() for p in critic_head(policy).parameters())
    return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in trunk_of(policy)])


def trunk_of(policy: DeepSpeedPolicy) -> list[torch.Tensor]:
    """The weights of the actor's language model."""
    return list(policy.actor.model.parameters())


# --- what the policy says of tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_annotated_logprobs_are_the_models_own_one_position_at_a_time(temperature):
    policy = shaken(make_policy(model=tiny(layers=2), temperature=temperature))
    batch = policy.annotate(raw_batch())
    assert_close(acted(batch, batch.old_logprobs), slow_logprobs(policy.actor.model, batch, temperature), **CLOSE)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_reference_logprobs_are_the_first_models(temperature):
    policy = shaken(make_policy(reference=True, temperature=temperature))
    batch = policy.annotate(raw_batch())
    assert_close(acted(batch, batch.ref_logprobs), slow_logprobs(tiny(), batch, temperature), **CLOSE)


@pytest.mark.parametrize("head_size", [0, 8])
def test_a_shared_critic_reads_the_actors_trunk_one_position_at_a_time(head_size):
    policy = shaken(make_policy(critic="shared", head_size=head_size))
    batch = policy.annotate(raw_batch())
    expected = slow_values(policy.actor.model.model, critic_head(policy), batch)
    assert_close(acted(batch, batch.values), expected, **CLOSE)


@pytest.mark.parametrize("head_size", [0, 8])
def test_an_own_critic_reads_its_own_trunk_one_position_at_a_time(head_size):
    policy = shaken(make_policy(critic="own", head_size=head_size))
    batch = policy.annotate(raw_batch())
    assert_close(acted(batch, batch.values), slow_values(critic_of(policy).trunk, critic_head(policy), batch), **CLOSE)
    assert not torch.equal(critic_of(policy).trunk.embed_tokens.weight, policy.actor.model.model.embed_tokens.weight)


def test_entropies_are_those_of_the_whole_distribution():
    policy, batch = make_policy(temperature=0.7), raw_batch()
    output = policy(batch)
    for b, t in batch.mask.nonzero().tolist():
        p = slow_distribution(policy.actor.model, batch.tokens[b, :t].tolist(), 0.7)
        assert output.entropy[b, t].item() == pytest.approx(-sum(x * math.log(x) for x in p), rel=1e-4)


@CRITICS
def test_a_forward_pass_for_training_says_what_annotate_said(critic):
    policy = shaken(make_policy(critic=critic, temperature=0.7))
    batch, output = policy.annotate(raw_batch()), policy(raw_batch())
    assert_close(acted(batch, output.logprobs), acted(batch, batch.old_logprobs), **CLOSE)
    assert_close(acted(batch, output.values), acted(batch, batch.values), **CLOSE)


@CRITICS
def test_a_value_is_read_before_its_token(critic):
    policy, batch = shaken(make_policy(critic=critic)), raw_batch()
    other = batch.with_(tokens=batch.tokens.index_put((torch.tensor(0), torch.tensor(4)), torch.tensor(60)))
    before, after = policy.annotate(batch).values[0], policy.annotate(other).values[0]
    assert torch.equal(before[:5], after[:5])
    assert (before[5:7] - after[5:7]).abs().min() > 1e-3


@CRITICS
def test_values_begin_at_zero(critic):
    assert not make_policy(critic=critic, head_size=8).annotate(raw_batch()).values.any()


def test_the_prefix_is_context():
    policy, batch = shaken(make_policy()), raw_batch()
    other = batch.with_(tokens=batch.tokens.index_put((torch.tensor(2), torch.tensor(3)), torch.tensor(60)))
    before, after = policy.annotate(batch), policy.annotate(other)
    assert batch.mask[2].nonzero().tolist() == [[6]]  # prompt of 3, prefix of 3, one action
    assert abs(before.old_logprobs[2, 6] - after.old_logprobs[2, 6]) > 1e-3
    assert abs(before.values[2, 6] - after.values[2, 6]) > 1e-3


@CRITICS
def test_padding_columns_change_nothing(critic):
    policy = shaken(make_policy(critic=critic, reference=True))
    narrow, wide = policy.annotate(raw_batch()), policy.annotate(padded(raw_batch(), 3))
    for name in ("old_logprobs", "ref_logprobs", "values"):
        assert_close(getattr(wide, name)[:, :-3], getattr(narrow, name), **CLOSE)


@pytest.mark.parametrize("size", [1, 2, 6])
def test_annotations_do_not_depend_on_the_micro_batch(size):
    policy = shaken(make_policy(micro_batch_size=size, reference=True))
    whole, batch = shaken(make_policy(micro_batch_size=100, reference=True)).annotate(raw_batch()), raw_batch()
    for name in ("old_logprobs", "ref_logprobs", "values"):
        assert_close(acted(batch, getattr(policy.annotate(batch), name)), acted(batch, getattr(whole, name)), **CLOSE)


def test_inspect_scores_every_token_of_a_prefix_and_every_state_along_it():
    policy = shaken(make_policy(temperature=0.7))
    prompt, prefix = (BOS, 20, 31), (5, 6, 7)
    (scored,) = policy.inspect([State(problem(prompt), prefix)])
    row = [*prompt, *prefix]
    logprobs = [math.log(slow_distribution(policy.actor.model, row[:t], 0.7)[row[t]]) for t in (3, 4, 5)]
    assert scored.logprobs == pytest.approx(logprobs, rel=1e-4)
    hidden = critic_of(policy).trunk(input_ids=torch.tensor([row])).last_hidden_state[0, 2:]
    assert scored.values == pytest.approx(critic_head(policy)(hidden).flatten().tolist(), rel=1e-4)


def test_inspect_does_not_mix_up_states_of_different_lengths():
    policy = shaken(make_policy(micro_batch_size=2))
    states = [State(problem((BOS, 20, 31)), (5,) * n) for n in (4, 0, 2)]
    together, alone = policy.inspect(states), [policy.inspect([state])[0] for state in states]
    assert [len(s.values) for s in together] == [5, 1, 3]
    assert [list(s.values) for s in together] == [pytest.approx(s.values, rel=1e-4) for s in alone]
    assert policy.inspect([]) == []


def test_dropout_of_the_model_is_off():
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "vocab_size": 76}
    model = GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)).train()
    policy = make_policy(model=model, critic="own")
    first, second = policy(raw_batch()), policy(raw_batch())
    assert torch.equal(first.logprobs, second.logprobs) and torch.equal(first.values, second.values)
    assert_close(acted(raw_batch(), first.logprobs), slow_logprobs(model.eval(), raw_batch()), **CLOSE)


@CRITICS
def test_dropout_that_is_no_module_is_off_too(critic):
    """Llama's attention reads a number of its own, not an nn.Dropout."""
    model = tiny(2).train()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    policy = make_policy(model=model, critic=critic)
    batch, output = policy.annotate(raw_batch()), policy(raw_batch())
    assert_close(acted(batch, output.logprobs), acted(batch, batch.old_logprobs), **CLOSE)
    if critic == "own":
        assert not any(layer.self_attn.attention_dropout for layer in critic_of(policy).trunk.layers)


# --- which networks there are -----------------------------------------------------------------------------------------


def test_no_reference_is_built_when_none_is_needed():
    policy = make_policy(reference=False)
    assert policy._reference is None
    assert not policy.annotate(raw_batch()).ref_logprobs.any()


def test_the_reference_stays_as_it_was_while_the_policy_learns():
    policy, objective = make_policy(reference=True), ppo(**KL)
    batch = ready_batch(policy, objective)
    for _ in range(3):
        improve(policy, objective, batch, 6)
    after = policy.annotate(batch)
    assert torch.equal(after.ref_logprobs, batch.ref_logprobs)
    assert (after.old_logprobs - batch.old_logprobs)[batch.mask].abs().max() > 0.1


@pytest.mark.parametrize("changes", [{}, {"dtype": "bfloat16"}, {"lora": LORA}])
def test_policy_and_reference_agree_exactly_at_the_start(changes):
    batch = make_policy(reference=True, **changes).annotate(raw_batch())
    assert batch.ref_logprobs[batch.mask].abs().min() > 0
    assert torch.equal(batch.old_logprobs, batch.ref_logprobs)


def test_without_a_critic_there_are_no_values():
    policy = make_policy(critic="none")
    assert policy(raw_batch()).values is None
    assert not policy.annotate(raw_batch()).values.any()


def test_an_own_critic_sends_nothing_into_the_actor():
    policy = shaken(make_policy(critic="own"))
    output = policy(raw_batch())
    policy.backward(0 * output.logprobs.sum(), output.values[raw_batch().mask].sum(), last=True)
    assert not any(p.grad is not None and p.grad.any() for p in trunk_of(policy))
    assert all(p.grad.any() for p in critic_head(policy).parameters())


def test_the_value_loss_leaves_a_cut_off_trunk_alone():
    assert not trunk_gradient_of_values(0.0).any()


def test_trunk_gradient_scales_what_values_send_into_the_trunk():
    whole, tenth = trunk_gradient_of_values(1.0), trunk_gradient_of_values(0.1)
    assert whole.abs().max() > 0.1
    assert_close(tenth, 0.1 * whole, rtol=1e-4, atol=1e-6)


def test_trunk_gradient_does_not_scale_what_the_actor_sends():
    def actor_gradient(scale):
        policy = shaken(make_policy(critic="shared", value_trunk_grad_scale=scale))
        policy.backward(policy(raw_batch()).logprobs[raw_batch().mask].sum(), torch.tensor(0.0), last=True)
        return torch.cat([p.grad.flatten() for p in trunk_of(policy)])

    assert_close(actor_gradient(0.0), actor_gradient(1.0), **CLOSE)


# --- the gradient -----------------------------------------------------------------------------------------------------


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


@CRITICS
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_stages_train_alike(critic, stage):
    changes, objective = {"critic": critic, "reference": True, "grad_clip": 1.0, **plain_descent()}, ppo(**KL)
    plain, sharded = make_policy(**changes), make_policy(zero_stage=stage, **changes)
    batch = ready_batch(plain, objective)
    for _ in range(3):
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


@CRITICS
@pytest.mark.parametrize("stage", [0, 1])
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


# --- the step ---------------------------------------------------------------------------------------------------------


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


# --- adapters and saving ----------------------------------------------------------------------------------------------


def test_lora_trains_adapters_only():
    policy, objective = make_policy(lora=LORA, critic="none", reference=True), ppo(**KL)
    values = torch.zeros(raw_batch().mask.shape)
    batch, before = ready_batch(policy, objective), weights(policy)
    for _ in range(2):
        output = policy(batch)
        policy.backward(
            objective.loss(batch, PolicyOutput(output.logprobs, output.entropy, values))[0], 0 * values.sum(), last=True
        )
        policy.step()
    assert apart(before, weights(policy)) == {name for name in before if "lora_" in name} != set()


def test_under_lora_the_reference_is_the_base_model():
    policy = make_policy(lora=LORA, reference=True)
    shake(policy.actor.model.base_model.model.model.layers[0].self_attn.q_proj.lora_B)
    batch = policy.annotate(raw_batch())
    assert policy._reference is None
    assert_close(acted(batch, batch.ref_logprobs), slow_logprobs(tiny(), batch), **CLOSE)
    assert (batch.old_logprobs - batch.ref_logprobs)[batch.mask].abs().max() > 1e-2


def test_the_adapters_dropout_is_on_in_training_only():
    policy = make_policy(lora=LoRA(rank=2, alpha=4.0, dropout=0.5, target_modules=("q_proj",)), critic="none")
    shake(policy.actor.model.base_model.model.model.layers[0].self_attn.q_proj.lora_B, scale=1.0)
    first, second = (policy.annotate(raw_batch()).old_logprobs for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(policy(raw_batch()).logprobs, policy(raw_batch()).logprobs)


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_saved_actor_loads_anywhere_and_says_the_same(lora, tmp_path):
    policy = make_policy(lora=lora)
    shake(policy.actor.model, scale=0.1)
    policy.save(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = raw_batch().tokens
    with policy.generation_model() as model:
        assert_close(loaded(input_ids=tokens).logits, model(input_ids=tokens).logits, **CLOSE)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer().get_vocab()
    assert not any("lora" in name for name, _ in loaded.named_parameters())


def test_saving_leaves_the_adapters_in_place(tmp_path):
    policy = shaken(make_policy(lora=LORA, critic="none"))
    before, said = weights(policy), policy.annotate(raw_batch()).old_logprobs
    policy.save(tmp_path)
    assert apart(before, weights(policy)) == set()
    assert torch.equal(policy.annotate(raw_batch()).old_logprobs, said)


def test_the_lent_model_is_in_evaluation_mode_and_makes_no_graph():
    policy = make_policy()
    with policy.generation_model() as model:
        assert not model.training
        assert not model(input_ids=torch.tensor([[BOS, 20]])).logits.requires_grad
    assert policy.actor.model.training


# --- small parts ------------------------------------------------------------------------------------------------------


def test_micro_batches_are_the_batch_in_order_without_needless_columns():
    batch = raw_batch()
    parts = micro_batches(batch, 4)
    assert [len(part) for part in parts] == [4, 2]
    assert [part.tokens.shape[1] for part in parts] == [8, 9]
    assert torch.equal(torch.cat([part.group for part in parts]), batch.group)
    assert parts[1].tokens[1].tolist() == [BOS, 33, 2] + [PAD] * 6


@pytest.mark.parametrize(
    ("name", "value"),
    [("actor_lr", -1.0), ("critic_lr", -1.0), ("weight_decay", -1.0), ("grad_clip", -1.0),
     ("lr_warmup_steps", -1), ("micro_batch_size", 0)],
)  # fmt: skip
def test_settings_refuse_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"^{name}: .*{value}"):
        settings(**{name: value})


def test_the_rollouts_of_these_tests_have_prefixes_and_many_lengths():
    assert {len(r.state.prefix) for r in ROLLOUTS} == {0, 1, 2, 3}
    assert len({len(r.actions) for r in ROLLOUTS}) == 4
