"""What a run will do, by its settings alone: sequences, optimiser steps, tokens, evaluations."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from rrl.evaluation import Evaluation
from rrl.policy_settings import PolicySettings
from rrl.trainer import TrainerSettings


class Between(NamedTuple):
    """A number that is not known before training: its bounds, and what it is likely to be (None: nothing to go by)."""

    least: int
    likely: int | None
    most: int

    def over(self, function: Callable[[int], int]) -> "Between":
        """What a rising function makes of each."""
        return Between(
            function(self.least), None if self.likely is None else function(self.likely), function(self.most)
        )


@dataclass(frozen=True)
class Step:
    """One training step: ``starts * n = sequences``, and how they become optimiser steps.

    ``rows`` of a mini-batch fall to each of ``processes``, which passes them in ``micro_batches`` of ``micro_rows``.
    """

    starts: int
    n: int
    mini_batch: int
    epochs: int
    processes: int
    micro_rows: int

    @property
    def sequences(self) -> int:
        """Rollouts of a step."""
        return self.starts * self.n

    @property
    def mini_batches(self) -> int:
        """Mini-batches of one epoch."""
        return self.sequences // self.mini_batch

    @property
    def optimiser_steps(self) -> int:
        """Optimiser steps of a training step."""
        return self.mini_batches * self.epochs

    @property
    def rows(self) -> int:
        """Rows of a mini-batch on each process."""
        return math.ceil(self.mini_batch / self.processes)

    @property
    def micro_batches(self) -> int:
        """Forward and backward passes that make an optimiser step, on each process."""
        return math.ceil(self.rows / self.micro_rows)


def step(trainer: TrainerSettings, policy: PolicySettings, processes: int) -> Step:
    """A training step under these settings."""
    rows = math.ceil(trainer.ppo_mini_batch_size / processes)
    return Step(
        starts=trainer.train_batch_size,
        n=trainer.n,
        mini_batch=trainer.ppo_mini_batch_size,
        epochs=trainer.ppo_epochs,
        processes=processes,
        micro_rows=min(policy.micro_batch_size, rows),
    )


def training_steps(trainer: TrainerSettings, longest: int, likely: float | None) -> Between:
    """How many steps training takes, when responses have at most ``longest`` tokens and ``likely`` so many on average.

    A limit in tokens ends training with the step that reaches it; every response has at least one token.
    """
    if not trainer.total_tokens:
        known = trainer.total_training_steps
        assert known, "a trainer has one limit at least"
        return Between(known, known, known)
    return Between(
        _steps(trainer, longest), _steps(trainer, min(likely, longest)) if likely else None, _steps(trainer, 1)
    )


def _steps(trainer: TrainerSettings, tokens: float) -> int:
    """How many, when every response has so many tokens."""
    assert trainer.total_tokens
    steps = math.ceil(trainer.total_tokens / (trainer.train_batch_size * trainer.n * tokens))
    return min(steps, trainer.total_training_steps or steps)


def most_tokens(trainer: TrainerSettings, steps: Between, longest: int) -> int:
    """The most new tokens that training can write; the last step may go over a limit in tokens."""
    of_a_step = trainer.train_batch_size * trainer.n * longest
    most = steps.most * of_a_step
    return min(most, trainer.total_tokens - 1 + of_a_step) if trainer.total_tokens else most


def evaluations(steps: int, every: int | None) -> int:
    """How many evaluations: before training, every so many steps, and at the end."""
    return 2 if every is None else 1 + math.ceil(steps / every)


def checkpoints(steps: int, every: int | None) -> int:
    """How many checkpoints: every so many steps, and at the end."""
    return 1 if every is None else math.ceil(steps / every)


def responses(evaluation: Evaluation, problems: int) -> int:
    """Responses of one evaluation."""
    return problems * (evaluation.greedy + evaluation.n)
