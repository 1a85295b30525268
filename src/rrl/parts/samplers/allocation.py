"""Prompts and remembered states compete for the same starts, by one estimate of their success."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import fmean
from typing import Literal, NamedTuple

from rrl.contracts.siblings import Siblings
from rrl.interfaces import StateDict
from rrl.parts.samplers.retrospective import Retrospective
from rrl.parts.samplers.rows import StoredState
from rrl.ranges import at_least_one, between, check_ranges, positive
from rrl.types import Batch, Judged, Metrics, Problem, State

Beta = tuple[float, float]
"""The a and b of a Beta distribution."""
LEAST = 0.01
"""The distance that an expected success keeps from 0 and 1, where a Beta distribution ends."""
KINDS = ("_prompts", "_levels", "_states")
"""What outcomes are counted of."""


class Outcomes(NamedTuple):
    """Visits and successes, faded as of the step ``last``."""

    visits: float = 0.0
    successes: float = 0.0
    last: int = 0


@dataclass(kw_only=True)
class Allocation(Retrospective):
    """Starts where success is least decided, at a prompt or at a remembered state.

    For each start ``candidates`` problems are drawn as ``Problems`` does; their prompts compete with all remembered
    states, of which at most ``schedule.share`` of the starts are taken (0: prompts alone, the control). Of each an
    expected success is drawn from its Beta distribution; those nearest one half are taken, no two of one line of
    descent. The distribution's mean is that of the visits, faded by ``fade`` a step, and of ``prior`` visits that
    stand for what is expected before: of a prompt the success of its level, of a state, by ``expects``, that of its
    prompt (``prompt``) or the critic's value when it was found (``critic``).

    After TRACE (arXiv 2606.11119) and PROS (OpenReview lz1SRTcnUb), whose estimates are a learned predictor and a
    logit-normal model of pass rates.
    """

    candidates: int
    fade: float
    prior: float
    expects: Literal["prompt", "critic"]
    _prompts: dict[str, Outcomes] = field(init=False, default_factory=dict)
    _levels: dict[str, Outcomes] = field(init=False, default_factory=dict)
    _states: dict[str, Outcomes] = field(init=False, default_factory=dict)
    _expected: float = field(init=False, default=0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, at_least_one("candidates"), between(0, 1, "fade"), positive("prior"))

    @property
    def needs_critic(self) -> bool:
        return super().needs_critic or self.expects == "critic"

    def sample(self, count: int, progress: float) -> list[State]:
        """``count`` starts, the least decided draw first."""
        self._progress = progress
        each = self.siblings or Siblings(n=1, n_replayed=1)
        room, left = count * each.n, round(count * self.schedule.share_at(progress)) * each.n
        pool = [
            (self._of_prompt(state.problem), state) for state in self._fresh.sample(count * self.candidates, progress)
        ]
        pool += [(self._of_state(stored), self._state(stored)) for stored in self.buffer if left]
        drawn = [(abs(self._rng.betavariate(*beta) - 0.5), place) for place, (beta, _) in enumerate(pool)]
        chosen, spare, prefixes = list[int](), list[int](), defaultdict[str, list[tuple[int, ...]]](list)
        for _, place in sorted(drawn):
            state = pool[place][1]
            others = prefixes[state.problem.id]
            takes = each.of(state)
            if room > 0 and left >= takes * state.replayed and not _related(state.prefix, others):
                chosen.append(place)
                others.append(state.prefix)
                room, left = room - takes, left - takes * state.replayed
            elif not state.replayed:
                spare.append(place)
        chosen += spare[: max(0, ceil(room / each.n))]  # where there are fewer problems than starts
        self._expected = fmean(_mean(pool[place][0]) for place in chosen)
        return [pool[place][1] for place in chosen]

    def observe(self, judged: Sequence[Judged], batch: Batch) -> Metrics:
        """As ``Retrospective``, with the mean success that was expected of the step's starts."""
        return super().observe(judged, batch) | {"explore/expected_success/mean": self._expected}

    def state_dict(self) -> StateDict:
        outcomes = {name: {key: tuple(each) for key, each in getattr(self, name).items()} for name in KINDS}
        return super().state_dict() | outcomes | {"expected": self._expected}

    def load_state_dict(self, state: StateDict) -> None:
        super().load_state_dict(state)
        for name in KINDS:
            setattr(self, name, {key: Outcomes(*each) for key, each in state[name].items()})
        self._expected = state["expected"]

    def _record(self, judged: Sequence[Judged]) -> int:
        for each in judged:
            state, solved = each.rollout.state, each.feedback.solved
            if state.replayed_from is not None:
                self._count(self._states, state.replayed_from, solved)
            else:
                self._count(self._prompts, state.problem.id, solved)
                self._count(self._levels, state.problem.level, solved)
        first_solves = super()._record(judged)
        held = {stored.key for stored in self.buffer}
        self._states = {key: each for key, each in self._states.items() if key in held}
        return first_solves

    def _count(self, outcomes: dict[str, Outcomes], key: str, solved: bool) -> None:
        visits, successes, last = self._faded(outcomes, key)
        outcomes[key] = Outcomes(visits + 1, successes + solved, last)

    def _faded(self, outcomes: Mapping[str, Outcomes], key: str) -> Outcomes:
        visits, successes, last = outcomes.get(key, Outcomes())
        kept = self.fade ** (self._step - last)
        return Outcomes(visits * kept, successes * kept, self._step)

    def _of_prompt(self, problem: Problem) -> Beta:
        level = self._faded(self._levels, problem.level)
        return self._beta((level.successes + 0.5) / (level.visits + 1), self._faded(self._prompts, problem.id))

    def _of_state(self, stored: StoredState) -> Beta:
        critic = self.expects == "critic"
        expected = stored.value if critic else _mean(self._of_prompt(self._problems[stored.problem_id]))
        return self._beta(expected, self._faded(self._states, stored.key))

    def _beta(self, expected: float, seen: Outcomes) -> Beta:
        expected = min(max(expected, LEAST), 1 - LEAST)
        return self.prior * expected + seen.successes, self.prior * (1 - expected) + seen.visits - seen.successes


def _mean(beta: Beta) -> float:
    return beta[0] / sum(beta)


def _related(prefix: tuple[int, ...], others: Sequence[tuple[int, ...]]) -> bool:
    """Whether one of the others begins with the prefix, or the prefix with it."""
    return any(prefix[: len(other)] == other[: len(prefix)] for other in others)
