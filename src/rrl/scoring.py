"""What reward models, their training, and judges must do: signatures only; the rules of ``interfaces.py`` hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from rrl.types import Comparison, Judgement, Pair, Show


class Scorer(Protocol):
    """A reward model: one number for each response, of which the higher is the better."""

    def start(self) -> None:
        """Load it onto this process's device, unless that is done. Raises DataError for a model that is none."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One number for each (prompt, response), in order; a batch at a time, loading at its first use."""

    def described(self) -> dict[str, Any]:
        """What goes into a report: where it is from, how many texts it has read and how many of them it had to cut."""


class Fit(Protocol):
    """Trains a reward model on pairs; ``needs_model`` is true when it begins with the language model of the run."""

    needs_model: ClassVar[bool]

    def fit(self, model: Any, tokenizer: Any, pairs: Sequence[Pair], folder: Path, seed: int, show: Show) -> Scorer:
        """Train, write the reward model to ``folder``, and return it as it is read from there."""


class Judge(Protocol):
    """Says which of two answers to a question is better."""

    def start(self) -> None:
        """Look whether what it needs is at hand, before answers are written. Raises UsageError when it is not."""

    def judge(self, comparisons: Sequence[Comparison], show: Show) -> list[Judgement]:
        """One judgement per comparison, in order. Its own failures are judgements too, unless none could succeed."""

    def account(self) -> dict[str, Any]:
        """Who it is and what it has cost so far, as plain data without secrets."""
