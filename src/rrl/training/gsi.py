"""Guided self-improvement: sample, keep what is right, help where little is, fine-tune the starting model; repeat."""

from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Literal

import torch

from rrl.contracts import border
from rrl.contracts.calling import calling
from rrl.errors import DivergenceError
from rrl.interfaces import StateDict
from rrl.processes.distributed import agree
from rrl.training.accepted_answers import AcceptedAnswer, AcceptedAnswers, as_batch
from rrl.training.gsi_sizes import GSISizes
from rrl.training.loop import Loop, RunStart
from rrl.types import Feedback, Metrics, Rollout, State


@dataclass(frozen=True, kw_only=True)
class GSISettings(GSISizes):
    """The sizes of guided self-improvement (Ding et al., arXiv 2411.00750), which make its loop."""

    def make(self, origin: RunStart, **parts: Any) -> "GSI":
        """The loop, which works with these parts."""
        if self.guidance is not None:
            longest = parts["engine"].sampling.max_new_tokens
            with calling("guidance", self.guidance, "start"):
                self.guidance.start(origin.tokenizer, origin.render, origin.longest_prompt, longest)
        return GSI(settings=self, origin=origin, **parts)


@dataclass(kw_only=True)
class GSI(Loop):
    """Goes through its iterations a piece of work at a time; problems and answers are known by number.

    An iteration has three phases: ``sample``, ``guide`` (once for each guided try) and ``tune``. ``_queue`` holds the
    pieces that the present phase still has to do, a step each: problems to write on, or mini-batches of answers.
    """

    settings: GSISettings
    origin: RunStart
    _iteration: int = field(init=False, default=0)
    _phase: Literal["sample", "guide", "tune"] = field(init=False, default="tune")
    _round: int = field(init=False, default=0)
    _drawn: list[int] = field(init=False, default_factory=list)
    _tried: int = field(init=False, default=0)
    _queue: list[Any] = field(init=False, default_factory=list)
    _pieces: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number = {problem.id: i for i, problem in enumerate(self.origin.problems)}
        self._harvest = AcceptedAnswers(per_problem=self.settings.keep_per_problem, distinct=self.settings.distinct)

    @property
    def progress(self) -> float:
        """The share of training that is done, by iterations or tokens; 1 only after the last fine-tuning."""
        if self.milestone and (self._iteration >= self.settings.iterations or self._spent):
            return 1.0
        begin, share = {"sample": (0.0, 0.5), "guide": (0.5, 0.3), "tune": (0.8, 0.2)}[self._phase]
        within = begin + share * (1 - len(self._queue) / max(1, self._pieces))
        tokens = self.tokens_generated / (self.settings.total_tokens or float("inf"))
        return min(0.999, max((self._iteration - 1 + within) / self.settings.iterations, 0.8 * tokens))

    @property
    def milestone(self) -> bool:
        """Whether a fine-tuning has just come to its end."""
        return self._phase == "tune" and not self._queue

    def step(self) -> Metrics:
        """A piece of the present phase's work, or of the next one's where nothing is left to do."""
        if not self._queue:
            self._turn()
        piece = self._queue.pop(0)
        metrics = self._tune(piece) if self._phase == "tune" else self._write(piece)
        self.global_step += 1
        return metrics | self._state_of_things()

    def state_dict(self) -> StateDict:
        """Where it is in its iterations, and every answer of the present one."""
        place = {name: deepcopy(getattr(self, f"_{name}")) for name in PLACE}
        learning = {"optimiser_steps": self.policy.optimiser_steps}
        return super().state_dict() | place | learning | {"harvest": self._harvest.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        """Go back to a saved state."""
        super().load_state_dict(state)
        for name in PLACE:
            setattr(self, f"_{name}", deepcopy(state[name]))
        self._harvest.load_state_dict(state["harvest"])
        self.policy.optimiser_steps = state["optimiser_steps"]

    @property
    def _spent(self) -> bool:
        return self.settings.total_tokens is not None and self.tokens_generated >= self.settings.total_tokens

    # --- from phase to phase ------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Go on to what comes next: another iteration, another guided try, fine-tuning."""
        if self._phase == "tune":
            self._begin()
        while not self._queue and self._tried and self._round < self.settings.helps and not self._spent:
            self._round += 1
            self._fill("guide", _split(self._helpable(), self.settings.sequences))
        if not self._queue:
            self._begin_tuning()

    def _begin(self) -> None:
        """Another iteration: forget the answers of the last one, draw problems."""
        self._iteration += 1
        self._round = self._tried = 0
        self._harvest.clear()
        self._drawn = self._draw()
        if self._iteration == 1 and self.settings.first == "references":
            self._keep_references()
            return
        self._fill("sample", _split(self._drawn, self.settings.train_batch_size))

    def _keep_references(self) -> None:
        for number in self._drawn:
            problem = self.origin.problems[number]
            if problem.reference:
                self._harvest.add(AcceptedAnswer(number, problem.reference, guided=False), problem.example.reference)

    def _draw(self) -> list[int]:
        count, problems = self.settings.problems_per_iteration, self.origin.problems
        if count is None:
            return torch.randperm(len(problems), generator=self._generator).tolist()
        drawn = border.starts(self.sampler, count, (self._iteration - 1) / self.settings.iterations, self.limits)
        return list(dict.fromkeys(self._number[state.problem.id] for state in drawn))

    def _helpable(self) -> list[int]:
        """Problems that were tried and have too few right answers, and that can be helped with."""
        tried = self._drawn[: self._tried]
        return [i for i in tried if self._harvest.right[i] < self.settings.enough and self._help(i) is not None]

    def _help(self, number: int) -> State | None:
        guidance = self.settings.guidance
        if guidance is None:
            return None
        return border.helped(guidance, self.origin.problems[number], self._round - 1, self.limits)

    def _begin_tuning(self) -> None:
        """Back to the model that the run began with, to learn everything that was kept in a new order."""
        count = len(self._harvest.answers)
        if not count:
            raise DivergenceError(
                f"no right answer in iteration {self._iteration} to {len(self._drawn)} problems, so that there is "
                "nothing to learn from; begin with a warm start, or raise trainer.n or trainer.guided_tries"
            )
        minibatches = [
            index.tolist()
            for _ in range(self.settings.epochs)
            for index in torch.randperm(count, generator=self._generator).tensor_split(
                -(-count // self.settings.mini_batch_size)
            )
        ]
        self._fill("tune", _split(minibatches, self.settings.tuned_at_once))
        with self.clock.phase("update_actor"):
            self.policy.reset(self.origin.model(), len(minibatches))

    def _fill(self, phase: Literal["sample", "guide", "tune"], queue: list[Any]) -> None:
        self._phase, self._queue, self._pieces = phase, queue, len(queue)

    # --- a piece of work ----------------------------------------------------------------------------------------------

    def _write(self, numbers: Sequence[int]) -> Metrics:
        """Responses to these problems, with or without help; the right ones are kept."""
        with self.clock.phase("gen"):
            sampling = replace(self.engine.sampling, temperature=self.settings.temperature)
            starts = self._starts(numbers)
            rollouts = self._written(starts, sampling)
        with self.clock.phase("reward"):
            feedback, metrics = self._judge(rollouts)
            before = len(self._harvest.answers)
            for rollout, judged in zip(rollouts, feedback, strict=True):
                self._keep(rollout, judged)
            kept = self._harvest.answers[before:]
            agree("start states or answers", ([(state.problem.id, state.prefix) for state in starts], kept))
        if self._spent:
            self._queue.clear()
        return metrics | _successes(rollouts, feedback)

    def _starts(self, numbers: Sequence[int]) -> list[State]:
        if self._phase == "guide":
            return [state for state in map(self._help, numbers) if state is not None]
        self._tried += len(numbers)
        return [State(self.origin.problems[i]) for i in numbers for _ in range(self.settings.n)]

    def _keep(self, rollout: Rollout, feedback: Feedback) -> None:
        if feedback.solved and (rollout.finished or self.settings.train_on_truncated):
            number = self._number[rollout.state.problem.id]
            self._harvest.add(AcceptedAnswer(number, rollout.tokens, guided=rollout.state.replayed), rollout.response)

    def _tune(self, minibatches: Sequence[Sequence[int]]) -> Metrics:
        """Optimiser steps on these answers, each to its problem's own prompt."""
        self.last_rollouts = []
        with self.clock.phase("update_actor"):
            answers = [self._harvest.answers[i] for index in minibatches for i in index]
            batch = as_batch(answers, self.origin.problems, self.pad)
            rows = torch.arange(len(batch)).split([len(index) for index in minibatches])
            return self._descend(border.credit(self.objective, batch), rows, self.settings.aggregate)

    def _state_of_things(self) -> Metrics:
        answers, tried = self._harvest.answers, max(1, self._tried)
        metrics = {
            "gsi/iteration": float(self._iteration),
            "gsi/round": float(self._round),
            "gsi/accepted": float(len(answers)),
            "gsi/accepted_guided": float(sum(answer.guided for answer in answers)),
            "gsi/problems_covered_frac": self._harvest.covered / max(1, len(self._drawn)),
            "gsi/unsolved_frac": 1 - len(self._harvest.right) / tried if self._tried else 0.0,
        }
        if self._phase == "tune":
            metrics["gsi/tuned_frac"] = 1 - len(self._queue) / self._pieces
        return metrics


PLACE = ("iteration", "phase", "round", "drawn", "tried", "queue", "pieces")
"""The attributes of a ``GSI`` that say where it is."""


def _split(items: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(items[begin : begin + size]) for begin in range(0, len(items), size)]


def _successes(rollouts: Sequence[Rollout], feedback: Sequence[Feedback]) -> Metrics:
    """The share of guided tries that were right, by the help they had."""
    solved: dict[str, list[bool]] = defaultdict(list)
    for rollout, judged in zip(rollouts, feedback, strict=True):
        if rollout.state.origin is not None:
            solved[rollout.state.origin.removeprefix("gsi/")].append(judged.solved)
    return {f"gsi/guided_success/{stage}": fmean(each) for stage, each in solved.items()}
