"""Critic-free objectives: PPO's clipped surrogate, with the siblings of a response in the critic's place."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rrl.functional import group_advantages, leave_one_out_advantages, recovery_credit, weighted_sum
from rrl.parts.objectives.clipped import Clipped
from rrl.ranges import check_ranges, not_negative, positive
from rrl.types import Batch, Metrics, PolicyOutput, Rollout


@dataclass(kw_only=True)
class GRPO(Clipped):
    """GRPO (Shao et al., arXiv 2402.03300): a response's advantage is its score relative to its siblings.

    Siblings are the ``trainer.n`` responses from one start state, or ``siblings.n_replayed`` from a replayed one.

    ``recovery_coef`` is the factor of the credit that the prefix of a replayed state gets: the best score of its
    continuations less the mean of that over the step's replayed states (AXPO, arXiv 2605.28774). Departures: an older
    policy wrote the prefix, for which nothing corrects, since the ratio is to the policy of this step's beginning; the
    baseline is of all states, not of one problem's.
    """

    recovery_coef: float

    needs_siblings = True
    pays_entropy = False

    def __post_init__(self) -> None:
        check_ranges(self, positive("clip_ratio", "importance_cap"), not_negative("recovery_coef"))

    @property
    def credits_prefix(self) -> bool:
        """Whether replayed prefixes get old log-probabilities, too."""
        return self.recovery_coef > 0

    def assign_credit(self, batch: Batch) -> Batch:
        """Every token of a response gets the response's relative score, and a prefix, by key, its credit."""
        scores = torch.where(batch.mask, self.kl.rewards(batch), 0.0).sum(1)
        advantages = torch.where(batch.mask, self._relative(scores, batch.group).unsqueeze(1), 0.0)
        if self.recovery_coef > 0:
            paid = torch.where(batch.mask, batch.rewards, 0.0).sum(1)
            credit = self.recovery_coef * recovery_credit(paid, batch.group, batch.prefix.any(1))
            advantages = torch.where(batch.prefix, credit.unsqueeze(1), advantages)
        self.kl.adapt(batch)
        return batch.with_(advantages=advantages)

    def experience(self, rollouts: Sequence[Rollout], batch: Batch) -> Batch:
        """The batch, which learns from the tokens of prefixes that have credit, too."""
        credited = batch.prefix & (batch.advantages != 0)
        if not credited.any():
            return batch
        drawn = torch.where(credited, batch.old_logprobs, batch.engine_logprobs)  # by no engine: as by the policy
        return batch.with_(mask=batch.mask | credited, engine_logprobs=drawn)

    def loss(self, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
        """Clipped surrogate and KL; the critic's loss is zero."""
        loss, divergence, metrics = self.surrogate(batch, output)
        if self.recovery_coef > 0:
            metrics["actor/prefix_frac"] = weighted_sum(batch.prefix.to(loss.dtype), batch.weight)
        return loss + divergence, torch.zeros_like(loss), {name: float(x.detach()) for name, x in metrics.items()}

    def _relative(self, scores: Tensor, group: Tensor) -> Tensor:
        return group_advantages(scores, group)


@dataclass(kw_only=True)
class RLOO(GRPO):
    """REINFORCE leave-one-out (Ahmadian et al., arXiv 2402.14740): the score less the mean of the siblings'.

    Departure: with the clipped surrogate, which is the policy gradient itself in the first of ``ppo_epochs`` passes
    with one mini-batch.
    """

    def _relative(self, scores: Tensor, group: Tensor) -> Tensor:
        return leave_one_out_advantages(scores, group)
