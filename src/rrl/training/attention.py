"""Attention on a CPU where torch's own is slow; it takes the place of transformers' ``sdpa`` in the whole process."""

from typing import Any

import torch
from torch import Tensor


def take_place() -> None:
    """Let every model of this process that asks for ``sdpa`` find ``attend``."""
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register("sdpa", attend)


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **others: Any
) -> tuple[Tensor, None]:
    """What transformers' ``sdpa`` does; on a CPU, for one token by grouped heads, for several in float32.

    The queries [rows, heads, 1, width] of one token that share a head of masked keys are taken for so many positions:
    ``sdpa`` copies keys and values for each of them. Several tokens in bfloat16 are read in float32, because the
    backward pass of torch's kernel takes several times as long in bfloat16.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, heads, length, width = query.shape
    biased = others.get("position_bias") is not None
    by_head = biased or (attention_mask is not None and attention_mask.shape[1] > 1)
    if query.is_cpu and length == 1 and heads != key.shape[1] and not by_head:
        shared = query.reshape(rows, key.shape[1], -1, width)
        read, _ = sdpa_attention_forward(None, shared, key, value, attention_mask, **others | {"is_causal": False})
        return read.transpose(1, 2).reshape(rows, 1, heads, -1), None
    if query.is_cpu and length > 1 and query.dtype == torch.bfloat16 and not biased:
        mask = attention_mask
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.float()
        wide, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **others)
        return wide.to(query.dtype), None
    usual: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **others)
    return usual
