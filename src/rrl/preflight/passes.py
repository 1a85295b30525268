"""The bytes of activations, logits, keys and values in passes through a Llama-like model, for rows of full length."""

from typing import Any, NamedTuple

from rrl.training.policy_settings import BYTES, PolicySettings
from rrl.training.reading import PIECE

LOGITS, DRAWN, SUPERVISED = 6.3, 6.0, 4.1
"""Float32 copies of the logits that exist at once in log-probabilities and entropy, forward or backward; in sampling a
token; in the loss of a warm start. Measured."""


class Shape(NamedTuple):
    """The sizes of a language model that its activations depend on."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    eager: bool


def shape(config: Any) -> Shape:
    """The sizes in a transformers configuration, under the common names of its families.

    A model without attention counts as having one head; where layers differ in width, the widest counts.
    """
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_attention_heads", None) or 1
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    return Shape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=max(inner) if isinstance(inner, list | tuple) else inner,
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // heads,
        vocabulary=text.vocab_size,
        eager=config._attn_implementation == "eager",
    )


def saved_by_layer(model: Shape, rows: int, width: int, dtype: str) -> int:
    """The tensors that one layer saves for its backward pass over [rows, width] tokens.

    Two norms, the four tensors of attention (keys and values for every head), four of the gated block; the padding mask
    or, with eager attention, the matrix of weights of every head.
    """
    b = BYTES[dtype]
    norms = (24 if dtype == "float32" else 16) * model.hidden
    linear = norms + 4 * b * model.heads * model.head_size + 4 * b * model.inner
    square = model.heads * (4 if dtype == "float32" else 6) if model.eager else b
    return rows * width * (linear + width * square)


def activations(model: Shape, rows: int, width: int, settings: PolicySettings) -> int:
    """The tensors that a forward pass saves: of every layer or, with checkpoints, every layer's input and one layer."""
    layer = saved_by_layer(model, rows, width, settings.dtype)
    if not settings.gradient_checkpointing:
        return model.layers * layer
    return model.layers * rows * width * model.hidden * BYTES[settings.dtype] + layer


def passing(model: Shape, rows: int, width: int, dtype: str) -> int:
    """A forward pass over [rows, width] tokens that saves nothing: the inside of one layer."""
    square = model.heads * (BYTES[dtype] + 4) if model.eager else BYTES[dtype]
    return rows * width * (BYTES[dtype] * (4 * model.hidden + 3 * model.inner) + width * square)


def key_value_cache(model: Shape, rows: int, width: int, dtype: str) -> int:
    """Keys and values of every layer, and one layer's twice, because it grows by copying."""
    return (model.layers + 1) * 2 * rows * width * model.kv_heads * model.head_size * BYTES[dtype]


def read_logits(model: Shape, rows: int, columns: int) -> int:
    """Logits for log-probabilities and entropies of [rows, columns] tokens, which are made in pieces."""
    across = 4 * rows * model.vocabulary
    return int(LOGITS * min(columns * across, max(PIECE, across)))


def logits(model: Shape, rows: int, columns: int, copies: float) -> int:
    """``copies`` of float32 logits [rows, columns, vocabulary]."""
    return int(copies * 4 * rows * columns * model.vocabulary)
