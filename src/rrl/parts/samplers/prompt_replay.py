"""A control at the level of problems: those that are solved now and then come again soon."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from rrl.contracts.siblings import Siblings
from rrl.interfaces import ScorePrefixes, StateDict, StateSampler
from rrl.parts.samplers.problems import Problems
from rrl.parts.samplers.silence import Standstill
from rrl.ranges import between, check_ranges, not_negative, refuse
from rrl.types import Batch, Judged, Metrics, Problem, State


@dataclass(kw_only=True)
class PromptReplay(StateSampler):
    """Starts from problems of a middle pass rate again, for at most ``share`` of the starts; else as ``Problems``.

    A problem comes again when its pass rate lies in ``window``, after ``cool_down`` steps without it, and at most
    ``reuses`` times; those nearest one half come first, and none is drawn fresh in the same step while there are
    others (Prompt Replay, arXiv 2603.21177; its numbers from a summary). The pass rate is that of all its rollouts in a
    step, averaged with weight ``momentum`` on the past. By ``siblings`` fewer problems come again, each with more
    rollouts.
    """

    level_weights: dict[str, float] | None
    share: float
    window: tuple[float, float]
    cool_down: int
    reuses: int
    momentum: float
    siblings: Siblings | None
    replays = "prompts"
    _rate: dict[str, float] = field(init=False, default_factory=dict)
    _last: dict[str, int] = field(init=False, default_factory=dict)
    _uses: dict[str, int] = field(init=False, default_factory=dict)
    _step: int = field(init=False, default=0)
    _standstill: Standstill = field(init=False, default_factory=Standstill)

    def __post_init__(self) -> None:
        check_ranges(self, between(0, 1, "share", "momentum"), not_negative("cool_down", "reuses"))
        low, high = self.window
        refuse({f"window: expected two rising pass rates, got {[low, high]}": not 0 <= low < high <= 1})
        self._fresh = Problems(level_weights=self.level_weights)

    def start(self, problems: Sequence[Problem], seed: int, inspect: ScorePrefixes, tokenizer: Any) -> None:
        self._fresh.start(problems, seed, inspect, tokenizer)
        self._problems = {problem.id: problem for problem in problems}

    def sample(self, count: int, progress: float) -> list[State]:
        """Problems that come again, as far as there are any; fresh starts for the rest."""
        low, high = self.window
        ready = [
            name
            for name, rate in self._rate.items()
            if low <= rate <= high
            and self._step - self._last[name] >= self.cool_down
            and self._uses.get(name, 0) < self.reuses
        ]
        each = self.siblings or Siblings(n=1, n_replayed=1)
        taken = min(round(self.share * count), each.fresh_for(len(ready)))
        again = sorted(ready, key=lambda name: abs(self._rate[name] - 0.5))[: each.replayed_for(taken)]
        for name in again:
            self._uses[name] = self._uses.get(name, 0) + 1
        fresh = self._others(count - taken, set(again), progress)
        states = fresh + [State(self._problems[name], replayed_from=name) for name in again]
        for state in states:  # also of those whose rollouts will be left out
            self._last[state.problem.id] = self._step + 1
        return states

    def observe(self, judged: Sequence[Judged], batch: Batch) -> Metrics:
        """Bring the pass rates up to date."""
        self._step += 1
        outcomes = defaultdict[str, list[bool]](list)
        for each in judged:
            outcomes[each.rollout.state.problem.id].append(each.feedback.solved)
        again = any(name in self._rate for name in outcomes)
        for name, solved in outcomes.items():
            now = fmean(solved)
            self._rate[name] = self.momentum * self._rate.get(name, now) + (1 - self.momentum) * now
            self._last[name] = self._step
        low, high = self.window
        inside = sum(low <= rate <= high for rate in self._rate.values())
        self._standstill.heed(
            self.share == 0 or inside > 0 or not again,
            f"no problem had a pass rate in sampler.window={list(self.window)}, and some had come more than once; look "
            "at replay/problems_in_window, and widen the window",
        )
        return {"replay/problems_in_window": float(inside)}

    def _others(self, count: int, again: Collection[str], progress: float) -> list[State]:
        """Fresh starts from other problems than these, as far as there are any; a passed one has had its turn."""
        fresh, passed = list[State](), list[State]()
        while len(fresh) < count and len(passed) <= len(self._problems):
            for state in self._fresh.sample(count - len(fresh), progress):
                (passed if state.problem.id in again else fresh).append(state)
        return fresh + passed[: count - len(fresh)]

    def state_dict(self) -> StateDict:
        return {
            "fresh": self._fresh.state_dict(),
            "rate": dict(self._rate),
            "last": dict(self._last),
            "uses": dict(self._uses),
            "step": self._step,
            "idle": self._standstill.steps,
        }

    def load_state_dict(self, state: StateDict) -> None:
        self._fresh.load_state_dict(state["fresh"])
        self._standstill = Standstill(state.get("idle", 0))
        self._rate, self._last, self._uses = dict(state["rate"]), dict(state["last"]), dict(state["uses"])
        self._step = state["step"]
