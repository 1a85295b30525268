"""From ragged rollouts to padded tensors: prompt and prefix are context, only new tokens are acted on."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from rrl.types import Batch, Rollout, State


def collate(rollouts: Sequence[Rollout], rewards: Sequence[Sequence[float]], pad: int) -> Batch:
    """One row per rollout: prompt, prefix, actions, then padding on the right.

    ``rewards`` holds one number per action; ``weight`` and everything that a policy or an objective fills in is zero.
    """
    tokens, attention, mask = padded([((*r.state.problem.prompt, *r.state.prefix), r.actions) for r in rollouts], pad)
    zeros = torch.zeros(tokens.shape)
    return Batch(
        tokens=tokens,
        attention=attention,
        mask=mask,
        weight=zeros,
        rewards=_spread(rewards, mask),
        engine_logprobs=zeros,
        old_logprobs=zeros,
        ref_logprobs=zeros,
        values=zeros,
        advantages=zeros,
        returns=zeros,
        group=_number([(r.state.problem.id, r.state.prefix) for r in rollouts]),
        level=_number([r.state.problem.level for r in rollouts]),
    )


def padded(rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of context and what was written after it, padded on the right.

    Returns, [batch, time] each, the tokens, where they are real, and where they were written.
    """
    width = max(len(context) + len(written) for context, written in rows)
    tokens = torch.full((len(rows), width), pad)
    real, acted = (torch.zeros(len(rows), width, dtype=torch.bool) for _ in range(2))
    for b, (context, written) in enumerate(rows):
        begin, end = len(context), len(context) + len(written)
        tokens[b, :end] = torch.tensor((*context, *written))
        real[b, :end], acted[b, begin:end] = True, True
    return tokens, real, acted


def micro_batches(batch: Batch, size: int) -> list[Batch]:
    """The batch in order, ``size`` rows at a time, each trimmed to its own longest row."""
    return [batch.rows(index) for index in torch.arange(len(batch)).split(size)]


def stacked(parts: Sequence[Tensor], shape: torch.Size) -> Tensor:
    """Put [rows, width] parts below one another in a tensor of ``shape``, zero where they are narrower."""
    whole = torch.zeros(shape)
    row = 0
    for part in parts:
        whole[row : row + len(part), : part.shape[1]] = part
        row += len(part)
    return whole


def engine_logprobs(rollouts: Sequence[Rollout], mask: Tensor) -> Tensor:
    """The engine's log-probabilities [batch, time] of the actions under its whole vocabulary; zero elsewhere."""
    return _spread([[p + k for p, k in zip(r.logprobs, r.kept, strict=True)] for r in rollouts], mask)


def context_batch(states: Sequence[State], pad: int, eos: int) -> Batch:
    """Prefixes as if they had just been written, each with an end token, so that a policy can annotate them."""
    zeros = [(0.0,) * (len(state.prefix) + 1) for state in states]
    rollouts = [
        Rollout(State(state.problem), (*state.prefix, eos), zero, zero, True, "", 0)
        for state, zero in zip(states, zeros, strict=True)
    ]
    return collate(rollouts, zeros, pad)


def _spread(numbers: Sequence[Sequence[float]], mask: Tensor) -> Tensor:
    spread = torch.zeros(mask.shape)
    spread[mask] = torch.tensor([x for row in numbers for x in row])
    return spread


def _number(keys: Sequence[Hashable]) -> Tensor:
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])
