"""Actor, critic and reference against slow loops over the raw model, and which networks there are."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from fixtures.policy import CLOSE, CRITICS, KL, trunk_of
from fixtures.training import (
    BOS,
    LORA,
    PAD,
    ROLLOUTS,
    acted,
    apart,
    critic_head,
    critic_of,
    improve,
    make_policy,
    padded,
    ppo,
    problem,
    raw_batch,
    ready_batch,
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
from rrl.errors import ConfigError
from rrl.training.policy_settings import LoRA
from rrl.types import PolicyOutput, State


def trunk_gradient_of_values(scale: float) -> torch.Tensor:
    """What the sum of values sends into the trunk, as one vector."""
    policy = shaken(make_policy(critic="shared", value_trunk_grad_scale=scale))
    output = policy(raw_batch())
    policy.backward(torch.tensor(0.0), output.values[raw_batch().mask].sum(), last=True)
    assert any(p.grad.any() for p in critic_head(policy).parameters())
    return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in trunk_of(policy)])


# --- what the policy says of tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_annotated_logprobs_are_the_models_own_one_position_at_a_time(temperature):
    policy = shaken(make_policy(model=tiny(layers=2), temperature=temperature))
    batch = policy.annotate(raw_batch())
    assert_close(acted(batch, batch.old_logprobs), slow_logprobs(policy.actor.model, batch, temperature), **CLOSE)
    rows = [(row, int(at)) for row in range(len(batch)) for at in batch.mask[row].nonzero()]
    entropies = []
    for row, at in rows:
        shares = torch.tensor(slow_distribution(policy.actor.model, batch.tokens[row, :at].tolist(), temperature))
        entropies.append(float(-(shares * shares.log()).sum()))
    assert_close(batch.entropies[batch.mask], torch.tensor(entropies), **CLOSE)


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
    for name in ("old_logprobs", "entropies", "ref_logprobs", "values"):
        assert_close(getattr(wide, name)[:, :-3], getattr(narrow, name), **CLOSE)


@pytest.mark.parametrize("size", [1, 2, 6])
def test_annotations_do_not_depend_on_the_micro_batch(size):
    policy = shaken(make_policy(micro_batch_size=size, reference=True))
    whole, batch = shaken(make_policy(micro_batch_size=100, reference=True)).annotate(raw_batch()), raw_batch()
    for name in ("old_logprobs", "entropies", "ref_logprobs", "values"):
        assert_close(acted(batch, getattr(policy.annotate(batch), name)), acted(batch, getattr(whole, name)), **CLOSE)


def test_inspect_scores_every_token_of_a_prefix_and_every_state_along_it():
    policy = shaken(make_policy(temperature=0.7))
    prompt, prefix = (BOS, 20, 31), (5, 6, 7)
    (scored,) = policy.inspect([State(problem(prompt), prefix)])
    row = [*prompt, *prefix]
    logprobs = [math.log(slow_distribution(policy.actor.model, row[:t], 0.7)[row[t]]) for t in (3, 4, 5)]
    assert scored.logprobs == pytest.approx(logprobs, rel=1e-4)
    shares = [torch.tensor(slow_distribution(policy.actor.model, row[:t], 0.7)) for t in (3, 4, 5)]
    assert scored.entropies == pytest.approx([float(-(each * each.log()).sum()) for each in shares], rel=1e-4)
    hidden = critic_of(policy).trunk(input_ids=torch.tensor([row])).last_hidden_state[0, 2:]
    assert scored.values == pytest.approx(critic_head(policy)(hidden).flatten().tolist(), rel=1e-4)


def test_inspect_does_not_mix_up_states_of_different_lengths():
    policy = shaken(make_policy(micro_batch_size=2))
    states = [State(problem((BOS, 20, 31)), (5,) * n) for n in (4, 0, 2)]
    together, alone = policy.inspect(states), [policy.inspect([state])[0] for state in states]
    assert [len(s.values) for s in together] == [5, 1, 3]
    assert [list(s.values) for s in together] == [pytest.approx(s.values, rel=1e-4) for s in alone]
    assert policy.inspect([]) == []


def test_inspect_does_not_ask_the_reference():
    policy, asked = make_policy(reference=True), []
    policy._reference.register_forward_hook(lambda *_: asked.append(1))
    policy.inspect([State(problem((BOS, 20, 31)), (5, 6))])
    assert not asked
    policy.annotate(raw_batch())
    assert asked


GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "vocab_size": 76}


def test_a_response_that_fills_a_model_of_learnt_positions_is_read():
    policy = make_policy(model=GPT2LMHeadModel(GPT2Config(**GPT2)), critic="own")
    full, shorter = policy.inspect([State(problem((BOS, 20, 31)), (5,) * n) for n in (29, 28)])
    assert [(len(s.logprobs), len(s.values)) for s in (full, shorter)] == [(29, 29), (28, 29)]  # of 32 positions


def test_dropout_of_the_model_is_off():
    model = GPT2LMHeadModel(GPT2Config(**GPT2, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)).train()
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


# --- adapters and saving ----------------------------------------------------------------------------------------------


def test_lora_on_layers_that_are_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"lora.target_modules: .*'foo'"):
        make_policy(lora=replace(LORA, target_modules=("foo",)))


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
