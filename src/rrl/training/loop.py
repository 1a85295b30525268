"""The common part of training loops: judging, counting, optimiser steps, a budget, a state to save."""

import math
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from rrl.contracts import border
from rrl.contracts.breaches import StateLimits
from rrl.errors import ConfigError, DivergenceError
from rrl.interfaces import (
    Author,
    DependsOnTask,
    Objective,
    Render,
    Reward,
    RolloutEngine,
    StateDict,
    StateSampler,
    Task,
)
from rrl.processes.clock import Clock
from rrl.processes.distributed import gathered, largest, spread, summed
from rrl.training.course import Course
from rrl.training.metrics import exploration_metrics, rollout_metrics
from rrl.training.policy import DeepSpeedPolicy
from rrl.types import Batch, Feedback, Judged, Metrics, Problem, Rollout, State

Aggregate = Literal["token", "sequence"]


@dataclass(frozen=True)
class RunStart:
    """The start of a run: its problems, and its starting model, which ``model`` loads again.

    ``render`` makes prompts of questions; a prompt of more than ``longest_prompt`` tokens leaves no room for an answer.
    """

    problems: Sequence[Problem]
    tokenizer: Any
    model: Callable[[], Any]
    render: Render
    longest_prompt: int


class LoopSettings(DependsOnTask, Protocol):
    """The sizes of a training loop, which ``make`` it."""

    train_batch_size: int
    """Start states of a step."""
    n: int
    """Rollouts from one start state."""
    annotates: ClassVar[bool] = True
    """Whether samplers and objectives get the policy's log-probabilities and values of its rollouts."""

    @property
    def optimiser_steps(self) -> int | None:
        """The number of optimiser steps in all; None where it is not known from the beginning."""
        return None

    @property
    def knows_length(self) -> bool:
        """Whether the number of optimiser steps is known at the first one, as schedules need."""
        return self.optimiser_steps is not None

    @property
    def sequences(self) -> int:
        """Rollouts that a step writes, at most."""
        return self.train_batch_size * self.n

    @property
    def mini_batch(self) -> int:
        """Rows of an optimiser step."""

    def sibling_faults(self) -> list[str]:
        """Reasons against an objective that compares rollouts of one start."""
        single = "trainer.n: 1, but this objective compares rollouts of one start; expected 2 or more, as in 8"
        return [single] if self.n == 1 else []

    def ahead_faults(self, objective: Objective | None) -> list[str]:
        """Reasons against ``engine.ahead``; None is an objective with faults of its own."""
        return [f"engine.ahead: 1, but {type(self).__name__} writes when it needs rollouts; expected 0"]

    def make(self, start: RunStart, **parts: Any) -> "Loop":
        """The loop, which works with these parts."""

    def course(self, problems: int, longest: int, likely: float | None, expense: int = 0) -> Course:
        """The forecast for so many problems; by default there is none.

        A response has at most ``longest`` and probably ``likely`` tokens (None: not known); the sampler has at most
        ``expense`` more written in a step.
        """
        raise ConfigError(f"dry_run: there is no forecast for {type(self).__name__}; leave dry_run out")


@dataclass(kw_only=True)
class Loop(ABC):
    """The parts of a loop, and its counters."""

    task: Task
    sampler: StateSampler
    engine: RolloutEngine
    reward: Reward
    objective: Objective
    policy: DeepSpeedPolicy
    pad: int
    seed: int
    clock: Clock
    limits: StateLimits
    global_step: int = field(init=False, default=0)
    tokens_generated: int = field(init=False, default=0)
    tokens_trained: int = field(init=False, default=0)
    last_rollouts: list[Judged] = field(init=False, default_factory=list)
    last_batch: tuple[Sequence[Rollout], Batch] | None = field(init=False, default=None)
    """The rollouts of the last step's batch, and the batch with its credit, until someone takes them."""
    author: Author | None = field(init=False, default=None, repr=False)
    """What its sampler has texts written by."""

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        self._solves: Counter[str] = Counter()
        self._problems: Counter[int] = Counter()  # by how often they were solved
        self._passed = torch.zeros(2, dtype=torch.long)  # tokens and cells of updates since the last ``costs``

    @property
    @abstractmethod
    def progress(self) -> float:
        """The share of training that is done, 0 to 1."""

    @abstractmethod
    def step(self) -> Metrics:
        """One step, after which training can be saved."""

    @property
    def milestone(self) -> bool:
        """Whether the policy after the last step must be measured and saved, whatever the frequencies."""
        return False

    def run(self) -> Iterator[Metrics]:
        """Steps until training is done; yields each one's metrics."""
        while self.progress < 1:
            try:
                metrics = self.step()
            except DivergenceError as error:
                raise DivergenceError(f"step {self.global_step + 1}: {error.faults[0]}") from error
            yield metrics | self._counters()

    def decode(self, states: Sequence[State]) -> list[Feedback]:
        """One greedy response from each state, judged; its tokens count as generated."""
        sampling = replace(self.engine.sampling, temperature=0.0)
        rollouts = self._written(states, sampling, torch.Generator())
        self.tokens_generated += sum(len(rollout.actions) for rollout in rollouts)
        return spread(rollouts, partial(border.feedback, self.task))

    def state_dict(self) -> StateDict:
        """Counters and random state of the loop itself."""
        return {
            "global_step": self.global_step,
            "tokens_generated": self.tokens_generated,
            "tokens_trained": self.tokens_trained,
            "generator": self._generator.get_state(),
            "solves": dict(self._solves),
        }

    def load_state_dict(self, state: StateDict) -> None:
        self.global_step, self.tokens_generated = state["global_step"], state["tokens_generated"]
        self.tokens_trained = state["tokens_trained"]
        self._generator.set_state(state["generator"])
        self._solves = Counter(state["solves"])
        self._problems = Counter(self._solves.values())

    def _written(self, states: Sequence[State], *how: Any) -> list[Rollout]:
        """The engine's rollouts from these states, which the task begins to judge as soon as each is written."""
        begin = border.begin(self.task)
        return border.rollouts(self.engine, states, *how, vocabulary=self.limits.vocabulary, written=begin)

    def _judge(self, rollouts: Sequence[Rollout]) -> tuple[list[Judged], Metrics]:
        """The rollouts with the verifier's feedback, and its metrics; counts the rollouts."""
        self.last_rollouts = list(map(Judged, rollouts, spread(rollouts, partial(border.feedback, self.task))))
        self.tokens_generated += sum(len(r.actions) for r in rollouts)
        for each in self.last_rollouts:
            name = each.rollout.state.problem.id
            self._problems[self._solves[name]] -= name in self._solves
            self._solves[name] += each.feedback.solved
            self._problems[self._solves[name]] += 1
        return self.last_rollouts, rollout_metrics(self.last_rollouts)

    def _minibatches(self, rows: int, size: int, epochs: int) -> list[Tensor]:
        """The rows of even mini-batches of at most ``size``, for ``epochs`` passes, each in an order of its own."""
        orders = [torch.randperm(rows, generator=self._generator) for _ in range(epochs)]
        return [index for order in orders for index in order.tensor_split(math.ceil(rows / size))]

    def _descend(self, batch: Batch, minibatches: Sequence[Tensor], aggregate: Aggregate) -> Metrics:
        """An optimiser step for each mini-batch, given by its rows; returns the means of their metrics."""
        steps: list[Metrics] = []
        for number, index in enumerate(minibatches, start=1):
            try:
                steps.append(self._optimise(weigh(batch.rows(index), aggregate)))
            except DivergenceError as error:
                raise DivergenceError(f"mini-batch {number}: {error.faults[0]}") from error
            self.tokens_trained += int(batch.mask[index].sum())
        names = dict.fromkeys(name for step in steps for name in step)
        return {name: sum(step.get(name, 0.0) for step in steps) / len(steps) for name in names}

    def _optimise(self, minibatch: Batch) -> Metrics:
        """One optimiser step, its gradient accumulated over ranks and micro-batches; losses are weighted sums."""
        sums: dict[str, float] = defaultdict(float)
        _, parts = self.policy.micro_batches(minibatch)
        self._passed += torch.tensor([[int(part.attention.sum()), part.attention.numel()] for part in parts]).sum(0)
        for number, part in enumerate(parts, start=1):
            actor_loss, critic_loss, metrics = border.losses(self.objective, part, self.policy(part))
            self.policy.backward(actor_loss, critic_loss, last=number == len(parts))
            for name, value in metrics.items():
                sums[name] += value
        own, metrics = self.policy.step(), summed(sums)
        border.refuse_taken(self.objective, metrics, own)
        return {**metrics, **own}

    def costs(self) -> Metrics:
        """Seconds, throughput and the largest memory peaks of any rank, for the phases since the last call.

        A step's seconds exclude evaluation and saving.
        """
        seconds = self.clock.take()
        aside = ("timing_s/testing", "timing_s/save_checkpoint")
        step = sum(value for name, value in seconds.items() if name not in aside)
        tokens = sum(len(each.rollout.actions) for each in self.last_rollouts)
        real, cells = (sum(column) for column in zip(*gathered(self._passed.tolist()), strict=True))
        self._passed.zero_()
        return {
            **seconds,
            **largest(self.clock.peaks()),
            "timing_s/step": step,
            "perf/time_per_step": step,
            "perf/total_num_tokens": float(tokens),
            "perf/padding_frac": 1 - real / cells if cells else 0.0,
            "perf/throughput": tokens / max(step, 1e-9),
        }

    def _counters(self) -> Metrics:
        explored = exploration_metrics(self._problems) if self._solves else {}
        return explored | {
            "training/global_step": float(self.global_step),
            "budget/tokens_generated": float(self.tokens_generated),
            "budget/tokens_trained": float(self.tokens_trained),
        }


def weigh(batch: Batch, aggregate: Aggregate) -> Batch:
    """Give each acted token its share of the optimiser step; the shares sum to one."""
    share = batch.mask.float()
    if aggregate == "sequence":
        share = share / share.sum(1, keepdim=True).clamp(min=1)
    return batch.with_(weight=share / share.sum())
