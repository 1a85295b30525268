"""Rows of a batch read end to end, without padding, where attention keeps them apart by their positions."""

from typing import Any

import torch
from torch import Tensor

from rrl.training.anatomy import accepted, unwrapped

VARYING = ("flash_attention_2", "flash_attention_3")
"""Kinds of attention for which transformers passes the rows' lengths to the kernel; others would make a mask."""


def packs(model: Any) -> bool:
    """Whether a model or its trunk reads rows without padding."""
    bare = unwrapped(model)
    kind = bare.config.get_text_config()._attn_implementation
    return kind in VARYING and "position_ids" in accepted(bare, {"position_ids": None})


def hidden_states(trunk: Any, tokens: Tensor, attention: Tensor) -> tuple[Any, Tensor]:
    """The trunk's output for right-padded rows [batch, time], and its last hidden states [batch, time, width].

    Those of padding are zero where the trunk packs.
    """
    if not packs(trunk):
        output = trunk(**accepted(trunk, {"input_ids": tokens, "attention_mask": attention, "use_cache": False}))
        return output, output.last_hidden_state
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)[attention]
    output = trunk(input_ids=tokens[attention][None], position_ids=places[None], use_cache=False)
    packed = output.last_hidden_state[0]
    hidden = packed.new_zeros(*tokens.shape, packed.shape[-1])
    hidden[attention] = packed
    return output, hidden
