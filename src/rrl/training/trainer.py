"""The loop of reinforcement learning: choose where to start, write, judge, assign credit, remember, improve."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from rrl.collate import collate, engine_logprobs
from rrl.contracts import border
from rrl.contracts.siblings import Siblings
from rrl.errors import DivergenceError
from rrl.interfaces import Objective, StateDict
from rrl.processes.distributed import agree
from rrl.ranges import at_least_one, check_ranges, not_negative, refuse
from rrl.training.ahead import plain, rollout_of
from rrl.training.course import Between, Course, some
from rrl.training.loop import Aggregate, Loop, LoopSettings, RunStart
from rrl.training.metrics import batch_metrics, mismatch_metrics
from rrl.training.old_logprobs import EngineLogProbs
from rrl.types import Batch, Judged, Metrics, Rollout, State, Verdict

log = logging.getLogger(__name__)
MISMATCH = ("training/rollout_probs_diff_mean", "training/rollout_kl")
"""Distances of the engine from the policy: in probability and, sensitive to small ones too, in nats a token."""


@dataclass(frozen=True, kw_only=True)
class TrainerSettings(LoopSettings):
    """The sizes of a step and the length of training.

    ``train_batch_size`` start states a step, ``n`` rollouts each; ``ppo_epochs`` passes in mini-batches of
    ``ppo_mini_batch_size`` rollouts, one optimiser step each. Training ends after ``total_training_steps`` or with the
    step that reaches ``total_tokens`` newly generated tokens, whichever comes first (null: no limit). In the first
    ``critic_warmup`` steps only the critic learns. ``loss_agg_mode`` is a token's weight: ``token`` gives every token
    of a mini-batch the same, ``sequence`` every response. Responses that the length limit cut off are left out of
    training when ``train_on_truncated`` is false. ``on_mismatch`` is what happens when the engine is further from the
    policy than ``mismatch_limit``, by either measure of ``MISMATCH``. ``old_log_prob`` takes the engine's
    log-probabilities for the policy's (null: they are recomputed). ``siblings`` are the rollouts from each replayed
    start (null: ``n``).
    """

    train_batch_size: int
    n: int
    ppo_epochs: int
    ppo_mini_batch_size: int
    total_training_steps: int | None
    total_tokens: int | None
    critic_warmup: int
    loss_agg_mode: Aggregate
    train_on_truncated: bool
    mismatch_limit: float
    on_mismatch: Literal["warn", "stop", "ignore"]
    old_log_prob: EngineLogProbs | None
    siblings: Siblings | None

    def __post_init__(self) -> None:
        check_ranges(
            self,
            at_least_one("train_batch_size", "n", "ppo_epochs", "ppo_mini_batch_size"),
            not_negative("mismatch_limit", "critic_warmup", "total_training_steps", "total_tokens"),
        )
        rows, divisor = self.ppo_mini_batch_size, f"a divisor of train_batch_size * n = {self.sequences}"
        endless = not self.total_training_steps and not self.total_tokens
        refuse(
            {
                "total_training_steps, total_tokens: expected at least one of them, got neither": endless,
                f"ppo_mini_batch_size: expected {divisor}, got {rows}": self.sequences % rows != 0,
            }
        )

    @property
    def mini_batch(self) -> int:
        return self.ppo_mini_batch_size

    @property
    def optimiser_steps(self) -> int | None:
        per_step = self.ppo_epochs * self.sequences // self.ppo_mini_batch_size
        return None if self.total_training_steps is None else self.total_training_steps * per_step

    def sibling_faults(self) -> list[str]:
        single = self.siblings is not None and self.siblings.n_replayed == 1
        fault = "siblings.n_replayed: 1, but this objective compares rollouts of one start; expected 2 or more, as in 4"
        return [*super().sibling_faults(), *([fault] if single else [])]

    def ahead_faults(self, objective: Objective | None) -> list[str]:
        if objective is None or getattr(objective, "importance_cap", None) is not None:
            return []
        return [
            "engine.ahead: 1, but nothing corrects for rollouts that the weights before the last update wrote; "
            "expected objective.importance_cap=2 with objective=ppo or grpo, or engine.ahead=0"
        ]

    def make(self, start: RunStart, **parts: Any) -> "Trainer":
        return Trainer(settings=self, **parts)

    def course(self, problems: int, longest: int, likely: float | None, expense: int = 0) -> Course:
        """Steps until the first limit is reached; every response has at least one token."""
        about = self._steps(min(likely, longest), expense) if likely else None
        steps = Between(self._steps(longest, expense), about, self._steps(1))
        if steps.least == steps.most:
            steps = steps._replace(likely=steps.most)
        tokens, passes = self.sequences * longest + expense, self.sequences // self.mini_batch
        limit = self.total_tokens - 1 + tokens if self.total_tokens else math.inf
        return Course(
            steps=steps,
            optimised=steps.over(lambda count: count * passes * self.ppo_epochs),
            tokens=int(min(steps.most * tokens, limit)),
            milestones=0,
            of_a_step=[
                f"{self.train_batch_size:,} starts x {self.n}{self._fewer} = {some(self.sequences, 'sequence')} -> "
                f"{some(passes, 'mini-batch')} x {some(self.ppo_epochs, 'epoch')} = "
                f"{some(passes * self.ppo_epochs, 'optimiser step')}",
                *([f"to choose or value states, at most {expense:,} new tokens more"] if expense else []),
            ],
        )

    @property
    def _fewer(self) -> str:
        return "" if self.siblings is None else f" (replayed ones: fewer, x {self.siblings.n_replayed})"

    def _steps(self, tokens: float, expense: int = 0) -> int:
        """The number of steps of training when every response has so many tokens, and a step ``expense`` more."""
        a_step = self.sequences * tokens + expense
        reached = math.ceil(self.total_tokens / a_step) if self.total_tokens else math.inf
        return int(min(reached, self.total_training_steps or math.inf))


@dataclass(kw_only=True)
class Trainer(Loop):
    """The parts of a step; ``step`` is the algorithm."""

    settings: TrainerSettings
    _agrees: bool = field(init=False, default=True)
    _next: list[Rollout] = field(init=False, default_factory=list)

    @property
    def progress(self) -> float:
        return self._progress(self.global_step)

    def step(self) -> Metrics:
        """One step: from start states to an improved policy."""
        # Choose where to start, and write; or take what was written while the step before trained.
        with self.clock.phase("gen"):
            written = self._next or self._written(self._starts(self.progress))

        # Judge, and assign a reward to every token.
        with self.clock.phase("reward"):
            judged, metrics = self._judge(written)
            judged = self._trainable(judged)
            rollouts = [each.rollout for each in judged]
            metrics |= border.observed("reward", self.reward, metrics, judged)
            rewards = [border.token_rewards(self.reward, each) for each in judged]
            agree("start states or rewards", ([(w.state.problem.id, w.state.prefix) for w in written], rewards))

        # Compute log-probabilities and values by policy, critic and frozen reference, then assign credit.
        with self.clock.phase("old_log_prob"):
            batch = collate(rollouts, rewards, self.pad)
            batch, mismatch = self._annotated(batch.with_(engine_logprobs=engine_logprobs(rollouts, batch.mask)))
            metrics |= self._tolerated(mismatch)
        with self.clock.phase("adv"):
            metrics |= border.observed("objective", self.objective, metrics, judged)
            batch = border.credit(self.objective, batch)
            metrics |= batch_metrics(batch)
            self.last_batch = rollouts, batch

        # Remember promising states before the policy is updated.
        with self.clock.phase("observe"):
            metrics |= border.observed("sampler", self.sampler, metrics, judged, batch)

        # Improve; by key, the next rollouts are written meanwhile.
        with self._writing_next(), self.clock.phase("update_actor"):
            self.policy.train_critic_only(self.global_step < self.settings.critic_warmup)
            learnt = border.experience(self.objective, self.sampler, rollouts, batch)
            minibatches = self._minibatches(len(learnt), self.settings.ppo_mini_batch_size, self.settings.ppo_epochs)
            improved = self._descend(learnt, minibatches, self.settings.loss_agg_mode)
            border.refuse_taken(self.objective, improved, metrics)
            metrics |= improved
        self.global_step += 1
        return metrics

    def _progress(self, steps: int) -> float:
        """The share of training that is done after so many steps and the tokens of now."""
        limit, tokens = self.settings.total_training_steps or math.inf, self.settings.total_tokens or math.inf
        return min(1.0, max(steps / limit, self.tokens_generated / tokens))

    def _starts(self, progress: float) -> list[State]:
        """Start states, each as often as it is written from."""
        count, siblings = self.settings.train_batch_size, self.settings.siblings
        states = border.starts(self.sampler, count, progress, self.limits, siblings)
        if siblings is not None:
            return siblings.written(states, count)
        return [state for state in states for _ in range(self.settings.n)]

    @contextmanager
    def _writing_next(self) -> Iterator[None]:
        """With ``engine.ahead``: the rollouts of the next step, if there is one, written while the context lasts."""
        self._next, progress = [], self._progress(self.global_step + 1)
        if not self.engine.ahead or progress >= 1:
            yield
            return
        with ExitStack() as stack:
            with self.clock.phase("gen"):
                starts = self._starts(progress)
                rollouts = stack.enter_context(self.engine.writing(starts))
            yield
            with self.clock.phase("gen"):
                stack.close()
        longest, vocabulary = self.engine.sampling.max_new_tokens, self.limits.vocabulary
        self._next = border.written(self.engine, "writing", rollouts, starts, longest, vocabulary)

    def state_dict(self) -> StateDict:
        """With the rollouts that were written ahead."""
        return super().state_dict() | {"next": list(map(plain, self._next))}

    def load_state_dict(self, state: StateDict) -> None:
        super().load_state_dict(state)
        self._next = [rollout_of(row, self.limits.problems) for row in state.get("next", ())]
        # As the last step left it: the next values are read through it, and their last bits depend on it.
        self.policy.train_critic_only(0 < self.global_step <= self.settings.critic_warmup)

    def _annotated(self, batch: Batch) -> tuple[Batch, Metrics]:
        """The batch with log-probabilities and values, and its distances of the engine from the policy."""
        if self.settings.old_log_prob is not None:
            return self.settings.old_log_prob.annotated(self.policy, batch)
        credits_prefix = getattr(self.objective, "credits_prefix", False)  # few objectives have one
        read = batch.mask | batch.prefix if credits_prefix else batch.mask
        batch = self.policy.annotate(batch.with_(mask=read)).with_(mask=batch.mask)
        return batch, mismatch_metrics(batch, torch.ones(len(batch), dtype=torch.bool))

    def _tolerated(self, distances: Metrics) -> Metrics:
        """The distances of the engine from the policy; warns or stops, by key, when they are too large."""
        limit, agreed = self.settings.mismatch_limit, self._agrees
        beyond = [f"{name} is {distances[name]:.3g}" for name in MISMATCH if not distances[name] <= limit]  # and nan
        self._agrees = not beyond
        if self._agrees or self.settings.on_mismatch == "ignore":
            return distances
        fault = (
            f"{' and '.join(beyond)}; expected at most {limit:g} (trainer.mismatch_limit): the engine drew tokens with "
            "other probabilities than the policy has; look at the engine's precision, temperature and weights, "
            "correct by objective.importance_cap=2, or set trainer.on_mismatch=warn|stop|ignore"
        )
        if self.settings.on_mismatch == "stop":
            raise DivergenceError(fault)
        if agreed:
            log.warning("step %d: %s; reported again only after a step within the limit", self.global_step + 1, fault)
        return distances

    def _trainable(self, judged: Sequence[Judged]) -> list[Judged]:
        """Rollouts without those that the verifier could not judge and, by key, those cut off."""
        known = [each for each in judged if each.feedback.verdict is not Verdict.ERROR]
        kept = [each for each in known if each.rollout.finished or self.settings.train_on_truncated]
        if not kept:
            said = [message for each in judged if (message := each.feedback.evidence.get("message"))]
            why = f"; it said: {said[0]}" if said else ""
            raise DivergenceError(
                f"no rollout to train on: all {len(judged)} were cut off or could not be judged; raise "
                f"data.max_response_length, or look at the verdict/* metrics and at what the verifier says{why}"
            )
        return kept
