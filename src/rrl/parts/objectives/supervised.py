"""Supervised fine-tuning on responses, each weighed by its pay: with pay 0 or 1, rejection sampling."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rrl.functional import policy_gradient_loss, weighted_sum
from rrl.interfaces import Objective
from rrl.types import Batch, Metrics, PolicyOutput


@dataclass(frozen=True, kw_only=True)
class Supervised(Objective):
    """Negative log-likelihood of the acted tokens: - sum_t w_t A log pi(t), where A is the whole response's pay.

    Responses that earned nothing teach nothing, and those that earned 1 are imitated, as in rejection-sampling
    fine-tuning (Yuan et al., arXiv 2308.01825).
    """

    needs_annotation = False
    pays_entropy = False

    def assign_credit(self, batch: Batch) -> Batch:
        pay = torch.where(batch.mask, batch.rewards, 0.0).sum(1, keepdim=True)
        return batch.with_(advantages=torch.where(batch.mask, pay, 0.0))

    def loss(self, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
        """The negative log-likelihood; the critic's loss is zero."""
        loss = policy_gradient_loss(output.logprobs, batch.advantages, batch.weight)
        metrics = {"actor/sft_loss": loss, "actor/entropy": weighted_sum(output.entropy, batch.weight)}
        return loss, torch.zeros_like(loss), {name: float(value.detach()) for name, value in metrics.items()}
