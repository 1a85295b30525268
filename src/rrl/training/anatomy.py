"""The parts of a causal language model of transformers, and what its forward pass accepts."""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any


def unwrapped(model: Any) -> Any:
    """The language model itself, with the adapters in its layers if there are any."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@cache
def _arguments(model: Any) -> frozenset[str]:
    """Of the forward pass of a class of models."""
    return frozenset(inspect.signature(model.forward).parameters)


def accepted(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that the model's forward pass has as arguments: some lack ``logits_to_keep``."""
    kind: Any = type(unwrapped(model))
    named = _arguments(kind)
    return {name: value for name, value in inputs.items() if name in named or "input_ids" not in named}


def hidden_width(model: Any) -> int:
    """The width of the last hidden state, which the output embedding reads."""
    return int(model.get_output_embeddings().weight.shape[1])


def trunk_of(model: Any) -> Any:
    """The model without its output embedding: the part that holds the input embedding."""
    bare, embedding = unwrapped(model), model.get_input_embeddings()
    return next(part for part in bare.children() if any(module is embedding for module in part.modules()))
