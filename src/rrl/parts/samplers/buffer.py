"""The memory of states worth going back to: bounded, deduplicated, and forgetting what no longer teaches."""

import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Literal

from rrl.interfaces import StateDict
from rrl.ranges import at_least_one, check_ranges, refuse

Source = Literal["self", "canonical"]


@dataclass(kw_only=True)
class StoredState:
    """A remembered prefix of one problem and what came of going back to it."""

    key: str
    problem_id: str
    prefix: tuple[int, ...]
    source: Source
    born_step: int
    score_at_insert: float
    score_now: float
    visits: int = 0
    successes: int = 0

    @property
    def success_rate(self) -> float:
        """Estimated success of going on from here: (successes + 1) / (visits + 2)."""
        return (self.successes + 1) / (self.visits + 2)


@dataclass(kw_only=True)
class StateBuffer:
    """Holds at most ``capacity`` states and ``states_per_problem`` of one problem.

    A full problem or buffer gives up its state of lowest score. ``keep_between`` are two bounds of the estimated
    success: after a visit that leaves it at or below the lower one (dead) or above the upper one (mastered), a state is
    forgotten. ``priority`` says how states are drawn: ``uniform``; ``success_variance`` with weight p(1-p) of the
    estimated success p; ``score`` with weight exp(score).
    """

    capacity: int
    states_per_problem: int
    priority: Literal["uniform", "success_variance", "score"]
    keep_between: tuple[float, float]
    evictions: int = field(init=False, default=0)
    _states: dict[str, dict[tuple[int, ...], StoredState]] = field(init=False, default_factory=dict)
    _by_key: dict[str, StoredState] = field(init=False, default_factory=dict)
    _born: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("capacity", "states_per_problem"))
        low, high = self.keep_between
        expected = "keep_between: expected two rising numbers from 0 to 1, as [0.1, 0.8]"
        refuse({f"{expected}, got {[low, high]}": not 0 <= low < high <= 1})

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[StoredState]:
        return iter(self._by_key.values())

    @property
    def problems(self) -> int:
        """How many problems have a state here."""
        return len(self._states)

    def add(self, problem_id: str, prefix: tuple[int, ...], *, source: Source, score: float, step: int) -> bool:
        """Remember a state; false when it was known already, in which case its score is brought up to date."""
        known = self._states.get(problem_id, {}).get(prefix)
        if known is not None:
            known.score_now = score
            return False
        self._born += 1
        state = StoredState(
            key=f"{problem_id}@{self._born}", problem_id=problem_id, prefix=prefix, source=source, born_step=step,
            score_at_insert=score, score_now=score,
        )  # fmt: skip
        self._states.setdefault(problem_id, {})[prefix] = state
        self._by_key[state.key] = state
        self._shrink(self._states[problem_id].values(), self.states_per_problem)
        self._shrink(self._by_key.values(), self.capacity)
        return state.key in self._by_key

    def draw(self, count: int, rng: Random) -> list[StoredState]:
        """``count`` states with replacement, by priority; none from an empty buffer."""
        states = list(self)
        return rng.choices(states, [self._weight(state) for state in states], k=count) if states else []

    def record(self, key: str, success: bool) -> None:
        """Count a visit to a state, which may have been forgotten meanwhile; forget it if dead or mastered."""
        state = self._by_key.get(key)
        if state is None:
            return
        state.visits += 1
        state.successes += success
        low, high = self.keep_between
        if not low < state.success_rate <= high:
            self._forget(state)

    def forget_problem(self, problem_id: str) -> None:
        for state in list(self._states.get(problem_id, {}).values()):
            self._forget(state)

    def state_dict(self) -> StateDict:
        """Every state with its statistics, in order, as plain data."""
        return {"states": [asdict(state) for state in self], "born": self._born, "evictions": self.evictions}

    def load_state_dict(self, state: StateDict) -> None:
        self._states, self._by_key = {}, {}
        self._born, self.evictions = state["born"], state["evictions"]
        for saved in state["states"]:
            stored = StoredState(**{**saved, "prefix": tuple(saved["prefix"])})
            self._states.setdefault(stored.problem_id, {})[stored.prefix] = stored
            self._by_key[stored.key] = stored

    def _shrink(self, states: Collection[StoredState], limit: int) -> None:
        if len(states) > limit:
            self._forget(min(states, key=lambda state: state.score_now))

    def _forget(self, state: StoredState) -> None:
        del self._by_key[state.key]
        siblings = self._states[state.problem_id]
        del siblings[state.prefix]
        if not siblings:
            del self._states[state.problem_id]
        self.evictions += 1

    def _weight(self, state: StoredState) -> float:
        if self.priority == "success_variance":
            return state.success_rate * (1 - state.success_rate)
        return math.exp(state.score_now) if self.priority == "score" else 1.0
