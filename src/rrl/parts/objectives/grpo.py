"""Group-relative policy optimisation: PPO's clipped surrogate without a critic."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rrl.functional import KLEstimator, clipped_policy_loss, group_advantages, kl_estimate, weighted_sum
from rrl.interfaces import Objective
from rrl.parts.objectives.importance import corrected
from rrl.ranges import check_ranges, not_negative, positive
from rrl.types import Batch, Metrics, PolicyOutput


@dataclass(frozen=True, kw_only=True)
class GRPO(Objective):
    """GRPO (Shao et al., arXiv 2402.03300): a response's advantage is its score relative to its siblings.

    Siblings are the ``trainer.n`` responses from one start state, replayed or not. ``clip_ratio`` is the clip;
    ``importance_cap`` caps the correction for an engine that differs from the policy (null: none);
    ``kl_coef`` weighs the divergence from the reference in the loss, estimated by ``kl_estimator``.
    """

    clip_ratio: float
    importance_cap: float | None
    kl_coef: float
    kl_estimator: KLEstimator

    needs_siblings = True

    def __post_init__(self) -> None:
        check_ranges(self, positive("clip_ratio", "importance_cap"), not_negative("kl_coef"))
        if self.kl_coef > 0 and self.kl_estimator == "k1":
            raise ValueError("kl_estimator: 'k1' in the loss has an expected gradient of zero; use k2 or k3")

    def idle(self) -> dict[str, str]:
        """Keys without effect, and why."""
        return {"kl_estimator": "objective.kl_coef is 0"} if self.kl_coef == 0 else {}

    @property
    def needs_reference(self) -> bool:
        """Only when divergence from it costs something."""
        return self.kl_coef > 0

    def assign_credit(self, batch: Batch) -> Batch:
        """Every token of a response gets the response's relative score."""
        scores = torch.where(batch.mask, batch.rewards, 0.0).sum(1)
        advantages = torch.where(batch.mask, group_advantages(scores, batch.group).unsqueeze(1), 0.0)
        return batch.with_(advantages=advantages)

    def loss(self, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
        """Clipped surrogate and KL; the critic's loss is zero."""
        advantages, told = corrected(batch, self.importance_cap)
        loss, clipped = clipped_policy_loss(
            output.logprobs, batch.old_logprobs, advantages, batch.weight, clip_ratio=self.clip_ratio
        )
        metrics = {
            "actor/pg_loss": loss,
            "actor/pg_clipfrac": clipped,
            "actor/ppo_kl": weighted_sum(kl_estimate(output.logprobs, batch.old_logprobs, "k3"), batch.weight),
            "actor/entropy": weighted_sum(output.entropy, batch.weight),
            **told,
        }
        if self.needs_reference:
            kl = weighted_sum(kl_estimate(output.logprobs, batch.ref_logprobs, self.kl_estimator), batch.weight)
            loss = loss + self.kl_coef * kl
            metrics["actor/kl_loss"] = kl
        return loss, torch.zeros_like(loss), {name: float(value.detach()) for name, value in metrics.items()}
