"""The memory of states worth going back to: bounded, deduplicated, and forgetting what no longer teaches."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from random import Random
from typing import Any, Literal

import numpy

from rrl.interfaces import StateDict
from rrl.parts.samplers.rows import Candidate, Rows, StoredState, packed, success_rate
from rrl.parts.samplers.tree import Array, Tree
from rrl.ranges import at_least_one, check_ranges, refuse
from rrl.types import Forgotten, StateEvent, Stored

Column = Callable[[str], Array]
"""A column of the states by name; some states, in any shape."""


def _success_variance(column: Column) -> Any:
    p = success_rate(column("successes"), column("visits"))
    return p * (1 - p)


WEIGHTS: dict[str, Callable[[Column], Any]] = {
    "uniform": lambda column: 1.0,
    "success_variance": _success_variance,
    "score": lambda column: numpy.exp(column("score_now").clip(-600, 600)),
}
"""The weights of states by priority; scores are clipped so that a sum of weights is neither 0 nor infinite."""


@dataclass(kw_only=True)
class StateBuffer:
    """Holds at most ``capacity`` states and ``states_per_problem`` of one problem.

    A full problem or buffer gives up its state of lowest score. ``keep_between`` are two bounds of the estimated
    success: after a visit that leaves it at or below the lower one (dead) or above the upper one (mastered), a state is
    forgotten. ``priority`` says how states are drawn: ``uniform``; ``success_variance`` with weight p(1-p) of the
    estimated success p; ``score`` with weight exp(score). Two others take turns, so that no state is drawn twice before
    all were: ``doubt`` takes those first after which the policy was least sure (AXPO, arXiv 2605.28774), ``lru_forest``
    the problem that was least recently drawn, and of it the state (DEEP-GRPO, arXiv 2602.14169); the newest problem
    that was never drawn comes first.

    Nothing but saving walks all states: trees find a drawn state, and that of the lowest score. ``journal`` collects
    what becomes of states until someone clears it.
    """

    capacity: int
    states_per_problem: int
    priority: Literal["uniform", "success_variance", "score", "doubt", "lru_forest"]
    keep_between: tuple[float, float]
    evictions: int = field(init=False, default=0)
    journal: list[StateEvent] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("capacity", "states_per_problem"))
        low, high = self.keep_between
        expected = "keep_between: expected two rising numbers from 0 to 1, as [0.1, 0.8]"
        refuse({f"{expected}, got {[low, high]}": not 0 <= low < high <= 1})
        self._rows = Rows()
        self._scores = self._rows.watch(Tree(self._score, numpy.minimum, numpy.inf))
        if self.priority in WEIGHTS:
            self._weights = self._rows.watch(Tree(self._weight, numpy.add, 0.0))
        elif self.priority == "doubt":
            self._sureness = self._rows.watch(Tree(self._sure, numpy.minimum, numpy.inf))
        self._turns = OrderedDict[str, None]()  # problems, the least recently drawn first
        self._turn = 0  # draws so far or, by doubt, the round

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[StoredState]:
        return iter(self._rows.states(self._rows.held()))

    @property
    def problems(self) -> int:
        """How many problems have a state here."""
        return len(self._rows.newest)

    def sums(self) -> dict[str, float]:
        """The sums of numbers of the states, by the names of StoredState; ``length`` is that of the prefix."""
        return self._rows.sums()

    def add(self, new: Candidate, step: int) -> bool:
        """Remember a state; false when it was known already, in which case its score is brought up to date."""
        siblings, bare = self._rows.siblings(new.problem_id), packed(new.prefix)
        for known in siblings:
            if self._rows["prefix"][known] == bare:
                self._rows.set(known, score_now=new.score)
                return False
        row = self._rows.append(new, step)
        cut = None if len(new.prefix) == new.whole else len(new.prefix)
        self.journal.append(Stored(self._rows.key(row), new.problem_id, new.source, new.rollout, cut, new.score))
        if self.priority == "doubt":
            self._rows["turn"][row] = self._turn
        if not siblings and self.priority == "lru_forest":
            self._turns[new.problem_id] = None
            self._turns.move_to_end(new.problem_id, last=False)
        if len(siblings) == self.states_per_problem:
            siblings = self._rows.siblings(new.problem_id)  # rows may have moved
            self._forget(min((self._rows["score_now"][each], each) for each in siblings)[1], "problem full")
        if len(self) > self.capacity:
            self._forget(int(self._scores.descend(1, lambda scores: scores.argmin(axis=1))[0]), "memory full")
        return bool(self._rows["held"][row])

    def draw(self, count: int, rng: Random) -> list[StoredState]:
        """``count`` states by priority, with replacement or in turns; none from an empty buffer."""
        if not len(self):
            return []
        if self.priority == "doubt":
            return self._rows.states(self._doubtful(count))
        if self.priority == "lru_forest":
            return self._rows.states(numpy.array([self._next() for _ in range(count)], dtype=numpy.int64))
        return self._rows.states(self._weighted(count, rng))

    def _weighted(self, count: int, rng: Random) -> Array:
        """The rows of ``count`` states, drawn with replacement by their weights."""
        below = numpy.array([rng.random() for _ in range(count)]) * self._weights.root()

        def choose(weights: Array) -> Array:
            """The first of a block up to which weights sum to more than ``below``, which is left as the rest."""
            nonlocal below
            ends = weights.cumsum(axis=1)
            below = numpy.minimum(below, numpy.nextafter(ends[:, -1], 0))  # the block's sum may be rounded up
            chosen: Array = (ends <= below[:, None]).sum(axis=1)
            below = below - numpy.where(chosen > 0, ends[numpy.arange(count), chosen - 1], 0)
            return chosen

        return self._weights.descend(count, choose)

    def _doubtful(self, count: int) -> Array:
        """The rows whose turn it is, the most doubtful first; ``turn`` is the round in which a row comes next."""
        rows = numpy.resize(self._sureness.smallest(count), count)
        numpy.add.at(self._rows["turn"], rows, 1)
        self._rows.touch(rows.tolist())
        self._turn = ceil(self._sureness.root())
        return rows

    def _next(self) -> int:
        """The row whose turn it is."""
        problem_id, _ = self._turns.popitem(last=False)
        self._turns[problem_id] = None
        self._turn += 1
        row = min(self._rows.siblings(problem_id), key=lambda each: self._rows["turn"].item(each))
        self._rows["turn"][row] = self._turn
        return row

    def wholes(self, keys: Sequence[str]) -> Array:
        """The lengths of the responses that these states were cut from; 0 for a forgotten one."""
        rows = self._rows.find(list(keys))
        return numpy.where(rows >= 0, self._rows["whole"][rows], 0)

    def record(self, visits: Sequence[tuple[str, int, int]]) -> None:
        """Count draws by key, one after the other, each with its successes and its rollouts.

        After each a state that is dead or mastered is forgotten. Draws of states that were forgotten are passed over.
        """
        rows = self._rows.find([key for key, *_ in visits])
        outcomes = numpy.array([counts for _, *counts in visits], dtype=numpy.int32).reshape(-1, 2)
        rows, outcomes = rows[rows >= 0], outcomes[rows >= 0]
        while len(rows):
            _, first = numpy.unique(rows, return_index=True)  # the first draw of each state, then the second
            self._visit(rows[first], *outcomes[first].T)
            rows, outcomes = numpy.delete(rows, first), numpy.delete(outcomes, first, axis=0)
            held = numpy.flatnonzero(self._rows["held"][rows])
            rows, outcomes = rows[held], outcomes[held]

    def forget_problem(self, problem_id: str) -> None:
        """Forget all states of a mastered problem."""
        for row in self._rows.siblings(problem_id):
            self._forget(row, "problem mastered")

    def state_dict(self) -> StateDict:
        """Every state with its statistics, in order, as plain data."""
        turns = {"turns": list(self._turns), "turn": self._turn} if self.priority not in WEIGHTS else {}
        return {"rows": self._rows.state_dict(), "evictions": self.evictions, **turns}

    def load_state_dict(self, state: StateDict) -> None:
        self.evictions = state["evictions"]
        self._rows.load_state_dict(state["rows"])
        self._turns, self._turn = OrderedDict.fromkeys(state.get("turns", ())), state.get("turn", 0)

    def _visit(self, rows: Array, successes: Array, rollouts: Array) -> None:
        self._rows.visit(rows, successes, rollouts)
        low, high = self.keep_between
        rate = success_rate(self._rows["successes"][rows], self._rows["visits"][rows])
        over = (rate <= low) | (rate > high)
        for row, dead in zip(rows[over].tolist(), (rate <= low)[over].tolist(), strict=True):
            self._forget(row, "dead" if dead else "mastered")

    def _forget(self, row: int, reason: str) -> None:
        self.journal.append(Forgotten(self._rows.key(row), reason))
        problem_id = self._rows["problem_id"][row]
        self._rows.drop(row)
        if problem_id not in self._rows.newest:
            self._turns.pop(problem_id, None)
        self.evictions += 1

    def _weight(self, blocks: Array) -> Array:
        weights = WEIGHTS[self.priority](lambda name: self._rows.blocks(name, blocks))
        return numpy.where(self._rows.blocks("held", blocks), weights, 0.0)

    def _sure(self, blocks: Array) -> Array:
        turns, doubt = self._rows.blocks("turn", blocks), self._rows.blocks("doubt", blocks)
        return numpy.where(self._rows.blocks("held", blocks), turns - doubt, numpy.inf)

    def _score(self, blocks: Array) -> Array:
        return numpy.where(self._rows.blocks("held", blocks), self._rows.blocks("score_now", blocks), numpy.inf)
