"""The contract of reward models, of what trains them, and of judges; and calls of them with checked results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from rrl.contracts.breaches import items, refuse_result, typed_repr
from rrl.contracts.calling import calling
from rrl.types import Comparison, Judgement, Pair, Preference, Show


class RewardModel(Protocol):
    """A reward model: one number for each response; higher is better."""

    def start(self) -> None:
        """Load it onto this process's device; idempotent. Raises DataError where it is no reward model."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One number for each (prompt, response), in order; computed in batches; loads at its first use."""

    def described(self) -> dict[str, Any]:
        """For a report: its origin, the number of texts read, and the number of those that were cut."""


class RewardModelTrainer(Protocol):
    """Trains a reward model on pairs."""

    @property
    def needs_model(self) -> bool:
        """True when it starts from the language model of the run."""
        return False

    def train(
        self, model: Any, tokenizer: Any, pairs: Sequence[Pair], folder: Path, seed: int, show: Show
    ) -> RewardModel:
        """Train, write the reward model to ``folder``, and return it as loaded from there."""


class Judge(Protocol):
    """Decides which of two answers to a question is better."""

    def start(self) -> None:
        """Check what it needs before answers are written; UsageError where something is missing."""

    def judge(self, comparisons: Sequence[Comparison], show: Show) -> list[Judgement]:
        """One judgement per comparison, in order. Its own failures are judgements too, unless none could succeed."""

    def account(self) -> dict[str, Any]:
        """Its name and its costs so far, as plain data without secrets."""


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
