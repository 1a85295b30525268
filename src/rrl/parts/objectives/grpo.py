"""Critic-free objectives: PPO's clipped surrogate, with the siblings of a response in the critic's place."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rrl.functional import group_advantages, leave_one_out_advantages
from rrl.parts.objectives.clipped import Clipped
from rrl.types import Batch, Metrics, PolicyOutput


@dataclass(kw_only=True)
class GRPO(Clipped):
    """GRPO (Shao et al., arXiv 2402.03300): a response's advantage is its score relative to its siblings.

    Siblings are the ``trainer.n`` responses from one start state, or ``siblings.n_replayed`` from a replayed one.
    """

    needs_siblings = True
    pays_entropy = False

    def assign_credit(self, batch: Batch) -> Batch:
        """Every token of a response gets the response's relative score."""
        scores = torch.where(batch.mask, self.kl.rewards(batch), 0.0).sum(1)
        advantages = torch.where(batch.mask, self._relative(scores, batch.group).unsqueeze(1), 0.0)
        self.kl.adapt(batch)
        return batch.with_(advantages=advantages)

    def loss(self, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
        """Clipped surrogate and KL; the critic's loss is zero."""
        loss, divergence, metrics = self.surrogate(batch, output)
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
