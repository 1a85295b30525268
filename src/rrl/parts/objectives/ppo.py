"""Proximal policy optimisation with a critic, as used for language models."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from rrl.functional import (
    KLEstimator,
    centre_by_level,
    clipped_policy_loss,
    clipped_value_loss,
    generalised_advantages,
    kl_estimate,
    masked_mean,
    weighted_sum,
    whiten,
)
from rrl.interfaces import Objective, StateDict
from rrl.parts.objectives.importance import corrected
from rrl.ranges import between, check_ranges, not_negative, positive, refuse
from rrl.types import Batch, Metrics, PolicyOutput


@dataclass(kw_only=True)
class PPO(Objective):
    """PPO on tokens (Schulman et al., arXiv 1707.06347; for language models Ziegler et al., arXiv 1909.08593).

    ``gamma`` and ``lam`` are GAE's; ``clip_ratio`` and ``cliprange_value`` the two clips; ``importance_cap``
    is the cap of the correction for an engine that differs from the policy (null: none); ``vf_coef`` and
    ``entropy_coef`` weigh critic loss and entropy bonus. ``kl_coef`` weighs the divergence from the frozen reference:
    paid per token (``kl_in: reward``) or added to the loss (``kl_in: loss``), estimated by ``kl_estimator``. With a
    ``kl_target`` (nats per response) the coefficient adapts: each batch of n rollouts multiplies it by
    1 + clip(KL / target - 1, -0.2, 0.2) n / ``kl_horizon`` (Ziegler et al., section 2.2). ``normalise`` is what
    happens to advantages: ``batch`` whitens them over the batch, ``level`` centres them per level and scales them
    over the batch, ``none`` leaves them.
    """

    gamma: float
    lam: float
    clip_ratio: float
    cliprange_value: float
    importance_cap: float | None
    vf_coef: float
    entropy_coef: float
    kl_coef: float
    kl_in: Literal["reward", "loss"]
    kl_estimator: KLEstimator
    kl_target: float | None
    kl_horizon: int
    normalise: Literal["batch", "level", "none"]
    _kl_coef: float = field(init=False)

    needs_critic = True

    def __post_init__(self) -> None:
        check_ranges(
            self,
            between(0, 1, "gamma", "lam"),
            positive("clip_ratio", "cliprange_value", "importance_cap"),
            not_negative("vf_coef", "entropy_coef", "kl_coef", "kl_horizon"),
        )
        target = self.kl_target
        still = target is not None and (target <= 0 or self.kl_coef == 0 or self.kl_horizon == 0)
        k1 = self.kl_coef > 0 and self.kl_in == "loss" and self.kl_estimator == "k1"
        refuse(
            {
                f"kl_target: {target} needs to be > 0, with kl_coef > 0 and kl_horizon > 0": still,
                "kl_estimator: 'k1' in the loss has an expected gradient of zero; use k2 or k3": k1,
            }
        )
        self._kl_coef = self.kl_coef

    def cautions(self) -> list[str]:
        """A critic that never moves."""
        return ["vf_coef: 0, so that the critic never learns"] if self.vf_coef == 0 else []

    def idle(self) -> dict[str, str]:
        """Keys without effect, and why."""
        unused = ("kl_in", "kl_estimator") if self.kl_coef == 0 else ()
        adaptive = {} if self.kl_target is not None else {"kl_horizon": "objective.kl_target is null"}
        return adaptive | dict.fromkeys(unused, "objective.kl_coef is 0")

    @property
    def needs_reference(self) -> bool:
        """Only when divergence from it costs something."""
        return self.kl_coef > 0

    def assign_credit(self, batch: Batch) -> Batch:
        """Pay the KL, estimate advantages on the acted tokens, normalise them, adapt the coefficient."""
        rewards = self._with_kl(batch)
        advantages, returns = generalised_advantages(rewards, batch.values, batch.mask, gamma=self.gamma, lam=self.lam)
        if self.normalise == "batch":
            advantages = whiten(advantages, batch.mask)
        elif self.normalise == "level":
            advantages = centre_by_level(advantages, batch.mask, batch.level)
        self._adapt(batch)
        return batch.with_(rewards=rewards, advantages=advantages, returns=returns)

    def loss(self, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
        """Clipped surrogate, KL and entropy terms for the actor; clipped squared error for the critic."""
        assert output.values is not None, "config.check lets PPO run with a critic only"
        advantages, told = corrected(batch, self.importance_cap)
        pg_loss, pg_clipfrac = clipped_policy_loss(
            output.logprobs, batch.old_logprobs, advantages, batch.weight, clip_ratio=self.clip_ratio
        )
        vf_loss, vf_clipfrac = clipped_value_loss(
            output.values, batch.values, batch.returns, batch.weight, cliprange_value=self.cliprange_value
        )
        entropy = weighted_sum(output.entropy, batch.weight)
        actor_loss = pg_loss - self.entropy_coef * entropy
        metrics = {
            "actor/pg_loss": pg_loss,
            "actor/pg_clipfrac": pg_clipfrac,
            "actor/ppo_kl": weighted_sum(kl_estimate(output.logprobs, batch.old_logprobs, "k3"), batch.weight),
            "actor/entropy": entropy,
            "critic/vf_loss": vf_loss,
            "critic/vf_clipfrac": vf_clipfrac,
            **told,
        }
        if self.needs_reference and self.kl_in == "loss":
            kl = weighted_sum(kl_estimate(output.logprobs, batch.ref_logprobs, self.kl_estimator), batch.weight)
            actor_loss = actor_loss + self._kl_coef * kl
            metrics["actor/kl_loss"] = kl
        if self.kl_target is not None:
            metrics["actor/kl_coef"] = self._kl_coef * batch.weight.sum()
        return actor_loss, self.vf_coef * vf_loss, {name: float(value.detach()) for name, value in metrics.items()}

    def state_dict(self) -> StateDict:
        """The present KL coefficient."""
        return {"kl_coef": self._kl_coef}

    def load_state_dict(self, state: StateDict) -> None:
        """Go back to a saved KL coefficient."""
        self._kl_coef = state["kl_coef"]

    def _with_kl(self, batch: Batch) -> Tensor:
        if not self.needs_reference or self.kl_in == "loss":
            return batch.rewards
        kl = kl_estimate(batch.old_logprobs, batch.ref_logprobs, self.kl_estimator)
        return torch.where(batch.mask, batch.rewards - self._kl_coef * kl, 0.0)

    def _adapt(self, batch: Batch) -> None:
        if self.kl_target is None:
            return
        kl = kl_estimate(batch.old_logprobs, batch.ref_logprobs, "k1")
        per_response = float(masked_mean(kl, batch.mask) * batch.mask.sum() / len(batch))
        error = min(0.2, max(-0.2, per_response / self.kl_target - 1))
        self._kl_coef *= 1 + error * len(batch) / self.kl_horizon
