"""Micro-batches by a budget of tokens: rows of similar lengths together, so that hardly any padding is passed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rrl.ranges import refuse
from rrl.training.policy_settings import Passes, PolicySettings

PASS = 8
"""A further pass is made where it saves more than this part (a divisor) of the budget in padding."""


@dataclass(frozen=True, kw_only=True)
class PolicyByTokens(PolicySettings):
    """Settings under which a forward pass has at most ``micro_batch_tokens`` tokens, padding included.

    Only a row that is longer by itself, such as a long reference of supervised training, is passed alone. A row of
    reinforcement learning has at most ``max_prompt_length + max_response_length`` tokens. A warm start still goes by
    ``micro_batch_size``.
    """

    micro_batch_tokens: int
    max_prompt_length: int
    max_response_length: int

    def __post_init__(self) -> None:
        super().__post_init__()
        longest, given = self.max_prompt_length + self.max_response_length, self.micro_batch_tokens
        why = "the longest row: data.max_prompt_length + data.max_response_length"
        refuse({f"micro_batch_tokens: expected at least {longest}, {why}, got {given}": given < longest})

    def passes(self, lengths: Tensor, processes: int) -> Passes:
        """The longest rows first.

        Processes take rows in turn, so that the rows of the first are the longest, and what holds them holds those of
        the others.
        """
        order = lengths.argsort(descending=True, stable=True)
        return Passes(order, _filled(lengths[order][::processes].tolist(), self.micro_batch_tokens))

    def rows_at_once(self, width: int) -> int:
        return math.ceil(self.micro_batch_tokens / width)

    def split(self, rows: int) -> str:
        return f"micro-batches of at most {self.micro_batch_tokens:,} tokens"


def _filled(lengths: Sequence[int], budget: int) -> list[int]:
    """The rows of each pass, for rows of falling ``lengths``: the fewest padded tokens, where a pass costs some too.

    By dynamic programming over the last pass of the first 1, 2, ... rows.
    """
    cost, last = [0.0], [0]
    for end in range(1, len(lengths) + 1):
        options = []
        for size in range(1, end + 1):
            tokens = size * lengths[end - size]
            if tokens > budget and size > 1:
                break
            options.append((cost[end - size] + tokens + budget / PASS, size))
        best = min(options)
        cost.append(best[0])
        last.append(best[1])
    sizes, end = list[int](), len(lengths)
    while end:
        sizes.insert(0, last[end])
        end -= last[end]
    return sizes
