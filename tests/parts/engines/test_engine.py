"""Both engines: whose randomness they use, what they condition on, when they end, which weights they write with.

``by_hand`` writes one row at a time with the whole context in every forward pass and no cache, no padding, no batch.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from fixtures import replay
from fixtures.replay import BOS, EOS, WORDS, chain, engine, ids, problem, tiny
from rrl.parts.engines import hf
from rrl.parts.engines.hf import HFEngine, draw, end_tokens
from rrl.parts.engines.static import StaticHF
from rrl.training.models import LoadedModel
from rrl.types import Rollout, Sampling, State

PLAIN = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=12, stop=())
ONCE = pytest.mark.parametrize("kind", [HFEngine], indirect=True)
"""For what truncates, copies or refuses: the same code whatever the engine."""


@pytest.fixture(autouse=True, params=[HFEngine, StaticHF])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine of each test."""
    monkeypatch.setattr(replay, "KIND", request.param)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """A random model of eight words, in evaluation mode."""
    model, tokenizer = tiny(WORDS)
    return LoadedModel(model.eval(), tokenizer)


@pytest.fixture(scope="module")
def states() -> list[State]:
    """Twelve starts of unsorted lengths, two thirds of them with a prefix."""
    prompts = [(BOS, *(4 + (i * j) % 8 for j in range(1, 2 + i * 5 % 7))) for i in range(12)]
    return [State(problem(f"p{i}", prompt=p), prefix=(5, 9)[: i % 3]) for i, p in enumerate(prompts)]


@torch.no_grad()
def logits_by_hand(loaded: LoadedModel, state: State, actions: tuple[int, ...]) -> Tensor:
    """Logits [actions + 1, vocabulary] of the positions after prompt and prefix, from one plain forward pass."""
    context = (*state.problem.prompt, *state.prefix)
    logits = loaded.model(input_ids=torch.tensor([(*context, *actions)])).logits[0]
    return logits[len(context) - 1 :].float()


def by_hand(loaded: LoadedModel, state: State, noise: Tensor, sampling: Sampling = PLAIN) -> tuple[int, ...]:
    """The actions that this row of uniform numbers [time] draws."""
    actions: tuple[int, ...] = ()
    while EOS not in actions and len(state.prefix) + len(actions) < sampling.max_new_tokens:
        logits = logits_by_hand(loaded, state, actions)[-1:]
        actions += (int(draw(logits, noise[len(actions)].view(1), sampling)[0]),)
    return actions


def actions(rollouts: list[Rollout]) -> list[tuple[int, ...]]:
    return [rollout.actions for rollout in rollouts]


def start(tokenizer: Any, prompt: str, prefix: str = "") -> State:
    return State(problem(prompt=ids(tokenizer, prompt)), ids(tokenizer, prefix))


def write(loaded: LoadedModel, prompt: str, prefix: str = "", **settings: Any) -> tuple[str, bool]:
    """The response's text and whether it ended by itself."""
    (written,) = engine(loaded, **settings).generate([start(loaded.tokenizer, prompt, prefix)])
    return written.response, written.finished


# --- randomness -------------------------------------------------------------------------------------------------------


def test_generating_neither_reads_nor_moves_the_global_random_state(loaded, states):
    written = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        written.append(engine(loaded).generate(states))
        assert torch.equal(torch.get_rng_state(), before)
    assert written[0] == written[1]


def test_equal_seeds_write_equally_and_other_seeds_otherwise(loaded, states):
    first, again, other = (engine(loaded, seed=seed).generate(states) for seed in (1, 1, 2))
    assert first == again and actions(first) != actions(other)


def test_one_engine_writes_something_new_every_time(loaded, states):
    writer = engine(loaded)
    assert actions(writer.generate(states)) != actions(writer.generate(states))


def test_siblings_of_one_state_differ(loaded, states):
    assert len(set(actions(engine(loaded).generate(states[:1] * 10)))) > 5


def test_a_generator_of_the_callers_is_used_and_leaves_the_engines_own_untouched(loaded, states):
    writer = engine(loaded, seed=1)
    before = writer.state_dict()["generator"].clone()
    lent = writer.generate(states, generator=torch.Generator().manual_seed(2))
    assert torch.equal(writer.state_dict()["generator"], before)
    assert actions(lent) == actions(engine(loaded, seed=2).generate(states))


def test_a_restored_engine_writes_on_as_the_saved_one_would(loaded, states):
    saved, restored = engine(loaded, seed=1), engine(loaded, seed=2)
    saved.generate(states)
    restored.load_state_dict(saved.state_dict())
    assert restored.generate(states) == saved.generate(states)


# --- what a row depends on --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_loop(loaded: LoadedModel, states: list[State]) -> Callable[[Sampling], list[tuple[int, ...]]]:
    """What ``by_hand`` writes from all states, once for both engines."""
    noise = torch.rand(12, 12, generator=torch.Generator().manual_seed(3))
    return cache(lambda sampling: [by_hand(loaded, *each, sampling) for each in zip(states, noise, strict=True)])


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        *((kind, shape) for kind in (HFEngine, StaticHF) for shape in ({}, {"temperature": 0.7})),
        *((HFEngine, shape) for shape in ({"top_k": 3}, {"top_p": 0.6})),  # a third engine writes what is truncated
        (HFEngine, {"temperature": 1.5, "top_p": 0.9, "top_k": 5}),
    ],
    indirect=["kind"],
)
def test_rows_are_what_a_plain_loop_without_batch_cache_and_padding_writes(loaded, states, plain_loop, shape):
    writer = engine(loaded, seed=3, batch_size=7, **shape)
    expected = plain_loop(writer.sampling)
    assert actions(writer.generate(states)) == expected
    assert len({len(row) for row in expected}) > 3  # rows end at different times


def test_padding_moves_no_token_to_another_position(loaded, states):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=12, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.5)
    absolute = LoadedModel(GPT2LMHeadModel(config).eval(), loaded.tokenizer)  # Llama sees distances only
    noise = torch.rand(12, 12, generator=torch.Generator().manual_seed(3))
    expected = [by_hand(absolute, state, row) for state, row in zip(states, noise, strict=True)]
    assert actions(engine(absolute, seed=3).generate(states)) == expected


@pytest.mark.parametrize("batch_size", [1, 6, 11])
def test_the_batch_size_does_not_change_what_a_state_writes(loaded, states, batch_size):
    assert actions(engine(loaded, batch_size=batch_size).generate(states)) == actions(engine(loaded).generate(states))


def test_the_order_of_the_rows_does_not_change_what_a_state_writes(loaded, states):
    greedy = engine(loaded, temperature=0.0, batch_size=6)
    there, back = greedy.generate(states), greedy.generate(states[::-1])
    assert actions(there) == actions(back[::-1])
    assert [rollout.state for rollout in there] == states


def test_prompt_and_prefix_are_context(loaded):
    (whole,) = engine(loaded, temperature=0.0).generate([State(problem(prompt=(BOS, 4, 7)))])
    assert len(whole.actions) > 3 and len(set(whole.actions)) > 2
    states = [State(whole.state.problem, whole.actions[:k]) for k in range(len(whole.actions))]
    for rollout in engine(loaded, temperature=0.0).generate(states):
        assert (rollout.tokens, rollout.response) == (whole.tokens, whole.response)


def test_actions_hold_the_new_tokens_only_and_the_response_prefix_and_actions():
    loaded = chain(WORDS, "a b c d e")
    (written,) = engine(loaded).generate([start(loaded.tokenizer, "a", "b c")])
    assert written.actions == (*ids(loaded.tokenizer, "d e"), EOS)
    assert (written.response, written.state.prefix) == ("b c d e", ids(loaded.tokenizer, "b c"))


def test_no_states_no_rollouts(loaded):
    assert engine(loaded).generate([]) == []


# --- how it ends ------------------------------------------------------------------------------------------------------


def test_the_end_token_ends_a_response_and_nothing_follows_it(loaded, states):
    written = engine(loaded, max_response_length=20).generate(states * 8)
    assert {rollout.finished for rollout in written} == {True, False}
    for rollout in written:
        assert EOS not in rollout.actions[:-1] and rollout.finished == (rollout.actions[-1] == EOS)
        assert rollout.finished or len(rollout.tokens) == 20


@ONCE
def test_the_end_tokens_are_the_tokenizers_and_those_of_the_generation_config():
    model, tokenizer = tiny(WORDS)
    assert end_tokens(model, tokenizer) == {EOS}
    model.generation_config.eos_token_id = [7, 9]
    assert end_tokens(model, tokenizer) == {EOS, 7, 9}


def test_every_end_token_ends_a_response():
    loaded = chain(WORDS, "a b c d e")
    loaded.model.generation_config.eos_token_id = list(ids(loaded.tokenizer, "d"))
    assert write(loaded, "a") == ("b c", True)


def test_special_tokens_within_a_response_stay_visible():
    loaded = chain(WORDS, "a b <pad> c")
    assert write(loaded, "a")[0] == "b <pad> c"


@pytest.mark.parametrize(
    ("prefix", "limit", "response", "finished"),
    [("", 3, "b c d", False), ("b c", 3, "b c d", False), ("b c", 5, "b c d e f", False), ("b", 1, "b c", False),
     ("", 7, "b c d e f g h", False), ("", 8, "b c d e f g h", True), ("b c d e f", 8, "b c d e f g h", True)],
)  # fmt: skip
def test_the_length_limit_counts_the_prefix_but_leaves_one_token_to_write(prefix, limit, response, finished):
    assert write(chain(WORDS, "a b c d e f g h"), "a", prefix, max_response_length=limit) == (response, finished)


@pytest.mark.parametrize(
    ("stop", "response"),
    [(["d"], "b c d"), (["d e"], "b c d e"), (["e", "c d"], "b c d"), (["e d"], "b c d e f"), ([], "b c d e f")],
)
def test_a_response_ends_with_the_first_stop_text(stop, response):
    assert write(chain(WORDS, "a b c d e f"), "a", stop=tuple(stop)) == (response, True)


@pytest.mark.parametrize(("stop", "response"), [("é", "o é"), ("o é", "o é"), ("é!", "o é!"), ("ß", "o é!x")])
def test_a_stop_text_may_take_more_tokens_than_letters(stop, response):
    assert write(chain(None, "Go é!x"), "G", stop=(stop,)) == (response, True)


@pytest.mark.parametrize(
    ("prefix", "response"), [("b c", "b c d"), ("b", "b c d"), ("b c d", "b c d e f"), ("b c d e", "b c d e f")]
)
def test_a_stop_text_may_begin_in_the_prefix_but_must_end_after_it(prefix, response):
    assert write(chain(WORDS, "a b c d e f"), "a", prefix, stop=("c d",)) == (response, True)


def test_one_rows_stop_does_not_stop_the_others():
    loaded = chain(WORDS, "a b c d e")
    states = [start(loaded.tokenizer, "a"), start(loaded.tokenizer, "c")]
    assert [r.response for r in engine(loaded, stop=("c",)).generate(states)] == ["b c", "d e"]


# --- probabilities ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_logprobs_are_those_of_a_plain_forward_pass_under_the_temperature(loaded, states, temperature):
    for rollout in engine(loaded, temperature=temperature).generate(states):
        table = (logits_by_hand(loaded, rollout.state, rollout.actions)[:-1] / temperature).log_softmax(-1)
        expected = [float(row[token]) for row, token in zip(table, rollout.actions, strict=True)]
        assert rollout.logprobs == pytest.approx(expected, abs=1e-4)
        assert rollout.kept == pytest.approx([0.0] * len(expected), abs=1e-6)


@ONCE
def test_logprobs_and_kept_mass_together_are_those_of_the_whole_vocabulary(loaded, states):
    for rollout in engine(loaded, temperature=0.7, top_k=3).generate(states):
        table = (logits_by_hand(loaded, rollout.state, rollout.actions)[:-1] / 0.7).log_softmax(-1)
        whole = [float(row[token]) for row, token in zip(table, rollout.actions, strict=True)]
        assert [a + b for a, b in zip(rollout.logprobs, rollout.kept, strict=True)] == pytest.approx(whole, abs=1e-4)
        assert rollout.kept == pytest.approx(table.exp().topk(3).values.sum(-1).log().tolist(), abs=1e-4)


def test_a_sampling_of_the_callers_replaces_the_engines(loaded, states):
    greedy = Sampling(0.0, 1.0, 0, max_new_tokens=3, stop=())
    expected = engine(loaded, temperature=0.0, max_response_length=3).generate(states)
    assert actions(engine(loaded, seed=9).generate(states, greedy)) == actions(expected)


# --- weights ----------------------------------------------------------------------------------------------------------


def answers(version: int, **changes: str) -> list[str]:
    """What is written before and after the policy learns another answer and its version becomes ``version``."""
    old, new = chain(WORDS, "a b c"), chain(WORDS, "a d e")
    writer = engine(old, **changes)
    texts = [writer.generate([start(old.tokenizer, "a")])[0].response]
    old.model.load_state_dict(new.model.state_dict())
    writer._source.version = version
    return [*texts, writer.generate([start(old.tokenizer, "a")])[0].response]


@ONCE
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_copy_is_refreshed_when_the_version_has_moved_and_only_then(dtype):
    assert answers(0, dtype=dtype) == ["b c", "b c"]
    assert answers(1, dtype=dtype) == ["b c", "d e"]


def test_shared_weights_need_no_refreshing():
    assert answers(0) == ["b c", "d e"]


@ONCE
@pytest.mark.parametrize(("dtype", "expected"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_a_copy_has_its_own_precision_and_leaves_the_policys_alone(dtype, expected):
    loaded = chain(WORDS, "a b c")
    writer = engine(loaded, dtype=dtype)
    writer.generate([start(loaded.tokenizer, "a")])
    with writer._model() as model:
        assert model is not loaded.model and model.dtype == expected
    assert loaded.model.dtype == torch.float32


@ONCE
def test_a_bfloat16_copy_keeps_the_rotary_frequencies_whole():
    """Rounded to 8 bits they would be off by radians some hundred tokens into a response."""
    model, tokenizer = tiny(WORDS)
    model.model.rotary_emb.inv_freq *= 1 / 3
    writer = engine(LoadedModel(model, tokenizer), dtype="bfloat16")
    with writer._model() as copied:
        assert copied.dtype == torch.bfloat16
        assert torch.equal(copied.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


@ONCE
def test_starting_anew_with_other_weights_of_the_same_version_writes_with_those():
    writer = engine(chain(WORDS, "a b c"), dtype="float32")
    writer.generate([start(chain(WORDS, "a b c").tokenizer, "a")])
    other = engine(chain(WORDS, "a d e"))._source
    writer.start(other, chain(WORDS, "a d e").tokenizer, seed=0)
    assert writer.generate([start(writer._tokenizer, "a")])[0].response == "d e"


def test_a_rollout_carries_the_version_it_was_written_by():
    loaded = chain(WORDS, "a b c")
    writer = engine(loaded)
    writer._source.version = 7
    assert writer.generate([start(loaded.tokenizer, "a")])[0].version == 7


@ONCE
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", -0.1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("max_response_length", 0),
        ("batch_size", 0),
    ],
)
def test_an_impossible_setting_is_refused_by_name(loaded, key, value):
    with pytest.raises(ValueError, match=key):
        engine(loaded, **{key: value})


def test_a_rank_writes_what_it_will_verify(
    loaded: LoadedModel, states: list[State], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spread(items: Sequence[Any], work: Callable[[Sequence[Any]], list[Rollout]]) -> list[Rollout]:
        shares = [work(items[rank::2]) for rank in range(2)]
        return [shares[i % 2][i // 2] for i in range(len(items))]

    reported: list[Rollout] = []
    one = engine(loaded).generate(states)
    monkeypatch.setattr(hf, "spread", spread)
    two = engine(loaded).generate(states, written=reported.extend)
    assert actions(two) == actions(one)
    assert {r.state.problem.id for r in reported[:6]} == {state.problem.id for state in states[::2]}
