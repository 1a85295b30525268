"""The actor's side of PPO and GRPO: a clipped surrogate, corrected for the engine, and the cost of divergence."""

from dataclasses import dataclass

from torch import Tensor

from rrl.functional import clipped_policy_loss, kl_estimate, truncated_importance, weighted_sum
from rrl.interfaces import Objective, StateDict
from rrl.parts.objectives.kl import KL
from rrl.ranges import check_ranges, positive
from rrl.types import Batch, PolicyOutput


@dataclass(kw_only=True)
class Clipped(Objective):
    """An objective with a clipped surrogate.

    ``clip_ratio`` is the clip; ``importance_cap`` caps the correction for an engine that differs from the policy
    (null: none); ``kl`` is what divergence from the frozen reference costs.
    """

    clip_ratio: float
    importance_cap: float | None
    kl: KL

    def __post_init__(self) -> None:
        check_ranges(self, positive("clip_ratio", "importance_cap"))

    @property
    def needs_reference(self) -> bool:
        """Only when divergence from it costs something."""
        return self.kl.needs_reference

    def surrogate(self, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor | float, dict[str, Tensor]]:
        """The loss, the term that divergence adds to it, and the metrics of both."""
        advantages, corrections = self._corrected(batch)
        loss, clipped = clipped_policy_loss(
            output.logprobs, batch.old_logprobs, advantages, batch.weight, clip_ratio=self.clip_ratio
        )
        divergence, paid = self.kl.term(batch, output)
        return loss, divergence, {
            "actor/pg_loss": loss,
            "actor/pg_clipfrac": clipped,
            "actor/ppo_kl": weighted_sum(kl_estimate(batch.old_logprobs, output.logprobs, "k3"), batch.weight),
            "actor/entropy": weighted_sum(output.entropy, batch.weight),
            **corrections,
            **paid,
        }  # fmt: skip

    def state_dict(self) -> StateDict:
        return {"kl": self.kl.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        self.kl.load_state_dict(state["kl"])

    def _corrected(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Advantages times the truncated importance of their tokens, and its metrics; unchanged without a cap.

        The factor is never negative, so that it is one of the token's whole clipped term, as a weight would be.
        """
        cap = self.importance_cap
        if cap is None:
            return batch.advantages, {}
        importance = truncated_importance(batch.old_logprobs, batch.engine_logprobs, batch.weight, cap=cap)
        return batch.advantages * importance, {
            "actor/importance_mean": weighted_sum(importance, batch.weight),
            "actor/importance_capfrac": weighted_sum((importance >= cap).to(importance.dtype), batch.weight),
        }
