"""Proximal policy optimisation with a critic, as used for language models."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from rrl.functional import (
    centre_by_level,
    clipped_value_loss,
    generalised_advantages,
    whiten,
    whiten_apart,
    whiten_siblings,
)
from rrl.parts.objectives.clipped import Clipped
from rrl.ranges import between, check_ranges, not_negative, positive
from rrl.types import Batch, Metrics, PolicyOutput


@dataclass(kw_only=True)
class PPO(Clipped):
    """PPO on tokens (Schulman et al., arXiv 1707.06347; for language models Ziegler et al., arXiv 1909.08593).

    ``gamma`` and ``gae_lambda`` are GAE's; ``cliprange_value`` is the critic's clip; ``vf_coef`` and ``entropy_coef``
    weigh critic loss and entropy bonus. ``advantage_norm`` is what happens to advantages: ``batch`` whitens them over
    the batch, ``origin`` whitens those of fresh and of replayed rollouts apart (SRPO, arXiv 2605.25507),
    ``siblings`` does so with the mean of each replayed state's own rollouts, ``level`` centres them per level and
    scales them over the batch, ``none`` leaves them.
    """

    gamma: float
    gae_lambda: float
    cliprange_value: float
    vf_coef: float
    entropy_coef: float
    advantage_norm: Literal["batch", "origin", "siblings", "level", "none"]

    needs_critic = True

    def __post_init__(self) -> None:
        check_ranges(
            self,
            between(0, 1, "gamma", "gae_lambda"),
            positive("clip_ratio", "cliprange_value", "importance_cap"),
            not_negative("vf_coef", "entropy_coef"),
        )

    @property
    def pays_entropy(self) -> bool:
        """Only with a bonus."""
        return self.entropy_coef > 0

    def cautions(self) -> list[str]:
        """A critic that never moves."""
        return ["vf_coef: 0, so that the critic never learns"] if self.vf_coef == 0 else []

    def assign_credit(self, batch: Batch) -> Batch:
        """Pay for divergence, estimate advantages on the acted tokens, normalise them."""
        rewards = self.kl.rewards(batch)
        advantages, returns = generalised_advantages(
            rewards, batch.values, batch.mask, gamma=self.gamma, lam=self.gae_lambda
        )
        if self.advantage_norm == "batch":
            advantages = whiten(advantages, batch.mask)
        elif self.advantage_norm == "origin":
            advantages = whiten_apart(advantages, batch.mask, batch.replayed)
        elif self.advantage_norm == "siblings":
            advantages = whiten_siblings(advantages, batch.mask, batch.group, batch.replayed)
        elif self.advantage_norm == "level":
            advantages = centre_by_level(advantages, batch.mask, batch.level)
        self.kl.adapt(batch)
        return batch.with_(rewards=rewards, advantages=advantages, returns=returns)

    def loss(self, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
        """Clipped surrogate, KL and entropy terms for the actor; clipped squared error for the critic."""
        assert output.values is not None, "config.check lets PPO run with a critic only"
        pg_loss, divergence, metrics = self.surrogate(batch, output)
        vf_loss, vf_clipfrac = clipped_value_loss(
            output.values, batch.values, batch.returns, batch.weight, cliprange_value=self.cliprange_value
        )
        actor_loss = pg_loss - self.entropy_coef * metrics["actor/entropy"] + divergence
        metrics |= {"critic/vf_loss": vf_loss, "critic/vf_clipfrac": vf_clipfrac}
        return actor_loss, self.vf_coef * vf_loss, {name: float(value.detach()) for name, value in metrics.items()}
