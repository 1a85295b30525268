"""REINFORCE on whole responses: no critic, the batch's mean score as the baseline."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rrl.functional import weighted_sum
from rrl.interfaces import Objective
from rrl.types import Batch, Metrics, PolicyOutput


@dataclass(frozen=True, kw_only=True)
class Reinforce(Objective):
    """Policy gradient (Williams, Machine Learning 1992) with a response's score less the mean score as advantage.

        L = - sum_t w_t A_t log pi(token t),    A = score - mean score of the batch

    With ``leave_one_out`` the mean is that of the other responses, which leaves the gradient unbiased. There is no
    importance ratio: it is meant for one optimiser step on a batch.
    """

    leave_one_out: bool

    def assign_credit(self, batch: Batch) -> Batch:
        """Every new token of a response gets the response's advantage."""
        scores = torch.where(batch.mask, batch.rewards, 0.0).sum(1)
        advantages = scores - scores.mean()
        if self.leave_one_out:
            # s - mean of the others = (s - mean of all) n / (n - 1)
            advantages = advantages * len(scores) / max(1, len(scores) - 1)
        return batch.with_(advantages=torch.where(batch.mask, advantages.unsqueeze(1), 0.0))

    def loss(self, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
        """The policy gradient's loss; the critic's is zero."""
        loss = -weighted_sum(output.logprobs * batch.advantages, batch.weight)
        entropy = weighted_sum(output.entropy, batch.weight)
        metrics = {"actor/pg_loss": float(loss.detach()), "actor/entropy": float(entropy.detach())}
        return loss, torch.zeros_like(loss), metrics
