"""What divergence from the frozen reference costs: nothing, a price in the reward, or a term of the loss."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from rrl.functional import kl_estimate, masked_mean, weighted_sum
from rrl.interfaces import StateDict, Stateful
from rrl.ranges import OutOfRange, at_least_one, check_ranges, positive
from rrl.types import Batch, PolicyOutput

Term = tuple[Tensor | float, dict[str, Tensor]]
"""What is added to the actor's loss, and the metrics of it."""


class KL(Stateful):
    """What an objective asks of each of them."""

    @property
    def needs_reference(self) -> bool:
        """True when a frozen reference has to be at hand."""
        return False

    def rewards(self, batch: Batch) -> Tensor:
        """The rewards [batch, time] less what the divergence costs."""
        return batch.rewards

    def term(self, batch: Batch, output: PolicyOutput) -> Term:
        """A term of the actor's loss."""
        return 0.0, {}

    def adapt(self, batch: Batch) -> None:
        """Learn from the batch of a step when its credit has been assigned."""


@dataclass(kw_only=True)
class NoKL(KL):
    """Divergence is free, and no reference is kept in memory."""


@dataclass(kw_only=True)
class _Priced(KL):
    """Divergence costs ``coef`` times an estimate of it."""

    coef: float

    needs_reference = True

    def __post_init__(self) -> None:
        if not self.coef > 0:
            fault = f"coef: expected a number > 0, got {self.coef:g}; kl=none lets divergence be free"
            raise OutOfRange([fault], ["coef"])


@dataclass(kw_only=True)
class RewardKL(_Priced):
    """Every token pays ``coef`` times the k1 estimate of its divergence (Ziegler et al., arXiv 1909.08593, eq. 2).

    ``price`` is the present price: return per nat.
    """

    price: float = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.price = self.coef

    def rewards(self, batch: Batch) -> Tensor:
        kl = kl_estimate(batch.old_logprobs, batch.ref_logprobs, "k1")
        return torch.where(batch.mask, batch.rewards - self.price * kl, 0.0)


@dataclass(kw_only=True)
class AdaptiveKL(RewardKL):
    """The same at a price that adapts until a response diverges by ``target`` nats (Ziegler et al., section 2.2).

    It begins at ``coef``; each batch of n rollouts multiplies it by 1 + clip(KL / target - 1, -0.2, 0.2) n / horizon.
    """

    target: float
    horizon: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, positive("target"), at_least_one("horizon"))

    def term(self, batch: Batch, output: PolicyOutput) -> Term:
        """No term; the price is a metric."""
        return 0.0, {"actor/kl_coef": self.price * batch.weight.sum()}

    def adapt(self, batch: Batch) -> None:
        """Raise or lower the price by the divergence of the batch, in nats a response."""
        kl = kl_estimate(batch.old_logprobs, batch.ref_logprobs, "k1")
        per_response = float(masked_mean(kl, batch.mask) * batch.mask.sum() / len(batch))
        error = min(0.2, max(-0.2, per_response / self.target - 1))
        self.price *= 1 + error * len(batch) / self.horizon

    def state_dict(self) -> StateDict:
        return {"price": self.price}

    def load_state_dict(self, state: StateDict) -> None:
        self.price = state["price"]


@dataclass(kw_only=True)
class LossKL(_Priced):
    """``coef`` times the divergence is added to the loss (Shao et al., arXiv 2402.03300, eq. 3).

    ``estimator`` is k2 or k3: the expected gradient of k1 in a loss is zero (docs/ppo.md).
    """

    estimator: Literal["k2", "k3"]

    def term(self, batch: Batch, output: PolicyOutput) -> Term:
        """The term, and the divergence as a metric."""
        kl = weighted_sum(kl_estimate(output.logprobs, batch.ref_logprobs, self.estimator), batch.weight)
        return self.coef * kl, {"actor/kl_loss": kl}
