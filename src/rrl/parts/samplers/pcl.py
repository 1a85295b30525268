"""A control at the level of problems: prompts of which the critic cannot tell whether they will be solved."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rrl.interfaces import ScorePrefixes, StateDict, StateSampler
from rrl.parts.samplers.problems import Problems
from rrl.ranges import at_least_one, check_ranges
from rrl.types import Batch, Judged, Metrics, Problem, State


@dataclass(kw_only=True)
class MiddlePrompts(StateSampler):
    """Draws ``candidates`` times as many problems as are wanted, and starts from those of middle value.

    These are the prompts whose value V(s0) by the current critic is nearest ``middle``, in units of the return
    (Prompt Curriculum Learning, arXiv 2510.01135, where a model of its own predicts the success). ``level_weights``
    are those of the draw: the choice shifts them.
    """

    level_weights: dict[str, float] | None
    candidates: int
    middle: float

    needs_critic = True

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("candidates"))
        self._fresh = Problems(level_weights=self.level_weights)
        self._values = [0.0]

    def start(self, problems: Sequence[Problem], seed: int, inspect: ScorePrefixes, tokenizer: Any) -> None:
        self._fresh.start(problems, seed, inspect, tokenizer)
        self._inspect = inspect

    def sample(self, count: int, progress: float) -> list[State]:
        """``count`` fresh starts, the one of the middlest value first; a problem again when all others were taken."""
        drawn = self._fresh.sample(count * self.candidates, progress)
        values = [scored.values[0] for scored in self._inspect(drawn)]
        times, earlier = Counter[str](), list[int]()
        for state in drawn:
            earlier.append(times[state.problem.id])
            times[state.problem.id] += 1
        chosen = sorted(range(len(drawn)), key=lambda i: (earlier[i], abs(values[i] - self.middle)))[:count]
        self._values = [values[i] for i in chosen]
        return [drawn[i] for i in chosen]

    def observe(self, judged: Sequence[Judged], batch: Batch) -> Metrics:
        """The mean value that the prompts had when they were chosen."""
        return {"explore/chosen_value/mean": fmean(self._values)}

    def state_dict(self) -> StateDict:
        return {"fresh": self._fresh.state_dict(), "values": list(self._values)}

    def load_state_dict(self, state: StateDict) -> None:
        self._fresh.load_state_dict(state["fresh"])
        self._values = list(state["values"])
