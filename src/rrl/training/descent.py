"""Gradient descent on a loss that needs no policy: the loop that warm starts and reward models share."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from rrl.errors import DivergenceError
from rrl.records.pulse import beat


def descend(
    model: nn.Module, batches: Iterable[Iterable[Tensor]], *, lr: float, full_at: float, weight_decay: float,
    grad_clip: float, key: str,
) -> Iterator[float]:  # fmt: skip
    """Take one step of AdamW for each batch, and yield its loss.

    A batch is an iterable of its micro-batches' losses, computed lazily, whose sum is the batch's loss. The
    learning rate rises linearly to ``lr`` at step ``full_at``, counted from 1; gradients are clipped to the norm
    ``grad_clip`` (0: not at all). Raises DivergenceError for a loss that is not finite; it names ``key``.lr.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    for step, losses in enumerate(batches, 1):
        optimiser.param_groups[0]["lr"] = lr * min(1.0, step / full_at)
        total = 0.0
        for loss in losses:
            loss.backward()
            total += float(loss.detach())
            beat()
        if not math.isfinite(total):
            raise DivergenceError(
                f"{key}.lr: {lr}, but the loss of step {step} is {total}; expected a finite number; lower it"
            )
        if grad_clip:
            nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        optimiser.step()
        optimiser.zero_grad()
        yield total
