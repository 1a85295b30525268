r"""Little functions to write: each word of the question becomes a line of Python, and unit tests judge the whole.

    add 3 cap 9 . . . . . .   ->   def f(x): \n x += 3 \n x = min(x, 9 ) \n return x

A reward is earned only by a program that passes every test in the sandbox, so that it cannot be guessed. Some words are
easy and some hard (``weak``: rare in the warm start), and easy problems teach nothing about hard words, which makes the
hard level a sparse-reward problem. A level is a number of words and a kind of word: see ``LEVELS``.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rrl.interfaces import Task
from rrl.ranges import between
from rrl.tasks.judging import Judge, Suite
from rrl.types import Example, Feedback, Rollout


class Word(NamedTuple):
    """What a word of a question means: a line of Python with {} for its number, and what that does to x."""

    line: str
    effect: Callable[[int, int], int]


STRONG = {
    "add": Word("x += {}", lambda x, c: x + c),
    "take": Word("x -= {}", lambda x, c: x - c),
}
WEAK = {
    "times": Word("x *= {}", lambda x, c: x * c),
    "share": Word("x //= {}", lambda x, c: x // c),
    "rest": Word("x %= {}", lambda x, c: x % c),
    "cap": Word("x = min(x, {} )", lambda x, c: min(x, c)),
    "lift": Word("x = max(x, {} )", lambda x, c: max(x, c)),
    "gap": Word("x = abs(x - {} )", lambda x, c: abs(x - c)),
    "flip": Word("x = {} - x", lambda x, c: c - x),
    "square": Word("x = x * x + {}", lambda x, c: x * x + c),
}
WORDS = STRONG | WEAK
LEVELS = {"easy3": (3, STRONG), "hard3": (3, WEAK), "hard5": (5, WEAK)}
TRAINED = ("easy3", "hard5")
LONGEST = 5
NUMBERS = range(1, 10)
ARGUMENTS = range(-30, 31)
Plan = list[tuple[str, int]]
"""The words of a question with their numbers."""


@dataclass(frozen=True, kw_only=True)
class MiniCode(Task):
    """Fixed problems per level, and an endless stream of mixed ones to warm up on.

    ``train_per_level`` and ``test_per_level`` count problems, at most 2,500 (no test problem is in the training set;
    level hard3 is never trained; the easy programs are few enough for some to occur in the stream too). ``tests`` is
    how many calls judge a program: enough to fail it when any one line of it is left out. ``demonstration_lengths``
    are the numbers of words in the stream, drawn evenly, and ``demonstration_weak`` the probability that one of them
    is weak; ``data_seed`` fixes it all.
    """

    train_per_level: int
    test_per_level: int
    tests: int
    demonstration_lengths: tuple[int, ...]
    demonstration_weak: float
    data_seed: int
    judge: Judge

    gives = frozenset({"references", "programs"})

    def __post_init__(self) -> None:
        between(self, 1, 2_500, "train_per_level", "test_per_level")
        between(self, 1, len(ARGUMENTS), "tests")
        between(self, 0, 1, "demonstration_weak")
        lengths = list(self.demonstration_lengths)
        if not lengths or min(lengths) < 1 or max(lengths) > LONGEST:
            raise ValueError(f"demonstration_lengths: expected lengths from 1 to {LONGEST}, got {lengths}")

    def examples(self, split: str) -> list[Example]:
        """Problems of ``split``, level by level."""
        train = {level: self._draw(level, "train", self.train_per_level, set()) for level in TRAINED}
        if split == "train":
            return [example for examples in train.values() for example in examples]
        taken = {example.question for examples in train.values() for example in examples}
        return [example for level in LEVELS for example in self._draw(level, split, self.test_per_level, taken)]

    def demonstrations(self, count: int, seed: int) -> list[Example]:
        """Programs of mixed length, each word weak with a small probability."""
        rng = random.Random(f"minicode/demonstrations/{self.data_seed}/{seed}")
        return [self._demonstration(rng, number) for number in range(count)]

    def vocabulary(self) -> tuple[str, ...]:
        """Words of questions, tokens of Python (a line's end is one), digits, filler and colon; ``y``, which no function has."""
        lines = [token for word in WORDS.values() for token in word.line.format("").split()]
        return tuple(dict.fromkeys(("def", "f(x):", "\n", "return", *lines, "y", *map(str, range(10)), *WORDS, ".", ":")))

    def begin(self, rollouts: Sequence[Rollout]) -> None:
        """Start to run their programs."""
        self.judge.begin(rollouts)

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """Right when the program passes every test. The evidence is a ``ProgramEvidence``."""
        return self.judge.verify(rollouts)

    def _draw(self, level: str, split: str, count: int, taken: set[str]) -> list[Example]:
        rng = random.Random(f"minicode/{level}/{split}/{self.data_seed}")
        length, words = LEVELS[level]
        seen, examples = set(taken), list[Example]()
        while len(examples) < count:
            plan = [(rng.choice(list(words)), rng.choice(NUMBERS)) for _ in range(length)]
            arguments = rng.sample(ARGUMENTS, self.tests)
            question = ask(plan)
            if question not in seen and every_line_counts(plan, arguments):
                seen.add(question)
                suite = Suite(
                    function="f", entry=None, inputs=tuple([x] for x in arguments),
                    outputs=tuple(run(plan, x) for x in arguments),
                )  # fmt: skip
                name = f"minicode/{split}/{level}/{len(examples)}"
                examples.append(Example(name, level, question, write(plan), suite.as_text()))
        return examples

    def _demonstration(self, rng: random.Random, number: int) -> Example:
        plan = []
        for _ in range(rng.choice(self.demonstration_lengths)):
            words = WEAK if rng.random() < self.demonstration_weak else STRONG
            plan.append((rng.choice(list(words)), rng.choice(NUMBERS)))
        return Example(f"minicode/demonstration/{number}", "demonstration", ask(plan), write(plan), "")


def ask(plan: Plan) -> str:
    """The question, filled up to the length of the longest."""
    return " ".join([f"{word} {number}" for word, number in plan] + [". ."] * (LONGEST - len(plan)))


def write(plan: Plan) -> str:
    """The function that the plan describes, with blanks between its tokens: a line's one leading blank indents it."""
    return " \n ".join(["def f(x):", *(WORDS[word].line.format(number) for word, number in plan), "return x"])


def run(plan: Plan, x: int) -> int:
    """What the function returns."""
    for word, number in plan:
        x = WORDS[word].effect(x, number)
    return x


def every_line_counts(plan: Plan, arguments: Sequence[int]) -> bool:
    """Whether each line, left out, changes what is returned for one of the arguments."""
    whole = [run(plan, x) for x in arguments]
    shorter = [plan[:place] + plan[place + 1 :] for place in range(len(plan))]
    return all([run(rest, x) for x in arguments] != whole for rest in shorter)
