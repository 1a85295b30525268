"""The static engine: that it writes what the reference does, when rows enter and leave, and what it refuses."""

import logging
from typing import Any

import pytest
import torch
from transformers.integrations import sdpa_attention

from fixtures import replay
from fixtures.architectures import SERVED, build, disagreement, rows
from fixtures.replay import BOS, WORDS, chain, engine, ids, problem, tiny
from rrl.errors import DataError
from rrl.parts.engines import slots
from rrl.parts.engines.hf import HFEngine
from rrl.parts.engines.slots import Slots
from rrl.parts.engines.static import AutoHF, StaticHF
from rrl.training.models import LoadedModel
from rrl.types import Rollout, State

TOKENIZER = tiny(None).tokenizer
REMEMBER = {
    "falcon_h1": "FalconH1ForCausalLM (its memory: LinearAttentionAndFullAttentionLayer)",
    "lfm2": "Lfm2ForCausalLM (its memory: LinearAttentionLayer)",
    "mamba2": "Mamba2ForCausalLM (its memory: LinearAttentionLayer)",
    "qwen3_5_text": "Qwen3_5ForCausalLM (its memory: LinearAttentionLayer)",
    "qwen3_next": "Qwen3NextForCausalLM (its memory: LinearAttentionLayer)",
}
"""Architectures that remember more than keys and values."""
SERVED_STATIC = [kind for kind in SERVED if kind not in REMEMBER]


def of(kind: type[HFEngine], loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> HFEngine:
    monkeypatch.setattr(replay, "KIND", kind)
    return engine(loaded, **changes)


class Counting:
    """The forward passes of a model: the rows and columns that each was given."""

    def __init__(self, model: Any) -> None:
        self.passes: list[tuple[int, int]] = []
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: Any, __: Any, inputs: dict[str, Any]) -> None:
        self.passes.append(tuple(inputs["input_ids"].shape))


FEW_AT_ONCE = ("deepseek_v2", "falcon", "gemma3_text", "gpt2", "llama", "mixtral", "opt", "qwen3")
"""Of kinds that differ only in what happens within a layer one is tried by default; the others are slow."""
ALL_AT_ONCE = ("gemma3_text", "gpt2", "mixtral")
"""The kinds that are tried with places for all rows too: windows, places, experts."""


@pytest.mark.parametrize(
    ("kind", "batch_size", "piece"),
    [
        pytest.param(kind, places, piece, marks=[] if kind in quick else pytest.mark.slow)
        for places, piece, quick in ((3, 2048, FEW_AT_ONCE), (64, 50, ALL_AT_ONCE))
        for kind in SERVED_STATIC
    ],
)
def test_it_writes_what_the_reference_writes(
    kind: str, batch_size: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sliding windows, chunks, relative and absolute positions; with three places, rows enter beside longer ones.

    With places for all of them they are read in pieces of at most 50 tokens.
    """
    monkeypatch.setattr(slots, "PIECE", piece)
    loaded = LoadedModel(build(kind, **SERVED[kind]), TOKENIZER)
    settings = {"max_response_length": 16, "batch_size": batch_size}
    expected = of(HFEngine, loaded, monkeypatch, **settings).generate(rows())
    written = of(StaticHF, loaded, monkeypatch, **settings).generate(rows())
    assert [rollout.actions for rollout in written] == [rollout.actions for rollout in expected]
    for mine, theirs in zip(written, expected, strict=True):
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)
    assert disagreement(loaded, written) < 1e-5


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow if kind in ("qwen3_5_text", "qwen3_next") else []) for kind in REMEMBER],
)
def test_a_model_that_remembers_more_than_keys_and_values_is_refused_or_written_with_as_by_the_reference(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = LoadedModel(build(kind, **SERVED[kind]), TOKENIZER)
    with pytest.raises(DataError) as caught:
        of(StaticHF, loaded, monkeypatch).generate(rows())
    assert caught.value.faults == (
        f"engine: static cannot write with {REMEMBER[kind]}; expected keys and values; use engine=auto or hf",
    )
    expected = of(HFEngine, loaded, monkeypatch).generate(rows())
    with caplog.at_level(logging.INFO):
        writer = of(AutoHF, loaded, monkeypatch)
        assert writer.generate(rows()) == expected
        writer.generate(rows()[:1])
    lines = [record.message for record in caplog.records if record.name == "rrl.parts.engines.static"]
    assert lines == [f"engine: as engine=hf, since a static cache cannot serve {REMEMBER[kind]}"]


@pytest.mark.parametrize("engine", [HFEngine, StaticHF])
@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_a_row_that_has_ended_stays_in_the_models_context(
    kind: str, engine: type[HFEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of 39 tokens ends at its first one beside three that write 20 behind 20, which is all the context."""
    loaded = LoadedModel(build(kind, max_position_embeddings=40), TOKENIZER)
    prompt, settings = tuple(range(5, 25)), {"max_response_length": 20, "batch_size": 4}
    starts = [State(problem("long", prompt=prompt), prompt[:19])]
    starts += [State(problem(f"p{i}", prompt=prompt)) for i in range(3)]
    written = of(engine, loaded, monkeypatch, **settings).generate(starts)
    alone = of(engine, loaded, monkeypatch, **settings | {"batch_size": 1}).generate(starts)
    assert [len(rollout.actions) for rollout in written] == [1, 20, 20, 20]
    assert [rollout.actions for rollout in written] == [rollout.actions for rollout in alone]


def test_a_model_that_remembers_nothing_is_written_with_as_by_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = LoadedModel(build("openai-gpt"), TOKENIZER)
    with pytest.raises(DataError, match=r"static cannot write with OpenAIGPTLMHeadModel \(it remembers nothing\)"):
        of(StaticHF, loaded, monkeypatch).generate(rows())
    assert of(AutoHF, loaded, monkeypatch).generate(rows()) == of(HFEngine, loaded, monkeypatch).generate(rows())


def test_waiting_rows_take_the_places_of_those_that_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of 1 and of 7 tokens in turn, 8 rows, 2 places: by batches of two it would take 4 x 7 steps."""
    loaded = chain(WORDS, "a b c d e f g")
    counted = Counting(loaded.model)
    starts = [State(problem(f"p{i}", prompt=(BOS, *ids(loaded.tokenizer, "ga"[i % 2])))) for i in range(8)]
    written = of(StaticHF, loaded, monkeypatch, batch_size=2).generate(starts)
    assert [rollout.response for rollout in written] == ["", "b c d e f g"] * 4
    assert sum(columns == 2 for _, columns in counted.passes) <= 8  # a row enters with the first token drawn
    assert sum(columns == 1 for _, columns in counted.passes) == 2 * 6
    assert max(rows for rows, _ in counted.passes) == 2


def test_rows_leave_the_batch_when_no_row_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = chain(WORDS, "a b c d e f g")
    counted = Counting(loaded.model)
    starts = [State(problem(prompt=ids(loaded.tokenizer, word))) for word in ("f", "f", "f", "a")]
    of(StaticHF, loaded, monkeypatch, batch_size=4).generate(starts)
    assert counted.passes == [(2, 1), (4, 1), *[(1, 1)] * 5]  # f g <eos>, then b c d e f g <eos> alone


@pytest.mark.parametrize("places", [5, 12])
def test_a_context_that_several_rows_share_is_read_once(places: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts of 4, 15 and 24 tokens for four rows each: five places read two of them at first, twelve all three."""
    loaded = LoadedModel(build("llama", **SERVED["llama"]), TOKENIZER)
    starts = [start for start in rows()[:3] for _ in range(4)]
    settings = {"max_response_length": 16, "batch_size": places}
    expected = of(HFEngine, loaded, monkeypatch, **settings).generate(starts)
    counted = Counting(loaded.model)
    written = of(StaticHF, loaded, monkeypatch, **settings).generate(starts)
    assert counted.passes[0] == {5: (2, 15), 12: (3, 24)}[places]
    assert [rollout.actions for rollout in written] == [rollout.actions for rollout in expected]
    for mine, theirs in zip(written, expected, strict=True):
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)


def test_rows_are_read_in_pieces_of_so_many_tokens_the_longest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = tiny(WORDS)
    monkeypatch.setattr(slots, "PIECE", 8)
    contexts, counted = [(1, 4), (1, 4, 7, 5), (1, 6, 5), (1, 4)], Counting(model)
    logits = Slots(model.eval(), rows=4, capacity=7, pad=0).enter([2, 0, 1, 3], contexts)
    assert counted.passes == [(2, 4), (1, 2)]  # the context that occurs twice, once
    for context, row in zip(contexts, logits, strict=True):
        assert torch.allclose(row, model(input_ids=torch.tensor([context])).logits[0, -1], atol=1e-5)


def test_each_rollout_is_handed_on_when_it_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = chain(WORDS, "a b c d e f g")
    starts = [State(problem(word, prompt=ids(loaded.tokenizer, word))) for word in ("a", "f", "g")]
    reported: list[list[Rollout]] = []
    written = of(StaticHF, loaded, monkeypatch).generate(starts, written=lambda batch: reported.append(list(batch)))
    assert [[rollout.state.problem.id for rollout in batch] for batch in reported] == [["g"], ["f"], ["a"]]
    assert [rollout.response for rollout in written] == ["b c d e f g", "g", ""]


@pytest.mark.parametrize("long", [(4, 5, 6), (4, 5)])
def test_a_token_reads_keys_that_heads_share_without_copies(
    long: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of unequal length, which need a mask, and of equal length; copies would be made by ``repeat_kv``."""
    model = build("llama", **SERVED["llama"] | {"num_attention_heads": 4, "num_key_value_heads": 2}).eval()
    with torch.no_grad():
        expected = [model(torch.tensor([[*row, 9]])).logits[0, -1] for row in ((4, 5), long)]
        held = Slots(model, rows=2, capacity=8, pad=0)
        held.enter([0, 1], [(4, 5), long])
        monkeypatch.setattr(sdpa_attention, "repeat_kv", lambda *_: pytest.fail("keys and values were copied"))
        step = held.step(torch.tensor([9, 9]))
    assert torch.allclose(step, torch.stack(expected), atol=1e-5)


def test_the_memory_is_written_in_place_and_moves_to_the_front_when_it_is_full() -> None:
    """Two places in turn: while one row is in writing the other ends, and another enters beside it."""
    model, _ = tiny(WORDS)
    held = Slots(model.eval(), rows=2, capacity=7, pad=0)
    held.enter([0, 1], [(1, 4), (1, 4, 7)])
    keys, rows = held._cache.layers[0].keys, [[1, 4], [1, 4, 7]]
    for turn in range(14):
        held.leave([turn % 2])
        rows[turn % 2] = [1, 4, 4 + turn % 8]
        logits = held.enter([turn % 2], [rows[turn % 2]])
        assert torch.allclose(logits, model(torch.tensor([rows[turn % 2]])).logits[:, -1], atol=1e-5)
        step = held.step(torch.tensor([6, 7]))
        for number, token in enumerate((6, 7)):
            rows[number].append(token)
            assert torch.allclose(step[number], model(torch.tensor([rows[number]])).logits[0, -1], atol=1e-5)
    assert held._cache.layers[0].keys is keys and keys.shape[2] == 7
