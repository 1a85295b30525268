"""The pairs of responses on which a reward model is trained and measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from rrl.contracts import border
from rrl.errors import DataError
from rrl.interfaces import Task
from rrl.ranges import at_least_one, check_ranges
from rrl.types import Pair


@dataclass(frozen=True, kw_only=True)
class PairChoice:
    """The splits ``train`` and ``test``, and the number of pairs of each (``train_limit``, ``test_limit``; null: all).

    Fewer than all are drawn by ``seed``. A training pair whose prompt is also a test pair's is left out.
    """

    train: str
    test: str
    train_limit: int | None
    test_limit: int | None
    seed: int

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("train_limit", "test_limit"))

    def choose(self, task: Task) -> tuple[list[Pair], list[Pair], int]:
        """Training pairs, test pairs, and the number of training pairs left out. Raises DataError for none."""
        train, test = border.pairs(task, self.train), border.pairs(task, self.test)
        faults = [
            f"pairs.{name}: the task {type(task).__name__} has no pairs in its split {split!r}; expected a task with "
            "preferences, such as task=hh, and at least one pair with different sides"
            for name, split, pairs in (("train", self.train, train), ("test", self.test, test))
            if not pairs
        ]
        if faults:
            raise DataError(*faults)
        held_out = {pair.prompt for pair in test}
        apart = [pair for pair in train if pair.prompt not in held_out]
        if not apart:
            raise DataError(
                f"pairs.train, pairs.test: every prompt of {self.train!r} is also in {self.test!r}; expected splits "
                "that differ"
            )
        return self._some(apart, self.train_limit), self._some(test, self.test_limit), len(train) - len(apart)

    def _some(self, pairs: Sequence[Pair], limit: int | None) -> list[Pair]:
        if limit is None or limit >= len(pairs):
            return list(pairs)
        kept = sorted(Random(f"pairs/{self.seed}").sample(range(len(pairs)), limit))
        return [pairs[i] for i in kept]
