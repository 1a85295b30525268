"""Retrospective replay: go back to promising states found earlier, and write on from there (arXiv 2504.14363)."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from rrl.contracts import border, examining
from rrl.contracts.calling import calling
from rrl.contracts.siblings import Siblings
from rrl.cuts import CutPoints, Cutter
from rrl.errors import DataError
from rrl.functional import explained_variance
from rrl.interfaces import Author, Found, ScorePrefixes, Selection, StateDict, StateSampler
from rrl.parts.samplers.buffer import StateBuffer
from rrl.parts.samplers.demands import needs_failures, reads_errors
from rrl.parts.samplers.problems import Problems
from rrl.parts.samplers.rows import Candidate, Source, StoredState
from rrl.parts.samplers.schedule import Schedule
from rrl.parts.samplers.silence import Finds, Silence
from rrl.parts.samplers.starts import by_start
from rrl.ranges import below_one, check_ranges, positive
from rrl.spans import tokens_before_error
from rrl.types import Batch, Feedback, Judged, Metrics, Problem, Rollout, State, StateEvent, TokenScores


@dataclass(kw_only=True)
class Retrospective(StateSampler):
    """Starts from remembered states for a share of the rollouts, and from prompts (as ``Problems``) for the rest.

    ``selection`` finds the states along failed responses from prompts (``self``) and along references (``canonical``),
    according to ``sources``. ``cut_points`` are where a response may be cut; a prefix is shorter than
    ``max_response_length`` tokens, prompt not counted. Problems whose running success from the prompt (moving average
    over starts, the mean of siblings each, with weight ``success_momentum`` on the past) is ``max_problem_success`` or
    more count as mastered: nothing is collected for them and their states are forgotten. By ``siblings`` fewer states
    are drawn, each with more rollouts, for the same share of rollouts. ``controls`` has the variants that isolate one
    effect.
    """

    level_weights: dict[str, float] | None
    selection: Selection
    buffer: StateBuffer
    schedule: Schedule
    sources: Literal["self", "canonical", "both"]
    cut_points: CutPoints
    max_response_length: int
    max_problem_success: float
    success_momentum: float
    siblings: Siblings | None

    replays = "prefixes"
    needs_annotation = True

    _success: dict[str, float] = field(init=False, default_factory=dict)
    _used: set[str] = field(init=False, default_factory=set)
    _solved: set[str] = field(init=False, default_factory=set)
    _progress: float = field(init=False, default=0.0)
    _step: int = field(init=False, default=0)
    _silence: Silence = field(init=False, default_factory=Silence)

    def __post_init__(self) -> None:
        check_ranges(self, below_one("success_momentum"), positive("max_problem_success"))
        self._fresh = Problems(level_weights=self.level_weights)
        fault = None if self.sources == "self" else needs_failures(self.selection, "references")
        if fault:
            raise ValueError(f"sources: expected self, because {fault}, got {self.sources!r}; or another selection")

    @property
    def needs(self) -> frozenset[str]:
        return self.selection.needs

    @property
    def needs_critic(self) -> bool:
        return self.selection.needs_critic

    @property
    def needs_entropies(self) -> bool:
        return self.selection.needs_entropies

    def start(self, problems: Sequence[Problem], seed: int, inspect: ScorePrefixes, tokenizer: Any) -> None:
        """Begin with an empty memory. Raises DataError where references are a source and no problem has one."""
        if self.sources != "self" and not any(problem.reference for problem in problems):
            raise DataError(
                f"sampler.sources: {self.sources!r}, but none of the {len(problems)} problems has a reference; use "
                "sampler.sources=self and a sampler of own responses, or data with references"
            )
        self._fresh.start(problems, seed, inspect, tokenizer)
        self._rng = random.Random(f"retrospective/{seed}")
        self._problems = {problem.id: problem for problem in problems}
        self._inspect, self._cutter = inspect, Cutter(tokenizer, self.cut_points)
        self._decode = lambda tokens: str(tokenizer.decode(list(tokens)))

    def lend(self, author: Author) -> None:
        with calling("selection", self.selection, "start"):
            self.selection.start(author)

    def expense(self, longest: int) -> int:
        return examining.expense("selection", self.selection, longest)

    def sample(self, count: int, progress: float) -> list[State]:
        """Remembered states for the share that the schedule gives, as far as there are any; prompts for the rest."""
        self._progress = progress
        wanted = self._wanted(count)
        states = wanted if self.siblings is None else self.siblings.replayed_for(wanted)
        remembered = self.buffer.draw(states, self._rng)
        fresh = self._fresh.sample(count - wanted if remembered else count, progress)
        return fresh + [self._state(stored) for stored in self._reviewed(remembered)]

    def observe(self, judged: Sequence[Judged], batch: Batch) -> Metrics:
        """Update what is known of states and problems, then collect new states."""
        self._step += 1
        self.buffer.journal.clear()
        first_solves = self._record(judged)
        begin, end = self.schedule.collect
        collects, suffices = begin <= self._progress <= end, self._critic_suffices(batch)
        self._finds = Finds(sum(map(self._offered, judged)) if collects else 0)
        found: Metrics = {}
        if collects and suffices:
            if self.sources != "canonical":
                found = self._collect_own(judged, batch)
            if self.sources != "self":
                self._collect_canonical(judged)
        self._heed(gated=not suffices)
        return self._metrics() | {"replay/first_solves": float(first_solves)} | found

    def events(self) -> list[StateEvent]:
        return list(self.buffer.journal)

    def remembered(self) -> list[State]:
        return [Retrospective._state(self, stored) for stored in self._reviewed(list(self.buffer))]

    def state_dict(self) -> StateDict:
        """The memory, what is known of each problem, and the random state."""
        return {
            "fresh": self._fresh.state_dict(),
            "buffer": self.buffer.state_dict(),
            "selection": border.state("selection", self.selection),
            "rng": self._rng.getstate(),
            "success": dict(self._success),
            "used": sorted(self._used),
            "solved": sorted(self._solved),
            "progress": self._progress,
            "step": self._step,
            "silence": self._silence.plain(),
        }

    def load_state_dict(self, state: StateDict) -> None:
        self._fresh.load_state_dict(state["fresh"])
        self.buffer.load_state_dict(state["buffer"])
        self.selection.load_state_dict(state["selection"])
        self._rng.setstate(state["rng"])
        self._success = dict(state["success"])
        self._used, self._solved = set(state["used"]), set(state["solved"])
        self._progress, self._step = state["progress"], state["step"]
        self._silence = Silence(*state.get("silence", ()))

    def _wanted(self, count: int) -> int:
        """How many of so many starts are replayed, if there are states."""
        return round(count * self.schedule.share_at(self._progress))

    def _kept(self, response: tuple[int, ...], scores: Mapping[int, float]) -> dict[int, tuple[int, ...]]:
        """What is remembered of a response, by the cuts that the rule gave these scores."""
        return {cut: response[:cut] for cut in scores}

    def _reviewed(self, remembered: list[StoredState]) -> list[StoredState]:
        """These states as the policy goes back to them now."""
        return remembered

    def _state(self, stored: StoredState) -> State:
        return State(self._problems[stored.problem_id], stored.prefix, replayed_from=stored.key)

    def _collects(self, judged: Feedback) -> bool:
        """Whether states are collected from a response that was judged so."""
        return not judged.solved

    def _offered(self, each: Judged) -> bool:
        """Whether states are collected from this response."""
        start = each.rollout.state
        return self._collects(each.feedback) and not start.replayed and not self._mastered(start.problem.id)

    def _heed(self, *, gated: bool) -> None:
        """Warn when no state was found for long."""
        if self._progress < self.schedule.collect[0]:
            return
        cause = self._finds.cause(gated=gated, remembered=len(self.buffer))
        about = {"rule": self.selection, "cut_points": self.cut_points, "evictions": self.buffer.evictions}
        self._silence.heed(self._step, self._finds, cause, **about)

    def _record(self, judged: Sequence[Judged]) -> int:
        """Book every outcome; returns how many problems were solved for the first time from a remembered state."""
        starts = [(each.rollout.state, each.feedback.solved) for each in judged]
        visits = [(state, key, solved) for state, solved in starts if (key := state.replayed_from) is not None]
        self._teach([(key, len(state.prefix), solved) for state, key, solved in visits if state.prefix])
        draws = [(state, [each.feedback.solved for each in siblings]) for state, siblings, _ in by_start(judged)]
        self.buffer.record(
            [(key, sum(each), len(each)) for state, each in draws if (key := state.replayed_from) is not None]
        )
        first_solves = 0
        for state, solved in starts:
            first_solves += solved and state.replayed and state.problem.id not in self._solved
            if solved:
                self._solved.add(state.problem.id)
        for state, outcomes in draws:
            if not state.replayed:
                self._move(state.problem.id, fmean(outcomes))
        return first_solves

    def _move(self, problem_id: str, success: float) -> None:
        """Bring the running success from the prompt up to date."""
        past = self._success.get(problem_id, 0.0)
        self._success[problem_id] = self.success_momentum * past + (1 - self.success_momentum) * success
        if self._mastered(problem_id):
            self.buffer.forget_problem(problem_id)

    def _teach(self, visits: Sequence[tuple[str, int, bool]]) -> None:
        """Tell the rule what came of going on from its cuts, given their lengths, as far as these are remembered."""
        wholes = self.buffer.wholes([key for key, *_ in visits]).tolist()
        outcomes = [(cut / of, solved) for of, (_, cut, solved) in zip(wholes, visits, strict=True) if of > 0]
        with calling("selection", self.selection, "learn"):
            self.selection.learn(outcomes)

    def _mastered(self, problem_id: str) -> bool:
        return self._success.get(problem_id, 0.0) >= self.max_problem_success

    def _critic_suffices(self, batch: Batch) -> bool:
        least = self.selection.min_explained_variance
        return least is None or float(explained_variance(batch.values, batch.returns, batch.mask)) >= least

    def _collect_own(self, judged: Sequence[Judged], batch: Batch) -> Metrics:
        """Remember states of failed rollouts; returns the metrics of the rule, where it has more written."""
        columns = zip(judged, batch.values, batch.entropies, batch.mask, strict=True)
        failed = [row for row in columns if self._offered(row[0])]
        examined, metrics = self._examined([each.rollout for each, *_ in failed])
        for (each, values, entropies, mask), found in zip(failed, examined, strict=True):
            rollout = each.rollout
            drawn = [logprob + kept for logprob, kept in zip(rollout.logprobs, rollout.kept, strict=True)]
            seen, unsure = (tuple(column[mask].tolist()) for column in (values, entropies))
            right = tokens_before_error(each, self._decode) if reads_errors(self.selection) else None
            scored = TokenScores(tuple(drawn), seen, unsure, right, found)
            self._remember(rollout.state.problem.id, rollout.tokens, scored, "self", rollout)
        return metrics

    def _examined(self, rollouts: Sequence[Rollout]) -> tuple[list[Found], Metrics]:
        """What the rule has found out about each of these responses, where it has more written."""
        if not self.expense(self.max_response_length):
            return [{} for _ in rollouts], {}
        responses = [State(rollout.state.problem, rollout.tokens) for rollout in rollouts]
        legal = [self._legal(rollout.tokens) for rollout in rollouts]
        return examining.examined(self.selection, responses, legal, self._rng)

    def _legal(self, response: tuple[int, ...]) -> list[int]:
        """Where the response may be cut, with room to write on."""
        return [cut for cut in self._cutter.legal(response) if cut < self.max_response_length]

    def _collect_canonical(self, judged: Sequence[Judged]) -> None:
        """Look at the references of problems just failed from their prompts, until something of each is remembered."""
        failed = [each.rollout.state for each in judged if not each.feedback.solved]
        tried = {state.problem.id: state.problem for state in failed if not state.replayed and state.problem.reference}
        problems = [problem for key, problem in tried.items() if not self._mastered(key) and key not in self._used]
        references = [problem.reference[: self.max_response_length] for problem in problems]
        scores = self._inspect([State(p, reference) for p, reference in zip(problems, references, strict=True)])
        for problem, reference, scored in zip(problems, references, scores, strict=True):
            if self._remember(problem.id, reference, scored, "canonical"):
                self._used.add(problem.id)

    def _remember(
        self, problem_id: str, response: tuple[int, ...], scored: TokenScores, source: Source,
        rollout: Rollout | None = None,
    ) -> bool:  # fmt: skip
        """Add the states that the rule finds along a whole response; whether it found any."""
        legal = self._legal(response)
        cuts = border.cuts(self.selection, scored, legal, self._rng)
        self._finds.looked_at += 1
        self._finds.cuttable += bool(legal)
        self._finds.found += bool(cuts)
        scores = {cut: border.cut_score(self.selection, scored, cut) for cut in cuts}
        for cut, kept in self._kept(response, scores).items():
            step = scored.logprobs[cut : next((later for later in legal if later > cut), None)]
            doubt = 1 - fmean(map(math.exp, step))
            seen = (scores[cut], len(response), doubt, scored.values[cut])
            self.buffer.add(Candidate(problem_id, kept, source, *seen, rollout), self._step)
        return bool(cuts)

    def _metrics(self) -> Metrics:
        sums, size = self.buffer.sums(), len(self.buffer)
        count = max(1, size)
        return {
            "replay/buffer_size": float(size),
            "replay/unique_problems": float(self.buffer.problems),
            "replay/evictions": float(self.buffer.evictions),
            "replay/age_steps/mean": (self._step * size - sums["born_step"]) / count,
            "replay/score_at_insert/mean": sums["score_at_insert"] / count,
            "replay/score_now/mean": sums["score_now"] / count,
            "replay/prefix_length/mean": sums["length"] / count,
            "replay/success_rate": sums["successes"] / max(1, sums["visits"]),
        }
