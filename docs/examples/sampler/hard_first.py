"""Ordinary starts with a preference: of several problems drawn, take the one that the policy solves least often."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from rrl.interfaces import ScorePrefixes, StateDict, StateSampler
from rrl.parts.samplers.problems import Problems
from rrl.ranges import at_least_one, between, check_ranges
from rrl.types import Batch, Judged, Metrics, Problem, State


@dataclass(kw_only=True)
class HardFirst(StateSampler):
    """Draws ``candidates`` problems for every start, as ``Problems`` does, and takes the hardest.

    How hard a problem is says its running success, a moving average with weight ``momentum`` on the past; a problem
    that was never tried counts as ``unknown``. ``level_weights`` are those of the draw: the choice shifts them.
    """

    level_weights: dict[str, float] | None
    candidates: int
    momentum: float
    unknown: float
    _success: dict[str, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._fresh = Problems(level_weights=self.level_weights)
        check_ranges(self, at_least_one("candidates"), between(0, 1, "momentum", "unknown"))

    def start(self, problems: Sequence[Problem], seed: int, inspect: ScorePrefixes, tokenizer: Any) -> None:
        """Begin on these problems."""
        self._fresh.start(problems, seed, inspect, tokenizer)

    def sample(self, count: int, progress: float) -> list[State]:
        """``count`` fresh starts, each the hardest of its candidates."""
        drawn = self._fresh.sample(count * self.candidates, progress)
        self._chosen = [min(drawn[i::count], key=self._success_of) for i in range(count)]
        return self._chosen

    def observe(self, judged: Sequence[Judged], batch: Batch) -> Metrics:
        """Remember how each problem went; report how hard the chosen ones were known to be."""
        known = fmean(self._success_of(state) for state in self._chosen)
        for each in judged:
            state, score = each.rollout.state, each.feedback.score
            self._success[state.problem.id] = self.momentum * self._success_of(state) + (1 - self.momentum) * score
        return {"explore/chosen_success/mean": known}

    def state_dict(self) -> StateDict:
        """What is left of the decks, and what is known of each problem."""
        return {"fresh": self._fresh.state_dict(), "success": dict(self._success)}

    def load_state_dict(self, state: StateDict) -> None:
        """Go back to a saved state."""
        self._fresh.load_state_dict(state["fresh"])
        self._success = dict(state["success"])

    def _success_of(self, state: State) -> float:
        return self._success.get(state.problem.id, self.unknown)
