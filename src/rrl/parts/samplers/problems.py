"""Ordinary starts: problems from their prompts, drawn by level."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rrl.errors import DataError
from rrl.interfaces import ScorePrefixes, StateDict, StateSampler
from rrl.types import Problem, State


@dataclass(kw_only=True)
class Problems(StateSampler):
    """Draws a level by its weight, then the level's next problem from a shuffled deck.

    ``level_weights`` maps level names to weights (any positive scale); null draws all problems evenly.
    """

    level_weights: dict[str, float] | None

    def __post_init__(self) -> None:
        weights = self.level_weights
        if weights is not None and (not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0):
            raise ValueError(f"level_weights: expected weights >= 0 with a positive sum, got {dict(weights)}")

    def start(self, problems: Sequence[Problem], seed: int, inspect: ScorePrefixes, tokenizer: Any) -> None:
        """Sort the problems into decks; every level with a weight needs problems."""
        self._rng = random.Random(f"problems/{seed}")
        self._decks: dict[str, list[Problem]] = {}
        for problem in problems:
            self._decks.setdefault(problem.level if self.level_weights else "all", []).append(problem)
        self._weights = {"all": 1.0} if self.level_weights is None else self.level_weights
        missing = sorted(set(self._weights) - set(self._decks))
        if missing:
            raise DataError(f"level_weights: no problems of level {missing}; the data has {sorted(self._decks)}")
        self._order: dict[str, list[int]] = {level: [] for level in self._weights}

    def sample(self, count: int, progress: float) -> list[State]:
        """``count`` fresh starts."""
        levels = self._rng.choices(list(self._weights), list(self._weights.values()), k=count)
        return [State(self._next(level)) for level in levels]

    def state_dict(self) -> StateDict:
        """Random state and what is left of each deck."""
        return {"rng": self._rng.getstate(), "order": {level: list(left) for level, left in self._order.items()}}

    def load_state_dict(self, state: StateDict) -> None:
        self._rng.setstate(state["rng"])
        self._order = {level: list(left) for level, left in state["order"].items()}

    def _next(self, level: str) -> Problem:
        deck, order = self._decks[level], self._order[level]
        if not order:
            order.extend(range(len(deck)))
            self._rng.shuffle(order)
        return deck[order.pop()]
