"""From ragged rollouts to padded tensors: prompt and prefix are context, only new tokens are acted on."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from rrl.types import Batch, Rollout, State


def collate(rollouts: Sequence[Rollout], rewards: Sequence[Sequence[float]], pad: int) -> Batch:
    """One row per rollout: prompt, prefix, actions, then padding on the right.

    ``rewards`` holds one number per action; ``weight`` and everything that a policy or an objective fills in is zero.
    """
    rows = [(*r.state.problem.prompt, *r.tokens) for r in rollouts]
    starts = [len(row) - len(r.actions) for row, r in zip(rows, rollouts, strict=True)]
    width = max(len(row) for row in rows)
    tokens = torch.full((len(rows), width), pad)
    attention, mask = (torch.zeros(len(rows), width, dtype=torch.bool) for _ in range(2))
    for b, (row, start) in enumerate(zip(rows, starts, strict=True)):
        tokens[b, : len(row)] = torch.tensor(row)
        attention[b, : len(row)] = True
        mask[b, start : len(row)] = True
    zeros = torch.zeros(len(rows), width)
    return Batch(
        tokens=tokens,
        attention=attention,
        mask=mask,
        weight=zeros,
        rewards=_spread(rewards, mask),
        old_logprobs=zeros,
        ref_logprobs=zeros,
        values=zeros,
        advantages=zeros,
        returns=zeros,
        group=_number([(r.state.problem.id, r.state.prefix) for r in rollouts]),
        level=_number([r.state.problem.level for r in rollouts]),
    )


def engine_logprobs(rollouts: Sequence[Rollout], mask: Tensor) -> Tensor:
    """The engine's own log-probabilities [batch, time] of the actions; zero elsewhere."""
    return _spread([r.logprobs for r in rollouts], mask)


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
