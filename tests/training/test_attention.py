"""Attention on a CPU: in bfloat16 as exact as in float32, whatever the mask, and its gradient in float32's time."""

from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rrl.training.attention import attend


class Grouped(torch.nn.Module):
    """What transformers reads of a layer: two query heads share keys; a token sees those before it."""

    num_key_value_groups = 2
    is_causal = True


def rows() -> list[torch.Tensor]:
    """Queries, keys and values of two rows of five tokens, heads of eight numbers, exact in bfloat16."""
    torch.manual_seed(3)
    return [torch.randn(2, heads, 5, 8).bfloat16() for heads in (4, 2, 2)]


def causal(kind: Any) -> torch.Tensor:
    """The second row begins with two columns of padding."""
    seen = torch.ones(5, 5).tril().bool().expand(2, 1, 5, 5).clone()
    seen[1, :, 2:, :2] = False
    if kind is bool:
        return seen
    return torch.zeros(2, 1, 5, 5, dtype=kind).masked_fill(~seen, torch.finfo(kind).min)


def read(function: Any, inputs: list[torch.Tensor], mask: torch.Tensor | None) -> list[torch.Tensor]:
    """What is seen, and the gradients of queries, keys and values."""
    leaves = [each.clone().requires_grad_() for each in inputs]
    seen, _ = function(Grouped(), *leaves, mask)
    seen.float().square().sum().backward()
    return [seen, *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("kind", [None, bool, torch.bfloat16])
def test_bfloat16_is_read_as_float32_reads_it(kind: Any) -> None:
    mask = None if kind is None else causal(kind)
    wide = mask.float() if kind is torch.bfloat16 else mask
    expected = read(sdpa_attention_forward, [each.float() for each in rows()], wide)
    found = read(attend, rows(), mask)
    assert found[0].dtype == torch.bfloat16
    assert torch.equal(found[0], expected[0].bfloat16())
    for mine, theirs in zip(found[1:], expected[1:], strict=True):
        assert torch.allclose(mine.float(), theirs, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_token_in_bfloat16_and_any_in_float32_are_read_as_they_are(dtype: Any) -> None:
    query, key, value = (each.to(dtype) for each in rows())
    query = query if dtype == torch.float32 else query[:, :, -1:]
    mask = causal(bool)[:, :, -query.shape[2] :]
    expected, _ = sdpa_attention_forward(Grouped(), query, key, value, mask)
    found, _ = attend(Grouped(), query, key, value, mask)
    assert torch.allclose(found.float(), expected.float(), rtol=0.02, atol=1e-6)
