"""Calls of reward models and judges with checked results, as border.py has them for the other parts."""

from collections.abc import Sequence

from rrl.contracts.breaches import items, refuse_result, typed_repr
from rrl.contracts.calling import calling
from rrl.interfaces import Judge, RewardModel
from rrl.types import Comparison, Judgement, Preference, Show


def scores(model: RewardModel, asked: Sequence[tuple[str, str]]) -> list[float]:
    """A reward model's number for each (prompt, response); the caller checks whether it is finite."""
    with calling("reward model", model, "score"):
        return items(model, "score", model.score(list(asked)), float, len(asked), "pair")


def judgements(judge: Judge, comparisons: Sequence[Comparison], show: Show) -> list[Judgement]:
    with calling("judge", judge, "judge"):
        found = items(judge, "judge", judge.judge(list(comparisons), show), Judgement, len(comparisons), "comparison")
    wrong = [
        f"{typed_repr(judgement)} as item {i}"
        for i, judgement in enumerate(found)
        if not isinstance(judgement.preference, Preference) or not isinstance(judgement.reason, str)
    ]
    refuse_result(judge, "judge", wrong, "a Preference and a text as reason")
    return found
