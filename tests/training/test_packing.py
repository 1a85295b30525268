"""Rows read end to end: the same numbers and gradients as with padding, where a mask stands for the kernels of GPUs."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fixtures.architectures import SERVED, build
from fixtures.policy import learn
from fixtures.training import LORA
from rrl.training import packing
from rrl.training.anatomy import trunk_of
from rrl.training.networks import Critic
from rrl.training.packing import hidden_states, packs
from rrl.training.reading import read

KINDS = ("llama", "qwen2", "qwen3", "gemma2", "gpt2", "gpt_neox", "phi3", "mixtral")
"""Grouped heads, windows, learnt positions, experts."""


@pytest.fixture
def varying(monkeypatch: pytest.MonkeyPatch) -> None:
    """``sdpa`` packs too: transformers masks the rows of others, which it finds by the positions."""
    monkeypatch.setattr(packing, "VARYING", ("sdpa",))


def rows() -> tuple[Tensor, Tensor]:
    """Four rows of 5, 12, 1 and 9 tokens, padded on the right."""
    tokens = torch.randint(4, 259, (4, 12), generator=torch.Generator().manual_seed(3))
    return tokens, torch.arange(12) < torch.tensor([[5], [12], [1], [9]])


def seen(model: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
    """What is read from column 2 on, and the gradients of a sum of all of it."""
    model, (tokens, attention) = copy.deepcopy(model), rows()
    found = [each[attention[:, 2:]] for each in read(model, tokens, attention, 2, 0.7, pays_entropy=True)]
    (found[0] + 0.3 * found[1] + 0.1 * found[2].mean(-1)).sum().backward()
    return found, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_are_read_as_padded_ones(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(kind, **SERVED[kind])
    padded, gradients = seen(model)
    sizes: list[torch.Size] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape))
    monkeypatch.setattr(packing, "VARYING", ("sdpa",))
    packed, same = seen(model)
    assert torch.Size([1, 27]) in sizes  # 5 + 12 + 1 + 9 tokens
    for mine, theirs in zip(packed, padded, strict=True):
        assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert gradients.keys() == same.keys()
    for name, gradient in gradients.items():
        assert_close(same[name], gradient, rtol=1e-3, atol=1e-4)


def test_the_critic_packs_too(varying: None) -> None:
    critic = Critic(build("llama", **SERVED["llama"]), 0)
    torch.nn.init.normal_(critic.head.weight)
    tokens, attention = rows()
    values = critic(tokens, attention)
    for row, length in enumerate(attention.sum(1).tolist()):
        alone = critic(tokens[row : row + 1, :length], attention[row : row + 1, :length])
        assert_close(values[row, :length], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"critic": "shared", "value_trunk_grad_scale": 0.5}, {"lora": LORA}])
def test_a_policy_learns_the_same_from_packed_rows(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    learnt = []
    for kinds in (("flash_attention_2",), ("sdpa",)):
        monkeypatch.setattr(packing, "VARYING", kinds)
        learnt.append(learn(**changes))
    for mine, theirs in zip(*learnt, strict=True):
        assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_only_attention_of_varying_lengths_packs() -> None:
    model = build("llama")
    assert not packs(model)
    model.config._attn_implementation = "flash_attention_2"
    assert packs(model) and packs(trunk_of(model))


def test_a_model_without_positions_is_padded(varying: None) -> None:
    model = build("bloom", n_layer=1)
    assert not packs(model)
    tokens, attention = rows()
    output, states = hidden_states(trunk_of(model), tokens, attention)
    assert states is output.last_hidden_state
