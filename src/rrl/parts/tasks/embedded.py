"""The base of the built-in tasks: fixed examples by level without duplicates, and a stream of demonstrations."""

import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rrl.errors import ConfigError
from rrl.interfaces import Task
from rrl.ranges import between, check_ranges
from rrl.types import Example

SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class Embedded(Task):
    """Examples made by ``draw`` and demonstrations made by ``demonstrate``, each from a generator of its own.

    ``train_per_level`` counts examples, at most ``most``; ``held_out`` times as many are held out. No test question is
    in the training set, and ``levels`` that are not ``trained`` are only in the test set. ``start_seed`` fixes it all.
    """

    train_per_level: int
    start_seed: int

    name: ClassVar[str]
    most: ClassVar[int]
    held_out: ClassVar[float] = 0.1

    def __post_init__(self) -> None:
        check_ranges(self, between(1, self.most, "train_per_level"))

    @property
    @abstractmethod
    def levels(self) -> Sequence[str]:
        """All levels, in the order of the examples."""

    @property
    @abstractmethod
    def trained(self) -> Sequence[str]:
        """Those with training problems."""

    @abstractmethod
    def draw(self, rng: random.Random, level: str, id: str) -> Example:
        """An example of the level."""

    @abstractmethod
    def demonstrate(self, rng: random.Random, id: str) -> Example:
        """An example of the stream to warm up on."""

    def examples(self, split: str) -> list[Example]:
        """Examples of ``split``, level by level. Raises ConfigError for one that is not in ``SPLITS``."""
        if split not in SPLITS:
            known = ", ".join(SPLITS)
            raise ConfigError(f"evaluation.split: {self.name} has no split {split!r}; expected one of {known}")
        train = [e for level in self.trained for e in self._drawn(level, "train", self.train_per_level, set())]
        if split == "train":
            return train
        taken = {example.question for example in train}
        return [
            e
            for level in self.levels
            for e in self._drawn(level, split, max(1, round(self.train_per_level * self.held_out)), taken)
        ]

    def demonstrations(self, count: int, seed: int) -> list[Example]:
        """The first ``count`` examples of the stream."""
        rng = random.Random(f"{self.name}/demonstrations/{self.start_seed}/{seed}")
        return [self.demonstrate(rng, f"{self.name}/demonstration/{number}") for number in range(count)]

    def _drawn(self, level: str, split: str, count: int, taken: set[str]) -> list[Example]:
        rng = random.Random(f"{self.name}/{level}/{split}/{self.start_seed}")
        seen, examples = set(taken), list[Example]()
        while len(examples) < count:
            example = self.draw(rng, level, f"{self.name}/{split}/{level}/{len(examples)}")
            if example.question not in seen:
                seen.add(example.question)
                examples.append(example)
        return examples


def check_lengths(lengths: Sequence[int], longest: int) -> None:
    """Raise ValueError unless there are lengths of demonstrations, each from 1 to ``longest``."""
    if not lengths or min(lengths) < 1 or max(lengths) > longest:
        raise ValueError(f"demonstration_lengths: expected lengths from 1 to {longest}, got {list(lengths)}")
