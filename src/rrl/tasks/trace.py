"""Program traces: run a little program in your head and write down the value after each instruction.

    7 add3 sub2 mul5 . . . . . . . =   ->   0 8 5

A reward is earned only by the whole trace, so that it cannot be guessed. Some instructions are easy and some hard
(``weak``: rare in the warm start), and easy problems teach nothing about hard instructions, which makes the hard
level a sparse-reward problem. A level is a program length and a kind of instruction: see ``LEVELS``.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rrl.interfaces import Task
from rrl.ranges import between
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
TRAINED = ("L3", "L10")
LONGEST = 10
DIGITS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True, kw_only=True)
class Trace(Task):
    """Fixed problems per level, and an endless stream of mixed programs to warm up on.

    ``train_per_level`` and ``test_per_level`` count problems, at most 20,000 (no test problem is in the training set;
    level L6 is never trained; the short programs of L3 are few enough for some to occur in the stream too);
    ``demonstration_lengths`` are the program lengths of the stream, drawn evenly, and ``demonstration_weak`` the
    probability that one of its instructions is weak; ``data_seed`` fixes it all.
    """

    train_per_level: int
    test_per_level: int
    demonstration_lengths: tuple[int, ...]
    demonstration_weak: float
    data_seed: int

    gives = frozenset({"references", "answers"})

    def __post_init__(self) -> None:
        between(self, 1, 20_000, "train_per_level", "test_per_level")
        if not 0 <= self.demonstration_weak <= 1:
            raise ValueError(f"demonstration_weak: expected a probability, got {self.demonstration_weak}")
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
        """Programs of mixed length, each instruction weak with a small probability."""
        rng = random.Random(f"trace/demonstrations/{self.data_seed}/{seed}")
        return [self._demonstration(rng, number) for number in range(count)]

    def vocabulary(self) -> tuple[str, ...]:
        """One word per digit and per instruction, the filler and the equals sign."""
        return (*DIGITS, ".", "=", *(f"{name}{c}" for name in (*STRONG, *WEAK) for c in range(10)))

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """Right when the response is the whole trace and ends by itself."""
        return [_judge(rollout) for rollout in rollouts]

    def _draw(self, level: str, split: str, count: int, taken: set[str]) -> list[Example]:
        rng = random.Random(f"trace/{level}/{split}/{self.data_seed}")
        length, operations = LEVELS[level]
        seen, examples = set(taken), list[Example]()
        while len(examples) < count:
            program = [(rng.choice(list(operations)), rng.randrange(10)) for _ in range(length)]
            example = _example(f"trace/{split}/{level}/{len(examples)}", level, rng.randrange(10), program)
            if example.question not in seen:
                seen.add(example.question)
                examples.append(example)
        return examples

    def _demonstration(self, rng: random.Random, number: int) -> Example:
        program = []
        for _ in range(rng.choice(self.demonstration_lengths)):
            operations = WEAK if rng.random() < self.demonstration_weak else STRONG
            program.append((rng.choice(list(operations)), rng.randrange(10)))
        return _example(f"trace/demonstration/{number}", "demonstration", rng.randrange(10), program)


def _example(name: str, level: str, start: int, program: Sequence[tuple[str, int]]) -> Example:
    words = [f"{operation}{c}" for operation, c in program]
    question = " ".join([str(start), *words, *["."] * (LONGEST - len(words)), "="])
    trace = " ".join(str(value) for value in run(start, program))
    return Example(id=name, level=level, question=question, reference=trace, answer=trace)


def run(start: int, program: Sequence[tuple[str, int]]) -> list[int]:
    """The value after each instruction."""
    values = [start]
    for operation, constant in program:
        values.append((STRONG | WEAK)[operation](values[-1], constant))
    return values[1:]


def _judge(rollout: Rollout) -> Feedback:
    written, expected = rollout.response.split(), rollout.state.problem.example.answer.split()
    agreeing = [a == b for a, b in zip(written, expected, strict=False)]
    evidence = {"right_steps": (*agreeing, False).index(False), "steps": len(expected)}
    if any(word not in DIGITS for word in written):
        return Feedback(0.0, Verdict.UNPARSEABLE, evidence)
    right = rollout.finished and written == expected
    return Feedback(float(right), Verdict.RIGHT if right else Verdict.WRONG, evidence)
