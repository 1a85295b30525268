"""The loop: choose where to start, write, judge, assign credit, remember, improve."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from rrl.clock import Clock
from rrl.collate import collate, engine_logprobs, micro_batches
from rrl.distributed import agree, device, share, spread, summed
from rrl.errors import DivergenceError
from rrl.interfaces import Objective, Policy, Reward, RolloutEngine, StateDict, StateSampler, Task
from rrl.metrics import batch_metrics, exploration_metrics, rollout_metrics
from rrl.ranges import at_least_one, not_negative
from rrl.types import Batch, Feedback, Metrics, Rollout, State, Verdict


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """The sizes of a step and the length of training.

    ``train_batch_size`` start states a step, ``n`` rollouts each; ``ppo_epochs`` passes in mini-batches of
    ``ppo_mini_batch_size`` rollouts, one optimiser step each. Training ends after ``total_training_steps`` or with the
    step that reaches ``total_tokens`` newly generated tokens, whichever comes first (null: no limit). In the first
    ``critic_warmup`` steps only the critic learns. ``aggregate`` is a token's weight: ``token`` gives every token of a
    mini-batch the same, ``sequence`` every response. Responses that the length limit cut off are left out of training
    when ``train_on_truncated`` is false.
    """

    train_batch_size: int
    n: int
    ppo_epochs: int
    ppo_mini_batch_size: int
    total_training_steps: int | None
    total_tokens: int | None
    critic_warmup: int
    aggregate: Literal["token", "sequence"]
    train_on_truncated: bool

    def __post_init__(self) -> None:
        at_least_one(self, "train_batch_size", "n", "ppo_epochs", "ppo_mini_batch_size")
        not_negative(self, "critic_warmup", "total_training_steps", "total_tokens")
        if not self.total_training_steps and not self.total_tokens:
            raise ValueError("total_training_steps, total_tokens: expected at least one of them, got neither")
        if self.train_batch_size * self.n % self.ppo_mini_batch_size:
            raise ValueError(
                f"ppo_mini_batch_size: expected a divisor of train_batch_size * n = {self.train_batch_size * self.n}, "
                f"got {self.ppo_mini_batch_size}"
            )


@dataclass(kw_only=True)
class Trainer:
    """Everything a step needs; ``step`` is the algorithm."""

    settings: TrainerSettings
    task: Task
    sampler: StateSampler
    engine: RolloutEngine
    reward: Reward
    objective: Objective
    policy: Policy
    pad: int
    micro_batch_size: int
    seed: int
    clock: Clock
    global_step: int = field(init=False, default=0)
    tokens_generated: int = field(init=False, default=0)
    tokens_trained: int = field(init=False, default=0)
    last_rollouts: list[tuple[Rollout, Feedback]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        self._solves: Counter[str] = Counter()

    @property
    def progress(self) -> float:
        """The share of training that is done, 0 to 1."""
        steps, tokens = self.settings.total_training_steps or math.inf, self.settings.total_tokens or math.inf
        return min(1.0, max(self.global_step / steps, self.tokens_generated / tokens))

    def run(self) -> Iterator[Metrics]:
        """Steps until training is done; yields each one's metrics."""
        while self.progress < 1:
            try:
                metrics = self.step()
            except DivergenceError as error:
                raise DivergenceError(f"step {self.global_step + 1}: {error.faults[0]}") from error
            yield metrics | self._counters()

    def step(self) -> Metrics:
        """One step: from start states to an improved policy."""
        # Choose where to start, and write.
        with self.clock.phase("gen"):
            states = self.sampler.sample(self.settings.train_batch_size, self.progress)
            starts = [state for state in states for _ in range(self.settings.n)]
            rollouts = self.engine.generate(starts, written=self.task.begin)

        # Judge, and price every token.
        with self.clock.phase("reward"):
            feedback = spread(rollouts, self.task.verify)
            metrics = rollout_metrics(rollouts, feedback)
            self._count(rollouts, feedback)
            rollouts, feedback = self._trainable(rollouts, feedback)
            metrics |= self.reward.observe(rollouts, feedback)
            rewards = [self.reward(r, f) for r, f in zip(rollouts, feedback, strict=True)]
            agree("start states or rewards", ([(s.problem.id, s.prefix) for s in states], rewards))

        # Gather what policy, critic and frozen reference thought, then assign credit.
        with self.clock.phase("old_log_prob"):
            batch = self.policy.annotate(collate(rollouts, rewards, self.pad))
        with self.clock.phase("adv"):
            batch = self.objective.assign_credit(batch)
            metrics |= batch_metrics(batch, engine_logprobs(rollouts, batch.mask))

        # Remember promising states before the policy moves.
        with self.clock.phase("observe"):
            metrics |= self.sampler.observe(rollouts, feedback, batch)

        # Improve.
        with self.clock.phase("update_actor"):
            self.policy.train_critic_only(self.global_step < self.settings.critic_warmup)
            metrics |= self._improve(self.objective.experience(rollouts, batch))
        self.global_step += 1
        return metrics

    def decode(self, states: Sequence[State]) -> list[Feedback]:
        """One greedy response from each state, judged; its tokens count as generated."""
        sampling = replace(self.engine.sampling, temperature=0.0)
        rollouts = self.engine.generate(states, sampling, torch.Generator(), self.task.begin)
        self.tokens_generated += sum(len(rollout.actions) for rollout in rollouts)
        return spread(rollouts, self.task.verify)

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
        """Go back to a saved state."""
        self.global_step, self.tokens_generated = state["global_step"], state["tokens_generated"]
        self.tokens_trained = state["tokens_trained"]
        self._generator.set_state(state["generator"])
        self._solves = Counter(state["solves"])

    def _count(self, rollouts: Sequence[Rollout], feedback: Sequence[Feedback]) -> None:
        self.tokens_generated += sum(len(r.actions) for r in rollouts)
        self.last_rollouts = list(zip(rollouts, feedback, strict=True))
        for rollout, judged in self.last_rollouts:
            self._solves[rollout.state.problem.id] += judged.solved

    def _trainable(
        self, rollouts: Sequence[Rollout], feedback: Sequence[Feedback]
    ) -> tuple[list[Rollout], list[Feedback]]:
        """Without what the verifier could not judge and, by key, what was cut off."""
        kept = [
            (r, f)
            for r, f in zip(rollouts, feedback, strict=True)
            if f.verdict is not Verdict.ERROR and (r.finished or self.settings.train_on_truncated)
        ]
        if not kept:
            raise DivergenceError(
                f"no rollout to train on: all {len(rollouts)} were cut off or could not be judged; raise "
                "data.max_response_length or look at the verdict/* metrics"
            )
        return [r for r, _ in kept], [f for _, f in kept]

    def _improve(self, batch: Batch) -> Metrics:
        """``ppo_epochs`` passes over the batch in even mini-batches; returns the means over them."""
        steps: list[Metrics] = []
        for _ in range(self.settings.ppo_epochs):
            order = torch.randperm(len(batch), generator=self._generator)
            parts = math.ceil(len(batch) / self.settings.ppo_mini_batch_size)
            for number, index in enumerate(order.tensor_split(parts), start=1):
                try:
                    steps.append(self._optimise(weigh(batch.rows(index), self.settings.aggregate)))
                except DivergenceError as error:
                    raise DivergenceError(f"mini-batch {number}: {error.faults[0]}") from error
        self.tokens_trained += int(batch.mask.sum()) * self.settings.ppo_epochs
        return {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}

    def _optimise(self, minibatch: Batch) -> Metrics:
        """One optimiser step, its gradient accumulated over ranks and micro-batches; losses are weighted sums."""
        sums: dict[str, float] = defaultdict(float)
        parts = micro_batches(share(minibatch).to(device()), self.micro_batch_size)
        for number, part in enumerate(parts, start=1):
            actor_loss, critic_loss, metrics = self.objective.loss(part, self.policy(part))
            self.policy.backward(actor_loss, critic_loss, last=number == len(parts))
            for name, value in metrics.items():
                sums[name] += value
        return {**summed(sums), **self.policy.step()}

    def _counters(self) -> Metrics:
        return exploration_metrics(self._solves.values()) | {
            "training/global_step": float(self.global_step),
            "budget/tokens_generated": float(self.tokens_generated),
            "budget/tokens_trained": float(self.tokens_trained),
        }


def weigh(batch: Batch, aggregate: Literal["token", "sequence"]) -> Batch:
    """Give each acted token its share of the optimiser step; the shares sum to one."""
    share = batch.mask.float()
    if aggregate == "sequence":
        share = share / share.sum(1, keepdim=True).clamp(min=1)
    return batch.with_(weight=share / share.sum())
