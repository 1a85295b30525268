"""The correction for an engine whose probabilities are not quite those of the policy that is trained."""

from torch import Tensor

from rrl.functional import truncated_importance, weighted_sum
from rrl.types import Batch


def corrected(batch: Batch, cap: float | None) -> tuple[Tensor, dict[str, Tensor]]:
    """Advantages times the truncated importance of their tokens, and its metrics; unchanged without a cap.

    The factor is never negative, so that it is one of the token's whole clipped term, as a weight would be.
    """
    if cap is None:
        return batch.advantages, {}
    importance = truncated_importance(batch.old_logprobs, batch.engine_logprobs, batch.weight, cap=cap)
    return batch.advantages * importance, {
        "actor/importance_mean": weighted_sum(importance, batch.weight),
        "actor/importance_capfrac": weighted_sum((importance >= cap).to(importance.dtype), batch.weight),
    }
