"""Logits in pieces: the same log-probabilities, entropies, values and gradients as from all logits at once."""

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from fixtures.architectures import SERVED, build
from fixtures.policy import learn
from fixtures.ranks import on_ranks
from fixtures.training import LORA
from rrl.training import reading
from rrl.training.networks import Actor
from rrl.training.reading import read

SMALL = 4 * 3 * 260 * 2
"""Bytes of the logits of two columns of three rows."""


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.elements = max(self.elements, made.numel())
        return made


def rows() -> tuple[Tensor, Tensor]:
    """Three rows of 5, 12 and 9 tokens, padded on the right."""
    tokens = torch.randint(4, 259, (3, 12), generator=torch.Generator().manual_seed(3))
    return tokens, torch.arange(12) < torch.tensor([[5], [12], [9]])


def read_with(piece: int, model: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Tensor], dict[str, Tensor]]:
    """What is read from column 2 on, at temperature 0.7, and the gradients of a sum of all of it."""
    monkeypatch.setattr(reading, "PIECE", piece)
    model, (tokens, attention) = copy.deepcopy(model), rows()
    seen = read(model, tokens, attention, 2, 0.7, pays_entropy=True)
    (seen.logprobs + 0.3 * seen.entropies + 0.1 * seen.hidden.mean(-1))[attention[:, 2:]].sum().backward()
    return list(seen), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


HEADS = ("cohere", "falcon_h1", "gemma2", "gemma3", "gpt2", "granite", "llama", "mamba2", "mixtral", "opt")
"""Each way from hidden states to logits. The others are slow."""


@pytest.mark.parametrize(
    "kind", [kind if kind in HEADS else pytest.param(kind, marks=pytest.mark.slow) for kind in SERVED]
)
def test_pieces_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Heads that scale and cap their logits, tied embeddings, experts, recurrences."""
    model = build(kind, **SERVED[kind])
    whole, gradients = read_with(2**28, model, monkeypatch)
    monkeypatch.setattr(reading, "_divisible", {})
    with caplog.at_level(logging.WARNING, "rrl"):
        pieces, same = read_with(SMALL, model, monkeypatch)
    real = rows()[1][:, 2:]
    for mine, theirs in zip(pieces, whole, strict=True):
        assert_close(mine[real], theirs[real], rtol=1e-5, atol=1e-5)
    assert gradients.keys() == same.keys()
    for name, gradient in gradients.items():
        assert_close(same[name], gradient, rtol=1e-4, atol=1e-5)
    whole_only = {"opt"}
    assert bool([r for r in caplog.records if "in one piece only" in r.message]) == (kind in whole_only)


def test_a_model_that_transforms_hidden_states_before_its_output_embedding_is_read_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Values read the transformed ones, whatever the size of the batch."""
    model = build("bert", is_decoder=True)
    whole, _ = read_with(2**28, model, monkeypatch)
    monkeypatch.setattr(reading, "_divisible", {})
    pieces, _ = read_with(SMALL, model, monkeypatch)
    for mine, theirs in zip(pieces, whole, strict=True):
        assert_close(mine, theirs)


def test_no_more_logits_than_a_piece_exist_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama", vocab_size=5000)
    tokens, attention = rows()
    made = {}
    for columns in (12, 2):
        monkeypatch.setattr(reading, "PIECE", 4 * 3 * 5000 * columns)
        with Largest() as largest:
            seen = read(model, tokens, attention, 1, 1.0, pays_entropy=False)
            seen.logprobs.sum().backward()
        made[columns] = largest.elements
    assert made == {12: 3 * 12 * 5000, 2: 5000 * 32}  # the gradient of the output embedding is larger than two columns


@pytest.mark.parametrize("pays", [True, False])
@pytest.mark.parametrize("piece", [2**28, SMALL])
def test_entropies_have_a_gradient_where_they_are_paid_for(
    piece: int, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PIECE", piece)
    tokens, attention = rows()
    model = build("llama")
    seen = read(model, tokens, attention, 2, 1.0, pays_entropy=pays)
    (seen.entropies.sum() + 0.0 * seen.logprobs.sum()).backward()
    assert bool(model.lm_head.weight.grad.abs().sum() > 0) == pays


@pytest.mark.parametrize("changes", [{}, {"critic": "shared", "value_trunk_grad_scale": 0.5}, {"lora": LORA},
                                     {"gradient_checkpointing": True}])  # fmt: skip
def test_a_policy_learns_the_same_in_pieces(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    learnt = []
    for piece in (2**28, 200):
        monkeypatch.setattr(reading, "PIECE", piece)
        learnt.append(learn(**changes))
    for mine, theirs in zip(*learnt, strict=True):
        assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def _learn_whole_and_in_pieces() -> list[list[Tensor]]:
    read = []
    for reading.PIECE in (2**28, 200):
        read.append(learn(zero_stage=3))
    return read


@pytest.mark.ranks
def test_two_ranks_at_zero_3_read_in_pieces() -> None:
    for whole, pieces in on_ranks(2, _learn_whole_and_in_pieces):
        for mine, theirs in zip(pieces, whole, strict=True):
            assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_the_actor_reads_the_same_with_a_value_head(monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Actor(build("llama"), 1.0, head_size=0)
    torch.nn.init.normal_(actor.head.weight)
    tokens, attention = rows()
    mask = attention & (torch.arange(12) >= 4)
    read_whole = actor(tokens, attention, mask)
    monkeypatch.setattr(reading, "PIECE", SMALL)
    for mine, theirs in zip(actor(tokens, attention, mask), read_whole, strict=True):
        assert_close(mine[mask], theirs[mask])
