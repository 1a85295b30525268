"""The engine's log-probabilities in place of recomputed ones: one pass of the actor less in every step."""

import math
from dataclasses import dataclass

import torch

from rrl.errors import DivergenceError
from rrl.interfaces import Objective, RolloutEngine, StateSampler
from rrl.processes.distributed import world_size
from rrl.ranges import at_least_one, check_ranges, positive
from rrl.training.metrics import mismatch_metrics
from rrl.training.policy import DeepSpeedPolicy
from rrl.training.policy_settings import PolicySettings, SharedCritic
from rrl.types import Batch, Metrics


@dataclass(frozen=True, kw_only=True)
class EngineLogProbs:
    """Takes the engine's log-probabilities of its own tokens for those of the policy that wrote them.

    In every step the actor reads ``rows`` rows of each process again. ``tolerance`` is the largest mean absolute
    difference (nats a token) on them that is due to rounding.
    """

    rows: int
    tolerance: float

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("rows"), positive("tolerance"))

    def misfits(
        self, engine: RolloutEngine | None, policy: PolicySettings | None, objective: Objective | None,
        sampler: StateSampler | None,
    ) -> list[str]:  # fmt: skip
        """Faults of other parts under which this would be wrong or without effect; None is a part with own faults."""
        faults = {
            f"engine, but {type(engine).__name__} draws from another distribution than the policy's, or with other "
            "weights; expected engine=auto, hf or static": engine is not None and not engine.is_exact,
            "engine, but critic=shared needs the same pass for its values, so that nothing is saved; expected "
            "critic=own or none": policy is not None and isinstance(policy.critic, SharedCritic),
            "engine, but objective.importance_cap corrects a difference that is then taken for none; expected null": (
                getattr(objective, "importance_cap", None) is not None
            ),
            "engine, but objective.recovery_coef needs the policy's of prefixes; expected 0": (
                getattr(objective, "credits_prefix", False)
            ),
            "engine, but sampler.selection reads entropies, which that pass gives; expected another selection": (
                sampler is not None and sampler.needs_entropies
            ),
        }
        return [f"old_log_prob: {fault}, or old_log_prob=recomputed" for fault, holds in faults.items() if holds]

    def annotated(self, policy: DeepSpeedPolicy, batch: Batch) -> tuple[Batch, Metrics]:
        """The batch, annotated, with the engine's log-probabilities as the old ones, and the comparison of both.

        Raises DivergenceError where the mean difference is beyond the tolerance.
        """
        every = math.ceil(len(batch) / (world_size() * self.rows))
        again = torch.arange(len(batch)) % every == 0
        batch = policy.annotate(batch, every)
        difference = (batch.engine_logprobs - batch.old_logprobs)[again][batch.mask[again]].abs()
        mean, most = float(difference.mean()), float(difference.max())
        if not mean <= self.tolerance:  # nan is beyond
            raise DivergenceError(
                f"log-probabilities of the engine and of the policy differ by {mean:.3g} on average and {most:.3g} at "
                f"most; expected {self.tolerance:g} on average at most (old_log_prob.tolerance), as of the same "
                "weights to rounding; use old_log_prob=recomputed, or raise the tolerance where bfloat16 rounds both"
            )
        metrics = {"training/rollout_logprobs_diff_mean": mean, "training/rollout_logprobs_diff_max": most}
        return batch.with_(old_logprobs=batch.engine_logprobs), metrics | mismatch_metrics(batch, again)
