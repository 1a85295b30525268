"""A reward model as judge: the answer with the higher score is the better one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rrl.contracts import judging
from rrl.contracts.judging import Judge, RewardModel
from rrl.ranges import check_ranges, not_negative
from rrl.types import Comparison, Judgement, Preference, Show


@dataclass(frozen=True, kw_only=True)
class RewardModelJudge(Judge):
    """Scores both answers with ``reward_model``; scores at most ``tie_margin`` apart are a tie.

    The order cannot matter: each answer to a question is scored once. The reward model is loaded when the models that
    wrote the answers are gone, not by ``start``.
    """

    reward_model: RewardModel | None
    tie_margin: float

    def __post_init__(self) -> None:
        if self.reward_model is None:
            raise ValueError(
                "reward_model: missing; choose one, as in reward_model=sequence reward_model.path=FOLDER_OR_ID"
            )
        check_ranges(self, not_negative("tie_margin"))

    def judge(self, comparisons: Sequence[Comparison], show: Show) -> list[Judgement]:
        """By the difference of two scores; a score that is no number is the judge's own failure."""
        assert self.reward_model is not None, "the constructor refuses that"
        both = [pair for c in comparisons for pair in ((c.question, c.first), (c.question, c.second))]
        pairs = list(dict.fromkeys(both))
        scores = dict(zip(pairs, judging.scores(self.reward_model, pairs), strict=True))
        show(1.0, {})
        return [self._compare(scores[c.question, c.first], scores[c.question, c.second]) for c in comparisons]

    def account(self) -> dict[str, Any]:
        about = None if self.reward_model is None else self.reward_model.described()
        return {"judge": "reward_model", "reward_model": about, "tie_margin": self.tie_margin}

    def _compare(self, first: float, second: float) -> Judgement:
        reason = f"scores {first:.6g} and {second:.6g}"
        if not (math.isfinite(first) and math.isfinite(second)):
            return Judgement(Preference.ERROR, reason)
        if abs(first - second) <= self.tie_margin:
            return Judgement(Preference.TIE, reason)
        return Judgement(Preference.FIRST if first > second else Preference.SECOND, reason)
