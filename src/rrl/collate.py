"""From ragged rows to padded tensors: prompt and prefix are context, only written tokens are acted on."""

from collections.abc import Hashable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_columns

from rrl.types import Batch, Rollout, State


class Row(NamedTuple):
    """A row of a batch: tokens ``written`` after a ``context``, the pay of each; rows of one ``start`` are a group.

    The last ``remembered`` tokens of the context are the prefix of a replayed state.
    """

    context: Sequence[int]
    written: Sequence[int]
    pay: Sequence[float]
    start: Hashable
    level: str
    replayed: bool = False
    remembered: int = 0


def collate(rollouts: Sequence[Rollout], rewards: Sequence[Sequence[float]], pad: int) -> Batch:
    """One row per rollout, whose context is prompt and prefix; ``rewards`` holds one number per action."""
    rows = [
        Row((*p.prompt, *s.prefix), r.actions, pay, (p.id, s.prefix), p.level, s.replayed, len(s.prefix) * s.replayed)
        for r, pay in zip(rollouts, rewards, strict=True)
        for s, p in [(r.state, r.state.problem)]
    ]
    return collate_rows(rows, pad)


def collate_rows(rows: Sequence[Row], pad: int) -> Batch:
    """Rows padded on the right. ``weight`` and everything that a policy or an objective fills in is zero."""
    tokens, attention, mask = pad_written([(row.context, row.written) for row in rows], pad)
    later = (
        "weight", "engine_logprobs", "old_logprobs", "ref_logprobs", "entropies", "values", "advantages", "returns"
    )  # fmt: skip
    return Batch(
        tokens=tokens,
        attention=attention,
        mask=mask,
        prefix=_between([(len(row.context) - row.remembered, len(row.context)) for row in rows], tokens.shape[1]),
        rewards=_spread([row.pay for row in rows], mask),
        group=_as_numbers([row.start for row in rows]),
        level=_as_numbers([row.level for row in rows]),
        replayed=torch.tensor([row.replayed for row in rows]),
        **dict.fromkeys(later, torch.zeros(tokens.shape)),
    )


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids, and a mask that is false on padding, [batch, time] each."""
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    return tokens, _before([len(row) for row in rows], width)


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """The same with the padding in front of the rows."""
    tokens, real = pad_right([row[::-1] for row in rows], pad)
    return tokens.flip(1), real.flip(1)


def pad_written(rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of (context, written tokens): token ids, a mask without padding, and a mask of the written tokens."""
    tokens, real = pad_right([(*context, *written) for context, written in rows], pad)
    return tokens, real, real & ~_before([len(context) for context, _ in rows], tokens.shape[1])


def _before(ends: Sequence[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(ends).unsqueeze(1)


def _between(spans: Sequence[tuple[int, int]], width: int) -> Tensor:
    begins, ends = zip(*spans, strict=True)
    return _before(ends, width) & ~_before(begins, width)


def micro_batches(batch: Batch, sizes: int | list[int]) -> list[Batch]:
    """The batch in order, so many rows at a time, each trimmed to its own longest row."""
    return [batch.rows(index) for index in torch.arange(len(batch)).split(sizes)]


def joined(batches: Sequence[Batch]) -> Batch:
    """The rows of all batches, padded on the right; rows of different batches are of different groups."""
    width = max(batch.tokens.shape[1] for batch in batches)
    groups = [0, *accumulate(int(batch.group.max()) + 1 for batch in batches)]
    apart = [batch.with_(group=batch.group + first) for batch, first in zip(batches, groups, strict=False)]
    columns = {name: [getattr(batch, name) for batch in apart] for name in Batch.__dataclass_fields__}
    return Batch(
        **{
            name: torch.cat([x if x.dim() == 1 else pad_columns(x, (0, width - x.shape[1])) for x in each])
            for name, each in columns.items()
        }
    )


def engine_logprobs(rollouts: Sequence[Rollout], mask: Tensor) -> Tensor:
    """The engine's log-probabilities [batch, time] of the actions under its whole vocabulary; zero elsewhere."""
    return _spread([[p + k for p, k in zip(r.logprobs, r.kept, strict=True)] for r in rollouts], mask)


def context_batch(states: Sequence[State], tokenizer: Any, longest: int) -> Batch:
    """Prompts as contexts, prefixes with an end token as written tokens, so that a policy can annotate them.

    The end token, which asks for the value after the prefix, is left out of a row that is ``longest`` without it.
    """
    rows = []
    for state in states:
        problem = state.problem
        written = (*state.prefix, tokenizer.eos_token_id)[: longest - len(problem.prompt)]
        rows.append(Row(problem.prompt, written, [0.0] * len(written), problem.id, problem.level))
    return collate_rows(rows, tokenizer.pad_token_id)


def _spread(numbers: Sequence[Sequence[float]], mask: Tensor) -> Tensor:
    spread = torch.zeros(mask.shape)
    spread[mask] = torch.tensor([x for row in numbers for x in row])
    return spread


def _as_numbers(keys: Sequence[Hashable]) -> Tensor:
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])
