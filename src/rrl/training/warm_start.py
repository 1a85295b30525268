"""Supervised fine-tuning on references: the warm start before reinforcement learning."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rrl.collate import padded
from rrl.errors import DataError
from rrl.functional import token_logprobs
from rrl.processes.distributed import device
from rrl.ranges import at_least_one, check_ranges, not_negative, positive
from rrl.records.pulse import beat
from rrl.training.networks import accepted
from rrl.types import Problem, Show


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Supervised training on a task's demonstrations.

    ``steps`` optimiser steps of ``batch_size`` demonstrations in micro-batches of ``micro_batch_size`` rows; AdamW with
    learning rate ``lr``, rising linearly over ``lr_warmup_steps``, and ``weight_decay``; ``demonstrations`` is how many
    are drawn (null: as many as are used, each seen once); gradients are clipped to norm ``grad_clip`` (0: not at all).
    ``seed`` fixes the demonstrations and their order.
    """

    steps: int
    batch_size: int
    micro_batch_size: int
    lr: float
    lr_warmup_steps: int
    weight_decay: float
    grad_clip: float
    demonstrations: int | None
    seed: int

    def __post_init__(self) -> None:
        check_ranges(
            self,
            at_least_one("steps", "batch_size", "micro_batch_size", "demonstrations"),
            not_negative("lr_warmup_steps", "grad_clip"),
            positive("lr"),
        )

    @property
    def count(self) -> int:
        """How many demonstrations are drawn."""
        return self.demonstrations or self.steps * self.batch_size

    def train(self, model: Any, tokenizer: Any, problems: Sequence[Problem], show: Show) -> float:
        """Train ``model`` in place; ``show`` is told progress and loss (nats a token) each step. Returns the last."""
        problems = [problem for problem in problems if problem.reference]
        if not problems:
            raise DataError("warmstart: the task has no references to learn from; use warmstart=none")
        model.to(device()).train()
        with torch.random.fork_rng():  # dropout draws from the global state
            torch.manual_seed(self.seed)
            return self._descend(model, tokenizer, problems, show)

    def _descend(self, model: Any, tokenizer: Any, problems: Sequence[Problem], show: Show) -> float:
        optimiser = torch.optim.AdamW(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        order = self._order(len(problems))
        loss = float("nan")
        for step in range(self.steps):
            optimiser.param_groups[0]["lr"] = self.lr * min(1.0, (step + 1) / (self.lr_warmup_steps + 1))
            rows = [problems[next(order)] for _ in range(self.batch_size)]
            loss = self._accumulate(model, tokenizer, rows)
            if self.grad_clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), self.grad_clip)
            optimiser.step()
            optimiser.zero_grad()
            show((step + 1) / self.steps, {"loss": loss})
        return loss

    def _order(self, count: int) -> Iterator[int]:
        rng = random.Random(f"sft/{self.seed}")
        while True:
            epoch = list(range(count))
            rng.shuffle(epoch)
            yield from epoch

    def _accumulate(self, model: Any, tokenizer: Any, rows: Sequence[Problem]) -> float:
        """Gradient of the mean loss per reference token; the prompt is context only."""
        total = sum(len(problem.reference) for problem in rows)
        loss = 0.0
        for begin in range(0, len(rows), self.micro_batch_size):
            part = reference_loss(model, tokenizer, rows[begin : begin + self.micro_batch_size]) / total
            part.backward()
            loss += float(part.detach())
            beat()
        return loss


def reference_loss(model: Any, tokenizer: Any, rows: Sequence[Problem]) -> torch.Tensor:
    """Summed negative log-likelihood (nats) of the references given their prompts."""
    columns = padded([(problem.prompt, problem.reference) for problem in rows], tokenizer.pad_token_id)
    tokens, attention, acted = (column.to(device()) for column in columns)
    inputs = {"input_ids": tokens, "attention_mask": attention, "use_cache": False}
    logits = model(**accepted(model, inputs)).logits[:, :-1].float()
    return -token_logprobs(logits, tokens[:, 1:])[acted[:, 1:]].sum()
