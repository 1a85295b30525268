"""Own prefixes that steer every problem towards one success in two: a head start, or a handicap."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from rrl.contracts.siblings import Siblings
from rrl.cuts import CutPoints, Cutter
from rrl.interfaces import ScorePrefixes, StateDict, StateSampler
from rrl.parts.samplers.problems import Problems
from rrl.parts.samplers.silence import Standstill
from rrl.parts.samplers.starts import by_start
from rrl.ranges import below_one, between, check_ranges, refuse
from rrl.types import Batch, Judged, Metrics, Problem, State

Kind = Literal["head start", "handicap"]


@dataclass
class Known:
    """What is known of a problem: its running success from the prompt, and of each kind of prefix a response that it
    is cut from, and the share of it that was given last."""

    rate: float
    responses: dict[Kind, tuple[int, ...]] = field(default_factory=dict)
    shares: dict[Kind, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class PassRate(StateSampler):
    """Draws problems as ``Problems`` does, and gives those that are too hard or too easy an own prefix.

    A problem whose running success from the prompt is below the first of ``middle`` starts from the beginning of its
    latest own success (a head start), one above the second from that of its latest failure (a handicap), as far as
    there is one. The prefix begins as the share ``share`` of that response and, by ``move`` after each visit, becomes
    longer or shorter so that one visit in two succeeds: a head start grows with failures, a handicap with successes.
    Siblings are one visit, which moves it by the share that succeeded less the share that failed, times ``move``.
    A share ``prompts`` of its starts is from the prompt all the same, so that the running success stays known; visits
    with a prefix that became empty count as such, too. Prefix Sampling
    (arXiv 2605.05112; failure prefixes also arXiv 2601.20829).
    """

    level_weights: dict[str, float] | None
    middle: tuple[float, float]
    share: float
    move: float
    prompts: float
    success_momentum: float
    cut_points: CutPoints
    max_response_length: int
    siblings: Siblings | None
    replays = "prefixes"
    _known: dict[str, Known] = field(init=False, default_factory=dict)
    _standstill: Standstill = field(init=False, default_factory=Standstill)

    def __post_init__(self) -> None:
        check_ranges(self, between(0, 1, "share", "move", "prompts"), below_one("success_momentum"))
        low, high = self.middle
        refuse({f"middle: expected two rising shares from 0 to 1, got {[low, high]}": not 0 <= low <= high <= 1})
        self._fresh = Problems(level_weights=self.level_weights)

    def start(self, problems: Sequence[Problem], seed: int, inspect: ScorePrefixes, tokenizer: Any) -> None:
        self._fresh.start(problems, seed, inspect, tokenizer)
        self._rng = random.Random(f"pass_rate/{seed}")
        self._cutter = Cutter(tokenizer, self.cut_points)

    def sample(self, count: int, progress: float) -> list[State]:
        """``count`` problems, some with a prefix; by ``siblings`` as many as have the rollouts of ``count``."""
        if self.siblings is None:
            return [self._placed(state.problem) for state in self._fresh.sample(count, progress)]
        states, room = list[State](), count * self.siblings.n
        while room > 0:
            states += [self._placed(state.problem) for state in self._fresh.sample(1, progress)]
            room -= self.siblings.of(states[-1])
        return states

    def observe(self, judged: Sequence[Judged], batch: Batch) -> Metrics:
        """Move the prefixes, and keep the latest success and failure of each problem."""
        tried = [each.rollout.state for each in judged if each.rollout.state.problem.id in self._known]
        self._standstill.heed(
            self.prompts == 1 or not tried or any(state.replayed for state in tried),
            f"no problem that came again had an own prefix: below sampler.middle={list(self.middle)} one needs an own "
            "success, above it an own failure; look at replay/ratio and explore/unsolved_frac (1: no success yet)",
        )
        for state, siblings, success in by_start(judged):
            known = self._known.setdefault(state.problem.id, Known(rate=success))
            if not state.prefix:
                momentum = self.success_momentum
                known.rate = momentum * known.rate + (1 - momentum) * success
                for each in siblings:
                    known.responses["head start" if each.feedback.solved else "handicap"] = each.rollout.tokens
            if state.replayed_from is not None:
                kind: Kind = "head start" if state.replayed_from.startswith("head start") else "handicap"
                surplus = 2 * success - 1  # of successes over failures, -1 to 1
                longer = surplus if kind == "handicap" else -surplus
                moved = known.shares.get(kind, self.share) + self.move * longer
                known.shares[kind] = min(1.0, max(0.0, moved))
        return {
            f"replay/{kind.replace(' ', '_')}_share/mean": fmean(shares) if shares else 0.0
            for kind in ("head start", "handicap")
            for shares in [[known.shares[kind] for known in self._known.values() if kind in known.shares]]
        }

    def state_dict(self) -> StateDict:
        known = {name: [each.rate, dict(each.responses), dict(each.shares)] for name, each in self._known.items()}
        return {
            "fresh": self._fresh.state_dict(),
            "rng": self._rng.getstate(),
            "known": known,
            "idle": self._standstill.steps,
        }

    def load_state_dict(self, state: StateDict) -> None:
        self._fresh.load_state_dict(state["fresh"])
        self._rng.setstate(state["rng"])
        self._standstill = Standstill(state.get("idle", 0))
        self._known = {
            name: Known(rate, dict(had), dict(shares)) for name, (rate, had, shares) in state["known"].items()
        }

    def _placed(self, problem: Problem) -> State:
        """The problem with the prefix that its success asks for, or from its prompt."""
        known, (low, high) = self._known.get(problem.id), self.middle
        if known is None or low <= known.rate <= high or self._rng.random() < self.prompts:
            return State(problem)
        kind: Kind = "head start" if known.rate < low else "handicap"
        response = known.responses.get(kind, ())
        legal = [cut for cut in self._cutter.legal(response) if cut < self.max_response_length]
        if not legal:
            return State(problem)
        longest = known.shares.get(kind, self.share) * len(response)
        end = max((cut for cut in legal if cut <= longest), default=0)  # an empty prefix may become longer, too
        return State(problem, self._prefix(response[:end]), f"{kind} of {problem.id}")

    def _prefix(self, found: tuple[int, ...]) -> tuple[int, ...]:
        return found


class PassRateRedraw(PassRate):
    """The control: the same problems with the prefix emptied."""

    replays = "prompts"

    def _prefix(self, found: tuple[int, ...]) -> tuple[int, ...]:
        return ()
