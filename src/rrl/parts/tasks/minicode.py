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

from rrl.parts.tasks.coding import ProgramTask
from rrl.parts.tasks.embedded import Embedded, check_lengths
from rrl.ranges import between, check_ranges
from rrl.types import Example
from rrl.verifiers.program_verifier import Suite


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
LONGEST = 5
NUMBERS = range(1, 10)
ARGUMENTS = range(-30, 31)
Plan = list[tuple[str, int]]
"""The words of a question with their numbers."""


@dataclass(frozen=True, kw_only=True)
class MiniCode(ProgramTask, Embedded):
    """Fixed problems per level, and an endless stream of mixed ones to warm up on.

    Level hard3 is never trained; the easy programs are few enough for some to occur in the stream too. ``tests`` is
    how many calls judge a program: enough to fail it when any one line of it is left out. ``demonstration_lengths``
    are the numbers of words in the stream, drawn evenly, and ``demonstration_weak`` the probability that one of them
    is weak. The other fields are those of ``Embedded``.
    """

    tests: int
    demonstration_lengths: tuple[int, ...]
    demonstration_weak: float

    name, levels, trained, most = "minicode", tuple(LEVELS), ("easy3", "hard5"), 2_500

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, between(1, len(ARGUMENTS), "tests"), between(0, 1, "demonstration_weak"))
        check_lengths(self.demonstration_lengths, LONGEST)

    def draw(self, rng: random.Random, level: str, id: str) -> Example:
        """A problem of the level's length and kind whose tests fail without any of its lines."""
        length, words = LEVELS[level]
        while True:
            plan = [(rng.choice(list(words)), rng.choice(NUMBERS)) for _ in range(length)]
            arguments = rng.sample(ARGUMENTS, self.tests)
            if every_line_counts(plan, arguments):
                break
        suite = Suite(
            function="f", entry=None, inputs=tuple([x] for x in arguments),
            outputs=tuple(run(plan, x) for x in arguments),
        )  # fmt: skip
        return Example(id, level, ask(plan), write(plan), suite.as_text())

    def demonstrate(self, rng: random.Random, id: str) -> Example:
        """A program of any length, each word weak with a small probability."""
        plan = []
        for _ in range(rng.choice(self.demonstration_lengths)):
            words = WEAK if rng.random() < self.demonstration_weak else STRONG
            plan.append((rng.choice(list(words)), rng.choice(NUMBERS)))
        return Example(id, "demonstration", ask(plan), write(plan), "")

    def vocabulary(self) -> tuple[str, ...]:
        """Words of questions, their signs, digits, tokens of Python (a line's end is one), and an unknown ``y``."""
        lines = [token for word in WORDS.values() for token in word.line.format("").split()]
        return tuple(
            dict.fromkeys(("def", "f(x):", "\n", "return", *lines, "y", *map(str, range(10)), *WORDS, ".", ":"))
        )


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
