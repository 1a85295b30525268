"""The common part of tasks with programs as responses, and of data sets of programming problems: rows to examples."""

import json
import logging
import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rrl.interfaces import Task
from rrl.parts.tasks.rows import DataSet, Row, held_out, refuse, unwritable
from rrl.ranges import at_least_one, between, check_ranges
from rrl.types import Example, Feedback, Rollout
from rrl.verifiers.program_verifier import ProgramVerifier, Suite

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A programming problem of a data set; ``name`` is unique in the data set."""

    name: str
    level: str
    statement: str
    starter: str
    solutions: tuple[str, ...]
    suite: Suite


@dataclass(frozen=True, kw_only=True)
class ProgramTask(Task):
    """A task whose responses are programs, which ``judge`` runs on unit tests."""

    judge: ProgramVerifier

    gives = frozenset({"references", "programs"})

    def start(self) -> None:
        """Check that programs can be run."""
        self.judge.start()

    def begin(self, rollouts: Sequence[Rollout]) -> None:
        """Start to run the programs of these responses."""
        self.judge.begin(rollouts)

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """Score 1 for a response whose program passes all tests, else 0. Evidence: ``ProgramEvidence``."""
        return self.judge.verify(rollouts)


@dataclass(frozen=True, kw_only=True)
class CodingTask(ProgramTask, DataSet):
    """Programming problems with unit tests.

    Where a data set has no file for ``test``, the share ``holdout`` of its problems is held out, chosen by the hash of
    their names. Of a problem's tests the first are kept: at most ``max_tests``, and those that fit in
    ``max_test_bytes`` together, as JSON. Rows that cannot be read are treated as ``malformed`` states (refuse or drop),
    problems without a test by ``without_tests`` (drop or refuse), problems without a solution that compiles by
    ``without_reference`` (keep them with an empty reference, drop or refuse). The log has the numbers of dropped items.
    ``script_instruction`` ends the question where the program reads and prints, ``call_instruction`` where a function
    is called.
    """

    path: str | None
    holdout: float
    max_tests: int
    max_test_bytes: int
    malformed: Literal["refuse", "drop"]
    without_tests: Literal["drop", "refuse"]
    without_reference: Literal["keep", "drop", "refuse"]
    script_instruction: str
    call_instruction: str

    def __post_init__(self) -> None:
        check_ranges(self, between(0, 1, "holdout"), at_least_one("max_tests", "max_test_bytes"))

    @abstractmethod
    def rows(self, split: str) -> tuple[list[Row], bool]:
        """The rows that a split is in, and whether it shares them with the other split."""

    @abstractmethod
    def item(self, row: Row, number: int, home: str) -> Item:
        """Row ``number`` of the file of split ``home`` as a problem. Raises ValueError with its fault."""

    def examples(self, split: str) -> list[Example]:
        """Every problem of ``train`` or ``test`` that meets the requirements, in the data set's order."""
        rows, shared = self.rows(split)
        if shared and split not in ("train", "test"):
            refuse([f"split {split!r}: the data are one file"], "expected train or test, which are made out of it")
        if shared and split == "test" and not self.holdout:
            refuse(["task.holdout: 0, and there is no file of test rows"], "set task.holdout, as in task.holdout=0.2")
        tally = _Tally(split)
        found = [
            self._example(item, tally)
            for item in self._items(rows, "train" if shared else split, tally)
            if not shared or held_out(item.name, self.holdout) == (split == "test")
        ]
        tally.close()
        return [example for example in found if example is not None]

    def _items(self, rows: Sequence[Row], home: str, tally: "_Tally") -> Iterator[Item]:
        seen: set[str] = set()
        for number, row in enumerate(rows):
            try:
                item = self.item(row, number, home)
                if item.name in seen:
                    raise ValueError(f"{item.name} occurs twice")
                seen.add(item.name)
                yield item
            except ValueError as fault:
                tally.note(self.malformed, f"row {number}", "cannot be read", str(fault))

    def _example(self, item: Item, tally: "_Tally") -> Example | None:
        suite = self._capped(item, tally)
        if not suite.inputs:
            tally.note(self.without_tests, item.name, "no tests")
            return None
        reference = next(filter(compiles, item.solutions), None)
        if reference is None:
            tally.note(self.without_reference, item.name, "no solution that compiles")
            if self.without_reference == "drop":
                return None
        return Example(
            id=item.name,
            level=item.level,
            question=self._question(item),
            reference="" if reference is None else rendered(reference),
            answer=suite.as_text(),
            strata={"kind": "call" if suite.function else "script"},
        )

    def _capped(self, item: Item, tally: "_Tally") -> Suite:
        """The tests that are kept."""
        kept: list[tuple[Any, Any]] = []
        room = self.max_test_bytes
        for test in zip(item.suite.inputs, item.suite.outputs, strict=True):
            size = _size(test)
            if len(kept) < self.max_tests and size is not None and size <= room:
                kept.append(test)
                room -= size
        if len(kept) < len(item.suite.inputs):
            tally.note("shorten", item.name, "tests beyond max_tests, max_test_bytes or what JSON can hold")
        return replace(item.suite, inputs=tuple(given for given, _ in kept), outputs=tuple(due for _, due in kept))

    def _question(self, item: Item) -> str:
        starter = f"\n\nStarter code:\n{rendered(item.starter)}" if item.starter.strip() else ""
        instruction = self.call_instruction if item.suite.function else self.script_instruction
        return f"{item.statement.strip()}{starter}\n\n{instruction}"


def rendered(source: str) -> str:
    """A program as a response."""
    text = source.replace("\r\n", "\n").strip("\n")
    return f"```python\n{text}\n```"


def compiles(source: str) -> bool:
    """Whether a solution of a data set is valid in this Python; its warnings are ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(source, "<solution>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
            return False
    return True


def _size(test: object) -> int | None:
    """Bytes of a test as JSON; None where a number or a text of it cannot be written."""
    try:
        return None if any(unwritable(test, "")) else len(json.dumps(test, allow_nan=False).encode())
    except ValueError:
        return None


class _Tally:
    """The items of a split that are dropped, shortened or refused, by reason."""

    def __init__(self, split: str) -> None:
        self._split = split
        self._faults: list[str] = []
        self._counts: Counter[str] = Counter()

    def note(self, fate: str, name: str, what: str, detail: str = "") -> None:
        """Record a fault of an item, whose fate is drop, keep, shorten or refuse."""
        if fate == "refuse":
            self._faults.append(f"{self._split}, {name}: {detail or what}")
        else:
            self._counts[f"{fate}: {what}"] += 1

    def close(self) -> None:
        """Raise one DataError for all refused items; log the others."""
        refuse(
            self._faults, "fix these rows, or set task.malformed, task.without_tests, task.without_reference to drop"
        )
        if self._counts:
            log.warning("%s: %s", self._split, "; ".join(f"{n} x {what}" for what, n in self._counts.items()))
