"""What guided self-improvement keeps from step to step: its position in the iterations, and right answers."""

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from rrl.collate import Row, collate_rows
from rrl.interfaces import StateDict
from rrl.types import Batch, Problem

Phase = Literal["sample", "guide", "tune"]
SHARES: dict[Phase, tuple[float, float]] = {"sample": (0.0, 0.5), "guide": (0.5, 0.3), "tune": (0.8, 0.2)}
"""The share of an iteration that counts as done when a phase begins, and the share of the phase."""


@dataclass(kw_only=True)
class Position:
    """An iteration has three phases: ``sample``, ``guide`` (once for each guided attempt, ``round``) and ``tune``.

    ``drawn`` are the iteration's problems, of which the first ``tried`` have responses. ``queue`` holds the remaining
    pieces of the present phase, of ``pieces`` in all, a step each: problems to write on, or mini-batches of answers.
    """

    iteration: int = 0
    phase: Phase = "tune"
    round: int = 0
    drawn: list[int] = field(default_factory=list)
    tried: int = 0
    queue: list[Any] = field(default_factory=list)
    pieces: int = 0

    @classmethod
    def read(cls, state: StateDict) -> "Position":
        """The position from a saved state, which may have other keys."""
        return cls(**{each.name: deepcopy(state[each.name]) for each in fields(cls)})

    @property
    def tuned(self) -> bool:
        """Whether a fine-tuning has just ended."""
        return self.phase == "tune" and not self.queue

    @property
    def left(self) -> float:
        """The share of the phase that remains."""
        return len(self.queue) / max(1, self.pieces)

    @property
    def done(self) -> float:
        """The number of iterations done, with fractions."""
        begin, share = SHARES[self.phase]
        return self.iteration - 1 + (begin + share * (1 - self.left))

    def fill(self, phase: Phase, items: Sequence[Any], size: int) -> None:
        """Begin a phase, with ``size`` of the items in a piece."""
        self.phase = phase
        self.queue = [list(items[begin : begin + size]) for begin in range(0, len(items), size)]
        self.pieces = len(self.queue)


@dataclass(frozen=True, slots=True)
class AcceptedAnswer:
    """A right answer: its problem, by number, and its tokens, a given prefix included."""

    problem: int
    tokens: tuple[int, ...]
    guided: bool


@dataclass(kw_only=True)
class AcceptedAnswers:
    """Keeps right answers: of each problem the first ``per_problem`` (None: all), each text once if ``distinct``.

    ``right`` counts them all, kept or not.
    """

    per_problem: int | None
    distinct: bool
    answers: list[AcceptedAnswer] = field(init=False, default_factory=list)
    right: Counter[int] = field(init=False, default_factory=Counter)
    _kept: Counter[int] = field(init=False, default_factory=Counter)
    _texts: set[tuple[int, str]] = field(init=False, default_factory=set)

    def add(self, answer: AcceptedAnswer, text: str) -> None:
        """Count a right answer and keep it, unless it is a duplicate or its problem has enough."""
        self.right[answer.problem] += 1
        known = self.distinct and (answer.problem, text.strip()) in self._texts
        if known or (self.per_problem is not None and self._kept[answer.problem] >= self.per_problem):
            return
        self._texts.add((answer.problem, text.strip()))
        self._kept[answer.problem] += 1
        self.answers.append(answer)

    def clear(self) -> None:
        for part in (self.answers, self.right, self._kept, self._texts):
            part.clear()

    @property
    def covered(self) -> int:
        """The number of problems with a kept answer."""
        return len(self._kept)

    def state_dict(self) -> StateDict:
        rows = [(answer.problem, answer.tokens, answer.guided) for answer in self.answers]
        return {"answers": rows, "right": dict(self.right), "texts": sorted(self._texts)}

    def load_state_dict(self, state: StateDict) -> None:
        self.answers = [AcceptedAnswer(problem, tuple(tokens), guided) for problem, tokens, guided in state["answers"]]
        self.right = Counter(state["right"])
        self._texts = {(problem, text) for problem, text in state["texts"]}
        self._kept = Counter(answer.problem for answer in self.answers)


def as_batch(answers: Sequence[AcceptedAnswer], problems: Sequence[Problem], pad: int) -> Batch:
    """Answers as rows that are learnt whole, given prefixes included, with reward 1 on their last token.

    The context of each is its problem's own prompt, without the guidance under which it was written.
    """
    rows = [
        Row(problem.prompt, answer.tokens, [0.0] * (len(answer.tokens) - 1) + [1.0], problem.id, problem.level)
        for answer in answers
        for problem in [problems[answer.problem]]
    ]
    return collate_rows(rows, pad)
