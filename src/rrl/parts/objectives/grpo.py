"""Group-relative policy optimisation: PPO's clipped surrogate without a critic."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rrl.functional import clipped_policy_loss, group_advantages, kl_estimate, weighted_sum
from rrl.interfaces import Objective, StateDict
from rrl.parts.objectives.importance import corrected
from rrl.parts.objectives.kl import KL
from rrl.ranges import check_ranges, positive
from rrl.types import Batch, Metrics, PolicyOutput


@dataclass(frozen=True, kw_only=True)
class GRPO(Objective):
    """GRPO (Shao et al., arXiv 2402.03300): a response's advantage is its score relative to its siblings.

    Siblings are the ``trainer.n`` responses from one start state, replayed or not. ``clip_ratio`` is the clip;
    ``importance_cap`` caps the correction for an engine that differs from the policy (null: none); ``kl`` is what
    divergence from the frozen reference costs.
    """

    clip_ratio: float
    importance_cap: float | None
    kl: KL

    needs_siblings = True

    def __post_init__(self) -> None:
        check_ranges(self, positive("clip_ratio", "importance_cap"))

    @property
    def needs_reference(self) -> bool:
        """Only when divergence from it costs something."""
        return self.kl.needs_reference

    def assign_credit(self, batch: Batch) -> Batch:
        """Every token of a response gets the response's relative score."""
        scores = torch.where(batch.mask, self.kl.rewards(batch), 0.0).sum(1)
        advantages = torch.where(batch.mask, group_advantages(scores, batch.group).unsqueeze(1), 0.0)
        self.kl.adapt(batch)
        return batch.with_(advantages=advantages)

    def loss(self, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
        """Clipped surrogate and KL; the critic's loss is zero."""
        advantages, corrections = corrected(batch, self.importance_cap)
        loss, clipped = clipped_policy_loss(
            output.logprobs, batch.old_logprobs, advantages, batch.weight, clip_ratio=self.clip_ratio
        )
        divergence, paid = self.kl.term(batch, output)
        metrics = {
            "actor/pg_loss": loss,
            "actor/pg_clipfrac": clipped,
            "actor/ppo_kl": weighted_sum(kl_estimate(output.logprobs, batch.old_logprobs, "k3"), batch.weight),
            "actor/entropy": weighted_sum(output.entropy, batch.weight),
            **corrections,
            **paid,
        }
        return (
            loss + divergence,
            torch.zeros_like(loss),
            {name: float(value.detach()) for name, value in metrics.items()},
        )

    def state_dict(self) -> StateDict:
        """What the cost of divergence has learnt."""
        return {"kl": self.kl.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        """Go back to a saved state."""
        self.kl.load_state_dict(state["kl"])
