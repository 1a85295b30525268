"""Supervised fine-tuning on references: the warm start before reinforcement learning."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rrl.collate import pad_written
from rrl.errors import DataError
from rrl.functional import token_logprobs
from rrl.processes.distributed import device
from rrl.ranges import at_least_one, check_ranges, not_negative, positive
from rrl.training.anatomy import accepted
from rrl.training.descent import descend
from rrl.types import Problem, Show

WEIGHT_DECAY, GRAD_CLIP = 0.01, 1.0
"""AdamW's weight decay, and the largest norm of a step's gradient: common values."""


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Supervised training on a task's demonstrations.

    ``steps`` optimiser steps of ``batch_size`` demonstrations; AdamW with learning rate ``lr``, rising linearly over
    ``lr_warmup_steps``, weight decay ``WEIGHT_DECAY`` and gradients clipped to norm ``GRAD_CLIP``. ``start_seed`` fixes
    the demonstrations and their order.
    """

    steps: int
    batch_size: int
    lr: float
    lr_warmup_steps: int
    start_seed: int

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("steps", "batch_size"), not_negative("lr_warmup_steps"), positive("lr"))

    @property
    def count(self) -> int:
        """The number of demonstrations that are drawn and used."""
        return self.steps * self.batch_size

    def train(
        self, model: Any, tokenizer: Any, problems: Sequence[Problem], micro_batch_size: int, show: Show
    ) -> None:  # fmt: skip
        """Train ``model`` in place, with ``micro_batch_size`` rows in one forward pass.

        ``show`` receives progress and loss (nats a token) after each step. Raises DivergenceError (see ``descend``).
        """
        problems = [problem for problem in problems if problem.reference]
        if not problems:
            raise DataError("warmstart: the task has no references to learn from; use warmstart=none")
        model.to(device()).train()
        order = self._order(len(problems))
        batches = (
            _losses(model, tokenizer, [problems[next(order)] for _ in range(self.batch_size)], micro_batch_size)
            for _ in range(self.steps)
        )
        with torch.random.fork_rng():  # dropout draws from the global state
            torch.manual_seed(self.start_seed)
            losses = descend(
                model, batches, lr=self.lr, full_at=self.lr_warmup_steps + 1, weight_decay=WEIGHT_DECAY,
                grad_clip=GRAD_CLIP, key="warmstart",
            )  # fmt: skip
            for step, loss in enumerate(losses, 1):
                show(step / self.steps, {"loss": loss})

    def _order(self, count: int) -> Iterator[int]:
        rng = random.Random(f"sft/{self.start_seed}")
        while True:
            epoch = list(range(count))
            rng.shuffle(epoch)
            yield from epoch


def _losses(model: Any, tokenizer: Any, rows: Sequence[Problem], size: int) -> Iterator[torch.Tensor]:
    """The mean loss per reference token, as a sum over micro-batches."""
    total = sum(len(problem.reference) for problem in rows)
    for begin in range(0, len(rows), size):
        yield reference_loss(model, tokenizer, rows[begin : begin + size]) / total


def reference_loss(model: Any, tokenizer: Any, rows: Sequence[Problem]) -> torch.Tensor:
    """Summed negative log-likelihood (nats) of the references given their prompts."""
    columns = pad_written([(problem.prompt, problem.reference) for problem in rows], tokenizer.pad_token_id)
    tokens, attention, acted = (column.to(device()) for column in columns)
    inputs = {"input_ids": tokens, "attention_mask": attention, "use_cache": False}
    logits = model(**accepted(model, inputs)).logits[:, :-1].float()
    return -token_logprobs(logits, tokens[:, 1:])[acted[:, 1:]].sum()
