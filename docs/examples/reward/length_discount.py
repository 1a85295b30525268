"""The verifier's score on the last token, worth less the longer the response is."""

from dataclasses import dataclass

from rrl.interfaces import Reward
from rrl.ranges import check_ranges, not_negative
from rrl.types import Judged


@dataclass(frozen=True, kw_only=True)
class LengthDiscount(Reward):
    """Pays ``score * discount ** excess``: ``excess`` counts the response's tokens beyond ``free_tokens``.

    The length is that of the whole response, a replayed prefix included, so that a replayed start earns what the same
    response would earn from the prompt.
    """

    discount: float
    free_tokens: int

    def __post_init__(self) -> None:
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount: expected a number above 0 and up to 1, got {self.discount}")
        check_ranges(self, not_negative("free_tokens"))

    def __call__(self, judged: Judged) -> list[float]:
        """Zero on every new token but the last."""
        excess = max(0, len(judged.rollout.tokens) - self.free_tokens)
        return [0.0] * (len(judged.rollout.actions) - 1) + [judged.feedback.score * self.discount**excess]
