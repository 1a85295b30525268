"""Right answers to learn from: the kept ones, and their number for each problem."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rrl.collate import Row, collate_rows
from rrl.interfaces import StateDict
from rrl.types import Batch, Problem


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
        """Forget everything."""
        for part in (self.answers, self.right, self._kept, self._texts):
            part.clear()

    @property
    def covered(self) -> int:
        """The number of problems with a kept answer."""
        return len(self._kept)

    def state_dict(self) -> StateDict:
        """All of it as plain data."""
        rows = [(answer.problem, answer.tokens, answer.guided) for answer in self.answers]
        return {"answers": rows, "right": dict(self.right), "texts": sorted(self._texts)}

    def load_state_dict(self, state: StateDict) -> None:
        self.answers = [AcceptedAnswer(problem, tuple(tokens), guided) for problem, tokens, guided in state["answers"]]
        self.right = Counter(state["right"])
        self._texts = {(problem, text) for problem, text in state["texts"]}
        self._kept = Counter(answer.problem for answer in self.answers)


def as_batch(answers: Sequence[AcceptedAnswer], problems: Sequence[Problem], pad: int) -> Batch:
    """Answers as rows that are learnt whole, given prefixes included, with reward 1 on their last token.

    The context of each is its problem's own prompt, whatever guidance the prompt had when it was written.
    """
    rows = [
        Row(problem.prompt, answer.tokens, [0.0] * (len(answer.tokens) - 1) + [1.0], problem.id, problem.level)
        for answer in answers
        for problem in [problems[answer.problem]]
    ]
    return collate_rows(rows, pad)
