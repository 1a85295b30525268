"""What a run will do, by its settings alone: sequences, optimiser steps, tokens, evaluations."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, NamedTuple

from rrl.errors import ConfigError
from rrl.training.evaluation import Evaluation
from rrl.training.gsi import GSISettings
from rrl.training.policy_settings import PolicySettings
from rrl.training.trainer import TrainerSettings


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


class Setting(NamedTuple):
    """What a forecast depends on beside the loop's own settings.

    ``problems`` to train on; ``longest`` response, and how many tokens one is ``likely`` to have (None: unknown).
    """

    policy: PolicySettings
    processes: int
    problems: int
    longest: int
    likely: float | None


@dataclass(frozen=True)
class Course:
    """What a loop does from beginning to end: steps, optimiser steps, the most new tokens, and a step in words.

    After ``milestones`` of its steps, at most, the policy is measured and saved whatever the frequencies say.
    """

    steps: Between
    optimised: Between
    tokens: int
    milestones: int
    of_a_step: Sequence[str]


@singledispatch
def course(trainer: Any, setting: Setting) -> Course:
    """What the loop with these settings will do."""
    raise ConfigError(f"dry_run: there is no forecast for {type(trainer).__name__}; leave dry_run out")


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


@course.register
def _(trainer: TrainerSettings, setting: Setting) -> Course:
    each = step(trainer, setting.policy, setting.processes)
    steps = training_steps(trainer, setting.longest, setting.likely)
    return Course(
        steps=steps,
        optimised=steps.over(lambda n: n * each.optimiser_steps),
        tokens=most_tokens(trainer, steps, setting.longest),
        milestones=0,
        of_a_step=[
            f"{each.starts:,} starts x {each.n} = {some(each.sequences, 'sequence')} -> "
            f"{some(each.mini_batches, 'mini-batch')} x {some(each.epochs, 'epoch')} = "
            f"{some(each.optimiser_steps, 'optimiser step')}",
            f"mini-batch: {some(each.mini_batch, 'sequence')} = {some(each.processes, 'process')} x "
            f"{some(each.micro_batches, 'micro-batch')} of at most {some(each.micro_rows, 'row')}",
        ],
    )


@course.register
def _(trainer: GSISettings, setting: Setting) -> Course:
    problems = min(trainer.problems_per_iteration or setting.problems, setting.problems)
    steps, optimised = _iterations(trainer, problems)
    tokens = trainer.iterations * problems * (trainer.n + trainer.helps) * setting.longest
    if trainer.total_tokens:
        a_step = trainer.sequences * setting.longest
        steps = steps._replace(least=min(steps.least, math.ceil(trainer.total_tokens / a_step) + 1))
        optimised = optimised._replace(least=trainer.epochs)
        tokens = min(tokens, trainer.total_tokens - 1 + a_step)
    return Course(
        steps=steps,
        optimised=optimised,
        tokens=tokens,
        milestones=trainer.iterations,
        of_a_step=[
            f"{some(trainer.iterations, 'iteration')} of {problems:,} problems x {some(trainer.n, 'response')}, "
            f"{trainer.train_batch_size:,} problems a step",
            f"with help: up to {trainer.helps} more to each problem with fewer than {trainer.enough} right ones, "
            f"{trainer.sequences:,} a step",
            f"then from the starting model {some(trainer.epochs, 'epoch')} over the right ones in mini-batches of "
            f"{trainer.mini_batch_size:,}, {_tuning(trainer, 1).each:,} a step",
        ],
    )


def _iterations(trainer: GSISettings, problems: int) -> tuple[Between, Between]:
    """Steps and optimiser steps of all iterations, where no limit in tokens ends them.

    A problem gives at most ``n`` right answers, or ``enough`` of them where help is needed.
    """
    right = max(trainer.n, min(trainer.enough, trainer.n + trainer.helps))
    few, many = _tuning(trainer, 1), _tuning(trainer, problems * min(right, trainer.keep_per_problem or right))
    sampling = math.ceil(problems / trainer.train_batch_size)
    helping = trainer.helps * math.ceil(problems / trainer.sequences)
    given = _tuning(trainer, problems) if trainer.first == "references" else _Tuning(0, 0, 0)
    times = trainer.iterations - (trainer.first == "references")
    steps = Between(times * (sampling + few.steps), None, times * (sampling + helping + many.steps))
    optimised = Between(times * few.optimised, None, times * many.optimised)
    return steps.over(lambda n: n + given.steps), optimised.over(lambda n: n + given.optimised)


class _Tuning(NamedTuple):
    """A fine-tuning: its optimiser steps, how many of them a step has, and its steps."""

    optimised: int
    each: int
    steps: int


def _tuning(trainer: GSISettings, answers: int) -> _Tuning:
    optimised = trainer.epochs * math.ceil(answers / trainer.mini_batch_size)
    each = max(1, trainer.sequences // trainer.mini_batch_size)
    return _Tuning(optimised, each, math.ceil(optimised / each))


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


def evaluations(steps: int, every: int | None, milestones: int = 0) -> int:
    """How many evaluations, at most: before training, every so many steps, at milestones and at the end."""
    return 1 + checkpoints(steps, every, milestones)


def checkpoints(steps: int, every: int | None, milestones: int = 0) -> int:
    """How many checkpoints, at most: every so many steps, at milestones, of which the end is one, and at the end."""
    return (1 if every is None else math.ceil(steps / every)) + max(0, milestones - 1)


def responses(evaluation: Evaluation, problems: int) -> int:
    """Responses of one evaluation."""
    return problems * (evaluation.greedy + evaluation.n)


def some(count: int, thing: str) -> str:
    """A number of things."""
    plural = f"{thing}es" if thing.endswith(("batch", "process")) else f"{thing}s"
    return f"{count:,} {thing if count == 1 else plural}"
