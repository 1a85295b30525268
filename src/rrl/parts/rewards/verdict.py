"""The natural reward of verifiable tasks: the verifier's score, paid on the last token."""

from dataclasses import dataclass

from rrl.interfaces import Reward
from rrl.ranges import check_ranges, not_negative
from rrl.types import Judged


@dataclass(frozen=True, kw_only=True)
class OutcomeReward(Reward):
    """Pays ``score``, less ``truncation_penalty`` when the length limit cut the response off, on its last token."""

    truncation_penalty: float

    def __post_init__(self) -> None:
        check_ranges(self, not_negative("truncation_penalty"))

    def __call__(self, judged: Judged) -> list[float]:
        last = judged.feedback.score - (0.0 if judged.rollout.finished else self.truncation_penalty)
        return [0.0] * (len(judged.rollout.actions) - 1) + [last]
