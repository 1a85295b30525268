"""Remembered states as rows of columns, in the order of their birth."""

from array import array
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy
import torch

from rrl.interfaces import StateDict
from rrl.parts.samplers.tree import WIDTH, Array, Tree
from rrl.types import Rollout

Source = Literal["self", "canonical"]
SOURCES: tuple[Source, ...] = ("self", "canonical")
COLUMNS = {
    "number": "int64", "problem_id": "object", "prefix": "object", "source": "int8", "born_step": "int32",
    "score_at_insert": "float64", "score_now": "float64", "visits": "int32", "successes": "int32", "length": "int32",
    "whole": "int32", "doubt": "float32", "value": "float32", "turn": "int32", "older": "int32", "held": "int8",
}  # fmt: skip
"""``prefix`` is packed, ``source`` an index of SOURCES, ``older`` the row of the problem's next older state or -1."""
OBJECTS = ("problem_id", "prefix")
SUMMED = ("held", "born_step", "score_at_insert", "score_now", "visits", "successes", "length")
EXPONENT = 1074
"""Totals are in units of 2^-1074. Every float is a whole number of these: what was added can be taken off exactly."""


class Candidate(NamedTuple):
    """A state that may be remembered: the ``prefix`` of a response of ``whole`` tokens, how promising it is, and why.

    ``doubt`` is 1 less the mean probability of the tokens of the step after it, ``value`` the critic's (0 without one);
    ``rollout`` is the response, where the policy wrote it.
    """

    problem_id: str
    prefix: tuple[int, ...]
    source: Source
    score: float
    whole: int
    doubt: float
    value: float
    rollout: Rollout | None = None


class StoredState(NamedTuple):
    """A remembered prefix of one problem and what came of going back to it."""

    key: str
    problem_id: str
    prefix: tuple[int, ...]
    source: Source
    born_step: int
    score_at_insert: float
    score_now: float
    visits: int
    successes: int
    whole: int
    doubt: float
    value: float

    @property
    def success_rate(self) -> float:
        return float(success_rate(self.successes, self.visits))


def success_rate(successes: Any, visits: Any) -> Any:
    """Estimated success of going on from a state: (successes + 1) / (visits + 2)."""
    return (successes + 1) / (visits + 2)


class Rows:
    """The columns, what they sum to, and the newest row of each problem, which leads to its older ones.

    A row that was dropped stays empty until rows are moved together. ``trees`` read the columns.
    """

    def __init__(self) -> None:
        self.trees: list[Tree] = []
        self.newest: dict[str, int] = {}
        self._totals = dict.fromkeys(SUMMED, 0)
        self._born = self._used = 0
        self._columns = {name: numpy.zeros(WIDTH, kind) for name, kind in COLUMNS.items()}

    def __len__(self) -> int:
        return self._totals["held"] >> EXPONENT

    def __getitem__(self, name: str) -> Array:
        return self._columns[name]

    def blocks(self, name: str, blocks: Array) -> Array:
        """A column in numbered blocks, [blocks, WIDTH]."""
        return self._columns[name].reshape(-1, WIDTH)[blocks]

    def watch(self, tree: Tree) -> Tree:
        """The same tree, which is kept up to date from now on."""
        self.trees.append(tree)
        tree.build(len(self["held"]))
        return tree

    def sums(self) -> dict[str, float]:
        """The sum of each column of SUMMED."""
        return {name: total / 2**EXPONENT for name, total in self._totals.items()}

    def siblings(self, problem_id: str) -> list[int]:
        """The rows of a problem, the newest first."""
        rows, row = [], self.newest.get(problem_id, -1)
        while row >= 0:
            rows.append(row)
            row = self["older"].item(row)
        return rows

    def key(self, row: int) -> str:
        """The name of the state in a row."""
        return f"{self['problem_id'][row]}@{self['number'][row]}"

    def append(self, new: Candidate, step: int) -> int:
        """A new state; returns its row."""
        if self._used == len(self["held"]):
            self._close_up()
        self._born += 1
        row, self._used = self._used, self._used + 1
        self.set(
            row, number=self._born, problem_id=new.problem_id, prefix=packed(new.prefix),
            source=SOURCES.index(new.source), born_step=step, score_at_insert=new.score, score_now=new.score, visits=0,
            successes=0, length=len(new.prefix), whole=new.whole, doubt=new.doubt, value=new.value, turn=0,
            older=self.newest.get(new.problem_id, -1), held=1,
        )  # fmt: skip
        self.newest[new.problem_id] = row
        return row

    def drop(self, row: int) -> None:
        problem_id, older = self["problem_id"][row], self["older"].item(row)
        newer = [each for each in self.siblings(problem_id) if self["older"][each] == row]
        if newer:
            self["older"][newer] = older
        elif older >= 0:
            self.newest[problem_id] = older
        else:
            del self.newest[problem_id]
        self.set(row, problem_id=None, prefix=b"", length=0, held=0)

    def set(self, row: int, **values: Any) -> None:
        """Write into a row."""
        self._count(row, -1)
        for name, value in values.items():
            self[name][row] = value
        self._count(row, 1)
        self.touch([row])

    def visit(self, rows: Array, successes: Array, rollouts: Array) -> None:
        """Count the rollouts from each of these rows, none of them twice, as visits."""
        for name, counts in (("visits", rollouts), ("successes", successes)):
            self[name][rows] += counts
            self._totals[name] += _units(int(counts.sum()))
        self.touch(rows.tolist())

    def find(self, keys: list[str]) -> Array:
        """The row of each key, -1 where its state was dropped."""
        numbers = numpy.array([int(key.rpartition("@")[2]) for key in keys], dtype=numpy.int64)
        rows = self["number"][: self._used].searchsorted(numbers)
        there = (self["number"].take(rows, mode="clip") == numbers) & self["held"].take(rows, mode="clip")
        return numpy.where(there, rows, -1)

    def states(self, rows: Array) -> list[StoredState]:
        """What is kept in these rows."""
        numbers, problems, prefixes, sources, *rest = (
            self[name][rows].tolist() for name in ("number", *StoredState._fields[1:])
        )
        keys = map("{}@{}".format, problems, numbers)
        tokens = [tuple(memoryview(prefix).cast("i")) for prefix in prefixes]
        return list(map(StoredState, keys, problems, tokens, map(SOURCES.__getitem__, sources), *rest))

    def held(self) -> Array:
        """The rows that hold a state."""
        return numpy.flatnonzero(self["held"])

    def state_dict(self) -> StateDict:
        """All rows, empty ones included: where a row is decides how the sums of trees are rounded."""
        rows = {name: column[: self._used] for name, column in self._columns.items()}
        tokens = numpy.frombuffer(bytearray().join(rows["prefix"]), "int32")
        return {
            "columns": {name: torch.from_numpy(rows[name].copy()) for name in COLUMNS if name not in OBJECTS},
            "problems": rows["problem_id"].tolist(), "tokens": torch.from_numpy(tokens),
            "room": len(self["held"]), "totals": dict(self._totals), "born": self._born,
        }  # fmt: skip

    def load_state_dict(self, state: StateDict) -> None:
        self._born, self._totals = state["born"], dict(state["totals"])
        columns = {name: column.numpy() for name, column in state["columns"].items()}
        prefixes = _pieces(state["tokens"].numpy(), columns["length"])
        objects = zip(OBJECTS, (state["problems"], prefixes), strict=True)
        columns |= {name: numpy.fromiter(values, object, len(columns["held"])) for name, values in objects}
        self._fill(columns, state["room"])

    def _close_up(self) -> None:
        """Move the rows that hold a state together, with room for a quarter more."""
        held = self.held()
        moved = numpy.full(self._used + 1, -1, dtype=numpy.int32)  # the last is for no row, -1
        moved[held] = numpy.arange(len(held))
        self._columns["older"] = moved[self["older"]]
        for name in COLUMNS:  # one after the other, since a column may be large
            self._columns[name] = self[name][held]
        self._fill(self._columns, (len(held) * 5 // 4 // WIDTH + 4) * WIDTH)

    def _fill(self, columns: dict[str, Array], room: int) -> None:
        self._columns, self._used = columns, len(columns["held"])
        for name, kind in COLUMNS.items():
            columns[name] = numpy.concatenate([columns[name], numpy.zeros(room - self._used, kind)])
        held = self.held()
        self.newest = dict(zip(self["problem_id"][held], map(int, held), strict=True))
        for tree in self.trees:
            tree.build(room)

    def _count(self, row: int, sign: int) -> None:
        """Add a state to the totals, or take it off; an empty row counts for nothing."""
        if self["held"][row]:
            for name in SUMMED:
                self._totals[name] += sign * _units(self[name].item(row))

    def touch(self, rows: list[int]) -> None:
        """Something that trees read of these rows has changed."""
        blocks = [row // WIDTH for row in rows]
        for tree in self.trees:
            tree.touch(blocks)


def packed(prefix: tuple[int, ...]) -> bytes:
    return array("i", prefix).tobytes()


def _pieces(tokens: Array, lengths: Array) -> Iterator[bytes]:
    end = 0
    for length in lengths:
        begin, end = end, end + int(length)
        yield tokens[begin:end].tobytes()


def _units(number: float) -> int:
    top, bottom = number.as_integer_ratio()
    return top << EXPONENT + 1 - bottom.bit_length()  # the bottom is a power of two
