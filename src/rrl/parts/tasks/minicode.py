r"""Little functions to write: each word of the question becomes a line of Python, and unit tests judge the whole.

    add 3 cap 9 . . . . . .   ->   def f(x): \n x += 3 \n x = min(x, 9 ) \n return x

A reward is earned only by a program that passes every test in the sandbox, so that it cannot be guessed. Some words are
easy and some hard (``weak``: rare in the warm start), and easy problems teach nothing about hard words, which makes the
hard level a sparse-reward problem. A level is a number of words and a kind of word: see ``LEVELS``.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from rrl.parts.tasks.coding import ProgramTask
from rrl.parts.tasks.embedded import Embedded, check_lengths
from rrl.ranges import between, check_ranges
from rrl.spans import agreement
from rrl.types import Example, Feedback, Rollout
from rrl.verifiers.program_verifier import Suite
from rrl.verifiers.programs import find_program


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
HEAD, TAIL = "def f(x):", "return x"
BLANKS = " \t\r\n"
"""What may end a line of Python, or be all of it."""


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

    gives = ProgramTask.gives | {"first_errors"}
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

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """As any ``ProgramTask``, with ``error_free`` in the evidence."""
        return [_located(rollout, judged) for rollout, judged in zip(rollouts, super().verify(rollouts), strict=True)]

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
    return " \n ".join([HEAD, *map(_line, plan), TAIL])


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


def error_free(response: str, example: Example) -> int:
    """The characters of a response before the first error of its program.

    After each line x has to be, for the arguments of the tests, what it is after some of the reference's lines: then
    the rest of these makes a program that passes. The first line after which it is not is an error, but for the
    beginning that it shares with a line that the reference could go on with. So no beginning is too long. It may be too
    short, for other programs are right too: a line of a form that no word has (``x = x + 3``) counts as an error, and
    so does one whose effect a later one takes back.
    """
    program = find_program(response)
    lines = [(text.rstrip(BLANKS), start) for text, start in (program.lines() if program else []) if text.strip(BLANKS)]
    if not lines:
        return 0
    (head, start), *body = lines
    if head != HEAD:
        return start + agreement(head, HEAD)
    plan, inputs = planned(example.question), Suite.of(example.answer).inputs
    reached = [[run(plan[:count], x) for (x,) in inputs] for count in range(len(plan) + 1)]
    indent, now = _indent(body[0][0] if body else "") or " ", reached[0]
    for (text, start), (_, following) in pairwise([*body, ("", len(response))]):
        if text == indent + TAIL and now == reached[-1]:
            return following
        after = _after(text.removeprefix(indent), now) if text.startswith(indent) else None
        if after not in reached:
            going_on = zip([*map(_line, plan), TAIL], reached, strict=True)
            return start + _shared(text, [indent + line for line, then in going_on if then == now])
        now = after
    return len(response)


def planned(question: str) -> Plan:
    """The plan that a question asks for."""
    words = question.split()
    return [(word, int(number)) for word, number in zip(words[::2], words[1::2], strict=True) if word in WORDS]


def _located(rollout: Rollout, judged: Feedback) -> Feedback:
    example = rollout.state.problem.example
    free = len(rollout.response) if judged.solved else error_free(rollout.response, example)
    return replace(judged, evidence={**judged.evidence, "error_free": free})


def _line(step: tuple[str, int]) -> str:
    return WORDS[step[0]].line.format(step[1])


def _indent(text: str) -> str:
    return text[: len(text) - len(text.lstrip(" \t"))]


def _form(line: str) -> re.Pattern[str]:
    """Of a word's line with any number, and any blanks between its signs."""
    signs = re.findall(r"{}|\w+|[^\w\s{}(),]+|[(),]", line)
    return re.compile(r"[ \t]*".join("(0|[1-9][0-9]{0,8})" if sign == "{}" else re.escape(sign) for sign in signs))


FORMS = [(_form(word.line), word.effect) for word in WORDS.values()]


def _after(line: str, values: Sequence[int]) -> list[int] | None:
    """What a line makes of these values of x; None for one that has no word's form, or fails."""
    found = ((form.fullmatch(line), effect) for form, effect in FORMS)
    match, effect = next(((match, effect) for match, effect in found if match), (None, None))
    try:
        return [effect(x, int(match[1])) for x in values] if match and effect else None
    except ZeroDivisionError:
        return None


def _shared(text: str, others: Sequence[str]) -> int:
    """The characters of the longest beginning that a text has in common with one of the others."""
    return max(agreement(text, other) for other in others)
