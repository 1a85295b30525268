"""Reversal: write a word backwards, letter by letter. A level is a word's length."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from rrl.interfaces import Task
from rrl.parts.tasks.rows import shuffled_epochs
from rrl.ranges import at_least_one, check_ranges
from rrl.types import Example, Feedback, Rollout, Verdict


@dataclass(frozen=True, kw_only=True)
class Reverse(Task):
    """Fixed words per length, none of them in both splits.

    ``lengths`` are counts of letters; ``train_per_length`` and ``test_per_length`` count words; ``start_seed`` fixes
    which.
    """

    lengths: tuple[int, ...]
    train_per_length: int
    test_per_length: int
    start_seed: int

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("train_per_length", "test_per_length"))
        if not self.lengths or min(self.lengths) < 1 or max(self.lengths) > 10:
            raise ValueError(f"lengths: expected lengths from 1 to 10, got {list(self.lengths)}")
        if self.train_per_length + self.test_per_length > len(ascii_lowercase) ** min(self.lengths):
            raise ValueError(f"train_per_length, test_per_length: more than all words of length {min(self.lengths)}")

    def examples(self, split: str) -> list[Example]:
        """The words of ``train`` or of ``test``, length by length."""
        return [example for length in self.lengths for example in self._words(length, split)]

    def demonstrations(self, count: int, seed: int) -> list[Example]:
        """``count`` training words, shuffled; none is repeated before all have been drawn."""
        return shuffled_epochs(self.examples("train"), count, seed)

    def vocabulary(self) -> tuple[str, ...]:
        """The letters and the equals sign."""
        return (*ascii_lowercase, "=")

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """Right when the response is the whole word backwards and ends by itself."""
        return [_judge(rollout) for rollout in rollouts]

    def _words(self, length: int, split: str) -> list[Example]:
        rng = random.Random(f"reverse/{length}/{self.start_seed}")
        numbers = rng.sample(range(len(ascii_lowercase) ** length), self.train_per_length + self.test_per_length)
        chosen = numbers[: self.train_per_length] if split == "train" else numbers[self.train_per_length :]
        return [_example(f"reverse/{split}/{length}/{i}", _spell(number, length)) for i, number in enumerate(chosen)]


def _spell(number: int, length: int) -> str:
    """The word with this number among all of its length."""
    letters = ""
    for _ in range(length):
        number, place = divmod(number, len(ascii_lowercase))
        letters += ascii_lowercase[place]
    return letters


def _example(name: str, word: str) -> Example:
    backwards = " ".join(reversed(word))
    return Example(id=name, level=f"len{len(word)}", question=" ".join(word), reference=backwards, answer=backwards)


def _judge(rollout: Rollout) -> Feedback:
    written = rollout.response.split()
    if any(letter not in ascii_lowercase for letter in written):
        return Feedback(0.0, Verdict.UNPARSEABLE)
    right = rollout.finished and written == rollout.state.problem.example.answer.split()
    return Feedback(float(right), Verdict.RIGHT if right else Verdict.WRONG)
