"""Program traces: run a small program mentally and write down the value after each instruction.

    7 add3 sub2 mul5 . . . . . . . =   ->   0 8 5

A reward is earned only by the whole trace, so that it cannot be guessed. Some instructions are easy and some hard
(``weak``: rare in the warm start), and easy problems teach nothing about hard instructions, which makes the hard
level a sparse-reward problem. A level is a program length and a kind of instruction: see ``LEVELS``. Demonstrations
longer than those add a hard level of their longest.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rrl.parts.tasks.embedded import Embedded, check_lengths
from rrl.ranges import between, check_ranges
from rrl.spans import agreement
from rrl.types import Example, Feedback, Rollout, Verdict

STRONG: dict[str, Callable[[int, int], int]] = {
    "add": lambda x, c: (x + c) % 10,
    "sub": lambda x, c: (x - c) % 10,
}
WEAK: dict[str, Callable[[int, int], int]] = {
    "mul": lambda x, c: (x * c + c) % 10,
    "sqr": lambda x, c: (x * x + c) % 10,
    "gap": lambda x, c: abs(x - c),
    "tri": lambda x, c: (3 * x + c) % 10,
}
LEVELS = {"L3": (3, STRONG), "L6": (6, WEAK), "L10": (10, WEAK)}
LONGEST, FURTHEST = 10, 100
"""Instructions of the levels, and of demonstrations at most."""
DIGITS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True, kw_only=True)
class Trace(Embedded):
    """Fixed problems per level, and an endless stream of mixed programs to warm up on.

    Level L6 is never trained; the short programs of L3 are few enough for some to occur in the stream too.
    ``demonstration_lengths`` are the program lengths of the stream, drawn evenly, and ``demonstration_weak`` the
    probability that one of its instructions is weak. Where the longest is beyond ``LONGEST``, say 20, there is a level
    L20 of so many weak instructions, and all questions have 20 places. The other fields are those of ``Embedded``.
    """

    demonstration_lengths: tuple[int, ...]
    demonstration_weak: float

    gives = frozenset({"references", "answers", "first_errors"})
    name, most = "trace", 20_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, between(0, 1, "demonstration_weak"))
        check_lengths(self.demonstration_lengths, FURTHEST)

    @property
    def places(self) -> int:
        """Of a question: its instructions and fillers."""
        return max(LONGEST, *self.demonstration_lengths)

    @property
    def levels(self) -> Sequence[str]:
        return tuple(dict.fromkeys([*LEVELS, f"L{self.places}"]))

    @property
    def trained(self) -> Sequence[str]:
        return tuple(level for level in self.levels if level != "L6")

    def draw(self, rng: random.Random, level: str, id: str) -> Example:
        """A program of the level's length and kind."""
        length, operations = LEVELS.get(level, (self.places, WEAK))
        program = [(rng.choice(list(operations)), rng.randrange(10)) for _ in range(length)]
        return self._example(id, level, rng.randrange(10), program)

    def demonstrate(self, rng: random.Random, id: str) -> Example:
        """A program of any length, each instruction weak with a small probability."""
        program = []
        for _ in range(rng.choice(self.demonstration_lengths)):
            operations = WEAK if rng.random() < self.demonstration_weak else STRONG
            program.append((rng.choice(list(operations)), rng.randrange(10)))
        return self._example(id, "demonstration", rng.randrange(10), program)

    def vocabulary(self) -> tuple[str, ...]:
        """One word per digit and per instruction, the filler and the equals sign."""
        return (*DIGITS, ".", "=", *(f"{name}{c}" for name in (*STRONG, *WEAK) for c in range(10)))

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """Right when the response is the whole trace and ends by itself."""
        return [_judge(rollout) for rollout in rollouts]

    def _example(self, name: str, level: str, start: int, program: Sequence[tuple[str, int]]) -> Example:
        words = [f"{operation}{c}" for operation, c in program]
        question = " ".join([str(start), *words, *["."] * (self.places - len(words)), "="])
        trace = " ".join(str(value) for value in run(start, program))
        return Example(id=name, level=level, question=question, reference=trace, answer=trace)


def run(start: int, program: Sequence[tuple[str, int]]) -> list[int]:
    """The value after each instruction."""
    values = [start]
    for operation, constant in program:
        values.append((STRONG | WEAK)[operation](values[-1], constant))
    return values[1:]


def error_free(response: str, expected: Sequence[str]) -> int:
    """The characters before the first error: the length of the longest beginning that can become a right response."""
    written = list(re.finditer(r"\S+", response))
    for found, word in zip(written, [*expected, *[""] * len(written)], strict=False):
        if found[0] != word:
            return found.start() + agreement(found[0], word)
    return len(response)


def _judge(rollout: Rollout) -> Feedback:
    written, expected = rollout.response.split(), rollout.state.problem.example.answer.split()
    agreeing = [a == b for a, b in zip(written, expected, strict=False)]
    readable = all(word in DIGITS for word in written)
    evidence = {
        "error_free": error_free(rollout.response, expected),
        "right_steps": (*agreeing, False).index(False),
        "steps": len(expected),
        "parsed": " ".join(written) if readable and rollout.finished else None,
    }
    if not readable:
        return Feedback(0.0, Verdict.UNPARSEABLE, evidence)
    right = rollout.finished and written == expected
    return Feedback(float(right), Verdict.RIGHT if right else Verdict.WRONG, evidence)
