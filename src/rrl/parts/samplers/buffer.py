"""The memory of states worth going back to: bounded, deduplicated, and forgetting what no longer teaches."""

import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Literal

from rrl.interfaces import StateDict
from rrl.ranges import at_least_one, between, check_ranges, not_negative


@dataclass(kw_only=True)
class StoredState:
    """A remembered prefix of one problem and what came of going back to it."""

    key: str
    problem_id: str
    prefix: tuple[int, ...]
    source: Literal["self", "canonical"]
    born_step: int
    born_version: int
    score_at_insert: float
    score_now: float
    parent: str | None
    visits: int = 0
    successes: int = 0

    @property
    def success_rate(self) -> float:
        """Estimated success of going on from here: (successes + 1) / (visits + 2)."""
        return (self.successes + 1) / (self.visits + 2)


@dataclass(kw_only=True)
class StateBuffer:
    """Holds at most ``capacity`` states and ``states_per_problem`` of one problem.

    A full problem or buffer gives up its state of lowest score (``overflow: lowest_score``) or its oldest
    (``oldest``). A state is forgotten when it is dead (``evict_after_failures`` visits without a success; 0: never) or
    mastered (success above ``evict_above`` in at least ``evict_min_visits``). ``priority`` says how states are drawn:
    ``uniform``; ``success_variance`` with weight p(1-p) of the estimated success p; ``score`` with weight exp(score).
    """

    capacity: int
    states_per_problem: int
    overflow: Literal["lowest_score", "oldest"]
    evict_after_failures: int
    evict_above: float
    evict_min_visits: int
    priority: Literal["uniform", "success_variance", "score"]
    evictions: int = field(init=False, default=0)
    _states: dict[str, dict[tuple[int, ...], StoredState]] = field(init=False, default_factory=dict)
    _by_key: dict[str, StoredState] = field(init=False, default_factory=dict)
    _born: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        check_ranges(
            self,
            at_least_one("capacity", "states_per_problem", "evict_min_visits"),
            not_negative("evict_after_failures"),
            between(0, 1, "evict_above"),
        )

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[StoredState]:
        return iter(self._by_key.values())

    @property
    def problems(self) -> int:
        """How many problems have a state here."""
        return len(self._states)

    def add(
        self, problem_id: str, prefix: tuple[int, ...], *, source: Literal["self", "canonical"], score: float,
        step: int, version: int, parent: str | None,
    ) -> bool:  # fmt: skip
        """Remember a state; false when it was known already, in which case its score is brought up to date."""
        known = self._states.get(problem_id, {}).get(prefix)
        if known is not None:
            known.score_now = score
            return False
        self._born += 1
        state = StoredState(
            key=f"{problem_id}@{self._born}", problem_id=problem_id, prefix=prefix, source=source, born_step=step,
            born_version=version, score_at_insert=score, score_now=score, parent=parent,
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
        dead = self.evict_after_failures and state.visits >= self.evict_after_failures and not state.successes
        mastered = state.visits >= self.evict_min_visits and state.successes / state.visits > self.evict_above
        if dead or mastered:
            self._forget(state)

    def forget_problem(self, problem_id: str) -> None:
        """Forget every state of a problem."""
        for state in list(self._states.get(problem_id, {}).values()):
            self._forget(state)

    def state_dict(self) -> StateDict:
        """Every state with its statistics, in order, as plain data."""
        return {"states": [asdict(state) for state in self], "born": self._born, "evictions": self.evictions}

    def load_state_dict(self, state: StateDict) -> None:
        """Go back to a saved memory."""
        self._states, self._by_key = {}, {}
        self._born, self.evictions = state["born"], state["evictions"]
        for saved in state["states"]:
            stored = StoredState(**{**saved, "prefix": tuple(saved["prefix"])})
            self._states.setdefault(stored.problem_id, {})[stored.prefix] = stored
            self._by_key[stored.key] = stored

    def _shrink(self, states: Collection[StoredState], limit: int) -> None:
        if len(states) > limit:
            oldest = next(iter(states))
            self._forget(oldest if self.overflow == "oldest" else min(states, key=lambda state: state.score_now))

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
