"""Any data set of questions with one right answer, from JSON lines; keys name the fields and the verifier."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rrl.errors import ConfigError, DataError
from rrl.interfaces import Task
from rrl.parts.tasks.rows import REPLACE, Row, held_out, read_rows, refuse, shuffled_epochs, split_file
from rrl.types import Example, Feedback, Rollout, Verdict
from rrl.verifiers.conclusions import conclusion, last_box, tagged
from rrl.verifiers.final_answers import final_answer
from rrl.verifiers.final_numbers import read_answer, read_number
from rrl.verifiers.math_verifier import MathVerifier, Pair

Match = Literal["exact", "number", "mathematics", "regex"]
SPLITS = ("train", "test")
PATIENCE = 1.0
"""Seconds that a regular expression may search in one response."""


@dataclass(frozen=True, kw_only=True)
class JSONLines(Task):
    """The rows of ``.jsonl`` or ``.jsonl.gz`` files and a verifier by choice.

    ``path`` is a file, or a folder with ``train.jsonl`` and, if need be, ``test.jsonl``. Test problems are those of
    ``test_path`` or of the folder's test file; where there is neither, a share ``holdout`` of the questions.
    ``question`` and ``answer`` name the fields of a row, and so do ``reference`` (a worked response, for warm starts
    and guidance; None: the answer), ``level`` (None: all are alike) and ``id`` (None: its number). ``match`` says when
    a response is right: its answer has the same text as the row's (``exact``), is the same number (``number``), is
    equal as ``judge`` sees it (``mathematics``); or its conclusion has the row's regular expression (``regex``).
    """

    path: str | None
    test_path: str | None
    holdout: float
    question: str
    answer: str
    reference: str | None
    level: str | None
    id: str | None
    match: Match
    judge: MathVerifier

    gives = frozenset({"references", "answers"})

    def __post_init__(self) -> None:
        if not 0 < self.holdout <= 1:
            raise ValueError(f"holdout: expected a share above 0 and up to 1, got {self.holdout}")

    def examples(self, split: str) -> list[Example]:
        """The problems of ``train`` or ``test``, in the file's order. Raises ConfigError and DataError."""
        if split not in SPLITS:
            raise ConfigError(f"evaluation.split: JSONLines has no split {split!r}; expected train or test")
        file, shared = self._file(split)
        examples = [self._example(file, number, row) for number, row in enumerate(self._rows(file))]
        if not shared:
            return examples
        kept = [e for e in examples if held_out(e.question, self.holdout) == (split == "test")]
        if not kept:
            raise DataError(
                f"task.holdout: {self.holdout} of the {len(examples)} rows of {file} leaves none for {split}; "
                "give task.test_path=<another file>, or another share"
            )
        return kept

    def demonstrations(self, count: int, seed: int) -> list[Example]:
        """``count`` training problems, shuffled; none is repeated before all have been drawn."""
        if self.match == "regex" and self.reference is None:
            raise DataError("task.reference: null, but demonstrations need the field of a worked response; name it")
        return shuffled_epochs(self.examples("train"), count, seed)

    def begin(self, rollouts: Sequence[Rollout]) -> None:
        if self.match == "mathematics":
            self.judge.begin(_pairs(rollouts))

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """Score 1 for a right response, else 0; cut-off text is judged as it is.

        Evidence: ``parsed`` (the answer read, or None; for ``regex`` instead ``found``, what it matched, because only
        right responses have that) and ``expected``; for mathematics also the judge's ``outcome``.
        """
        if self.match == "mathematics":
            return self.judge.judge(_pairs(rollouts))
        judge = {"exact": _exact, "number": _number, "regex": _regex}[self.match]
        return [judge(rollout.response, rollout.state.problem.example.answer) for rollout in rollouts]

    def _file(self, split: str) -> tuple[Path, bool]:
        """The file of a split, and whether it holds both."""
        if self.path is None:
            raise ConfigError("data.path: missing; expected a .jsonl file, or a folder with train.jsonl")
        path = Path(self.path).expanduser()
        train, test = (path if path.suffix in (".jsonl", ".gz") else split_file(path, name) for name in SPLITS)
        if self.test_path is not None:
            test = Path(self.test_path).expanduser()
        shared = test == train or (self.test_path is None and not test.is_file())
        return (test if split == "test" and not shared else train), shared

    def _rows(self, file: Path) -> list[Row]:
        texts = [name for name in (self.question, self.reference) if name is not None]
        plain = [name for name in (self.answer, self.level, self.id) if name is not None]
        rows = read_rows(file, texts, plain, f"{REPLACE}, or name other fields by task.question and its like")
        faults = [
            f"{file}, row {number} (blank lines not counted): field {self.answer!r}: {fault}, got {row[self.answer]!r}"
            for number, row in enumerate(rows, start=1)
            if (fault := _unfit(self.match, str(row[self.answer])))
        ]
        refuse(faults, "fix these rows, or choose another task.match")
        return rows

    def _example(self, file: Path, number: int, row: Row) -> Example:
        answer = str(row[self.answer])
        return Example(
            id=f"{file.name.partition('.')[0]}/{number if self.id is None else row[self.id]}",
            level="all" if self.level is None else str(row[self.level]),
            question=row[self.question],
            reference=("" if self.match == "regex" else answer) if self.reference is None else row[self.reference],
            answer=answer,
        )


def _pairs(rollouts: Sequence[Rollout]) -> list[Pair]:
    return [(final_answer(r.response, "flexible"), r.state.problem.example.answer) for r in rollouts]


def _exact(response: str, expected: str) -> Feedback:
    """Compare the tag, box, text after "answer is" or the whole, ignoring blanks, quotes, bold and a full stop."""
    stated = _stated(conclusion(response))
    right = _bare(expected) in [_bare(text) for text in stated]
    verdict = (Verdict.RIGHT if right else Verdict.WRONG) if _bare(stated[0]) else Verdict.UNPARSEABLE
    return _feedback(verdict, stated[0] or None, expected)


def _stated(text: str) -> list[str]:
    """The answer that a conclusion states; where a sentence may follow it, the first sentence too."""
    marked = tagged(text) if tagged(text) is not None else last_box(text)
    if marked is not None:
        return [marked]
    place = list(_ANSWER.finditer(text))
    rest = text[place[-1].end() :].partition("\n")[0] if place else text
    return [rest, re.split(r"(?<=[.!?])\s", rest)[0]] if place else [rest]


_ANSWER = re.compile(r"\banswer\**(?::\**|\s+is:?)[ \t]*\n?", re.IGNORECASE)


def _bare(text: str) -> str:
    return " ".join(text.split()).strip(" .*\"'`")


def _number(response: str, expected: str) -> Feedback:
    found = read_answer(response, "flexible")
    if found is None:
        return _feedback(Verdict.UNPARSEABLE, None, expected)
    return _feedback(Verdict.RIGHT if found == read_number(expected) else Verdict.WRONG, str(found), expected)


def _regex(response: str, expected: str) -> Feedback:
    """Found or not; a response in which that takes too long is unparseable, or a policy could escape its score."""
    import regex

    text = conclusion(response)
    try:
        found = regex.search(expected, text, timeout=PATIENCE)
    except TimeoutError:
        return _feedback(Verdict.UNPARSEABLE, None, expected, "found")
    return _feedback(Verdict.RIGHT if found else Verdict.WRONG, found[0] if found else None, expected, "found")


def _feedback(verdict: Verdict, read: str | None, expected: str, name: str = "parsed") -> Feedback:
    return Feedback(float(verdict is Verdict.RIGHT), verdict, {name: read, "expected": expected})


def _unfit(match: Match, answer: str) -> str:
    """The reason why an answer cannot be matched so; empty without one."""
    import regex

    if match == "number" and read_number(answer) is None:
        return "expected a number for task.match=number"
    try:
        if match == "regex":
            regex.compile(answer)
    except regex.error as error:
        return f"expected a regular expression for task.match=regex ({error})"
    return ""
