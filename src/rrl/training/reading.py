"""Log-probabilities and entropies of given tokens by a causal language model, in pieces where logits are large."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rrl.functional import entropy, token_logprobs
from rrl.training.anatomy import accepted, trunk_of, unwrapped
from rrl.training.packing import hidden_states, packs

log = logging.getLogger(__name__)
PIECE = 2**28
"""The most bytes of float32 logits at once; others are made in pieces of positions and, in the backward pass, again."""
_divisible: dict[type, bool] = {}
"""Of each class of models tried so far: whether it makes its logits in pieces."""


class Read(NamedTuple):
    """Of each position from ``first`` on, [batch, time - first]; ``hidden`` [..., width] chose its token."""

    logprobs: Tensor
    entropies: Tensor
    hidden: Tensor


def read(model: Any, tokens: Tensor, attention: Tensor, first: int, temperature: float, *, pays_entropy: bool) -> Read:
    """Read right-padded rows [batch, time]; ``first`` is at least 1, and ``temperature`` divides the logits.

    Without ``pays_entropy`` entropies have no gradient.
    """
    kept = tokens.shape[1] - first + 1
    inputs = {"input_ids": tokens, "attention_mask": attention, "use_cache": False}
    embedding, written = model.get_output_embeddings(), tokens[:, first:]
    across = 4 * len(tokens) * embedding.weight.shape[0]
    whole = across * written.shape[1] <= PIECE and not packs(model)
    if whole or not _is_divisible(model, inputs):
        with _inputs_of(embedding) as seen:
            logits = model(**accepted(model, inputs | {"logits_to_keep": kept})).logits[:, -kept:-1]
        return Read(*_logprobs_and_entropies(logits, written, temperature, pays_entropy), seen[-1][:, -kept:-1])
    output, states = hidden_states(trunk_of(model), tokens, attention)
    hidden, size = states[:, -kept:-1], max(1, PIECE // across)
    pieces = [
        _piece(model, output, *piece, temperature, pays_entropy)
        for piece in zip(hidden.split(size, dim=1), written.split(size, dim=1), strict=True)
    ]
    logprobs, entropies = (torch.cat(columns, dim=1) for columns in zip(*pieces, strict=True))
    return Read(logprobs, entropies, hidden)


def _piece(
    model: Any, output: Any, hidden: Tensor, tokens: Tensor, temperature: float, pays_entropy: bool
) -> tuple[Tensor, Tensor]:
    """The same of one piece, given its hidden states [batch, piece, width]; a backward pass makes its logits again."""

    def measured(hidden: Tensor) -> tuple[Tensor, Tensor]:
        return _logprobs_and_entropies(_logits(model, output, hidden, tokens), tokens, temperature, pays_entropy)

    if not torch.is_grad_enabled():
        return measured(hidden)
    made: tuple[Tensor, Tensor] = checkpoint(measured, hidden, use_reentrant=False, preserve_rng_state=False)
    return made


def _logprobs_and_entropies(
    logits: Tensor, tokens: Tensor, temperature: float, pays_entropy: bool
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of aligned logits [batch, time, vocabulary]."""
    logits = logits.float() / temperature
    return token_logprobs(logits, tokens), entropy(logits if pays_entropy else logits.detach())


def _logits(model: Any, output: Any, hidden: Tensor, tokens: Tensor) -> Tensor:
    """What the model makes of a trunk's output with other last hidden states, scaled and capped as it does."""
    with _trunk_gives(model, type(output)(**{**output, "last_hidden_state": hidden})):
        logits: Tensor = model(**accepted(model, {"input_ids": tokens, "use_cache": False})).logits
        return logits


@contextmanager
def _trunk_gives(model: Any, output: Any) -> Iterator[None]:
    """The trunk returns this output, whatever its inputs, within the context."""
    trunk = trunk_of(model)
    trunk.forward = lambda *_, **__: output
    try:
        yield
    finally:
        del trunk.forward


@torch.no_grad()
def _is_divisible(model: Any, inputs: dict[str, Any]) -> bool:
    """Whether the model makes its logits from given hidden states; it is tried once for each class of models.

    Two hidden states are given in the wrong order, which a model that reads its tokens again does not see.
    """
    kind = type(unwrapped(model))
    if kind not in _divisible:
        few = inputs | {"input_ids": inputs["input_ids"][:1, :2], "attention_mask": inputs["attention_mask"][:1, :2]}
        trunk = trunk_of(model)
        whole = model(**accepted(model, few)).logits
        turned = whole.flip(1)
        try:
            output = trunk(**accepted(trunk, few))
            given = output.last_hidden_state.flip(1)
            with _inputs_of(model.get_output_embeddings()) as seen:
                made = _logits(model, output, given, few["input_ids"])
            same = bool((made - turned).abs().max() <= 0.01 * (whole - turned).abs().max())
            _divisible[kind] = same and torch.equal(seen[-1], given)  # else values would read other hidden states
        except Exception as error:  # of any kind: the model may want more of its trunk than hidden states
            log.info("%s: %s", kind.__name__, error)
            _divisible[kind] = False
        if not _divisible[kind]:
            log.warning("model: %s makes its logits in one piece only, which takes much memory", kind.__name__)
    return _divisible[kind]


@contextmanager
def _inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the inputs of the module within the context."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
