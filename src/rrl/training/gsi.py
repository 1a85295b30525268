"""Guided self-improvement: sample, keep right answers, help where few are, fine-tune the starting model; repeat."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

import torch

from rrl.contracts import border
from rrl.contracts.calling import calling
from rrl.contracts.guiding import guided_state
from rrl.errors import DivergenceError
from rrl.interfaces import StateDict
from rrl.processes.distributed import agree
from rrl.training.gsi_sizes import GSISizes
from rrl.training.gsi_state import AcceptedAnswer, AcceptedAnswers, Position, as_batch
from rrl.training.loop import Loop, RunStart
from rrl.types import Judged, Metrics, Rollout, State


@dataclass(frozen=True, kw_only=True)
class GSISettings(GSISizes):
    """The sizes of guided self-improvement (Ding et al., arXiv 2411.00750), which make its loop."""

    def make(self, start: RunStart, **parts: Any) -> "GSI":
        if self.guidance is not None:
            longest = parts["engine"].sampling.max_new_tokens
            with calling("guidance", self.guidance, "start"):
                self.guidance.start(start.tokenizer, start.render, start.longest_prompt, longest)
        return GSI(settings=self, start=start, **parts)


@dataclass(kw_only=True)
class GSI(Loop):
    """Works through its iterations a piece at a time; problems and answers are identified by number."""

    settings: GSISettings
    start: RunStart
    position: Position = field(init=False, default_factory=Position)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number = {problem.id: i for i, problem in enumerate(self.start.problems)}
        self._harvest = AcceptedAnswers(per_problem=self.settings.keep_per_problem, distinct=self.settings.distinct)

    @property
    def progress(self) -> float:
        """The share of training that is done, by iterations or tokens; 1 only after the last fine-tuning."""
        if self.milestone and (self.position.iteration >= self.settings.iterations or self._spent):
            return 1.0
        tokens = self.tokens_generated / (self.settings.total_tokens or float("inf"))
        return min(0.999, max(self.position.done / self.settings.iterations, 0.8 * tokens))

    @property
    def milestone(self) -> bool:
        """Whether a fine-tuning has just come to its end."""
        return self.position.tuned

    def step(self) -> Metrics:
        """A piece of the present phase's work, or of the next one's where nothing is left to do."""
        if not self.position.queue:
            self._turn()
        piece = self.position.queue.pop(0)
        metrics = self._tune(piece) if self.position.phase == "tune" else self._write(piece)
        self.global_step += 1
        return metrics | self._position_metrics()

    def state_dict(self) -> StateDict:
        """The position in the iterations, and every answer of the present one."""
        learning = {"optimiser_steps": self.policy.optimiser_steps}
        return super().state_dict() | asdict(self.position) | learning | {"harvest": self._harvest.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        super().load_state_dict(state)
        self.position = Position.read(state)
        self._harvest.load_state_dict(state["harvest"])
        self.policy.optimiser_steps = state["optimiser_steps"]

    @property
    def _spent(self) -> bool:
        return self.settings.total_tokens is not None and self.tokens_generated >= self.settings.total_tokens

    # --- from phase to phase ------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Begin the next phase: another iteration, another guided attempt, or fine-tuning."""
        if self.position.phase == "tune":
            self._begin()
        at = self.position
        while not at.queue and at.tried and at.round < self.settings.helps and not self._spent:
            at.round += 1
            at.fill("guide", self._helpable(), self.settings.sequences)
        if not at.queue:
            self._begin_tuning()

    def _begin(self) -> None:
        """Begin an iteration: discard the answers of the last one, draw problems."""
        at = self.position = Position(iteration=self.position.iteration + 1)
        self._harvest.clear()
        at.drawn = self._draw()
        if at.iteration == 1 and self.settings.first_iteration == "references":
            self._keep_references()
        else:
            at.fill("sample", at.drawn, self.settings.train_batch_size)

    def _keep_references(self) -> None:
        for number in self.position.drawn:
            problem = self.start.problems[number]
            if problem.reference:
                self._harvest.add(AcceptedAnswer(number, problem.reference, guided=False), problem.example.reference)

    def _draw(self) -> list[int]:
        count, problems = self.settings.problems_per_iteration, self.start.problems
        if count is None:
            return torch.randperm(len(problems), generator=self._generator).tolist()
        progress = (self.position.iteration - 1) / self.settings.iterations
        drawn = border.starts(self.sampler, count, progress, self.limits)
        return list(dict.fromkeys(self._number[state.problem.id] for state in drawn))

    def _helpable(self) -> list[int]:
        """Problems that were tried, have too few right answers, and for which there is guidance."""
        tried = self.position.drawn[: self.position.tried]
        return [i for i in tried if self._harvest.right[i] < self.settings.min_correct and self._help(i) is not None]

    def _help(self, number: int) -> State | None:
        guidance = self.settings.guidance
        if guidance is None:
            return None
        return guided_state(guidance, self.start.problems[number], self.position.round - 1, self.limits)

    def _begin_tuning(self) -> None:
        """Load the model that the run began with, and queue all kept answers in a new order."""
        count, at = len(self._harvest.answers), self.position
        if not count:
            raise DivergenceError(
                f"no right answer in iteration {at.iteration} to {len(at.drawn)} problems, so that there is "
                "nothing to learn from; begin with a warm start, or raise trainer.n or trainer.max_guided_attempts"
            )
        rows = self._minibatches(count, self.settings.mini_batch_size, self.settings.epochs)
        minibatches = [index.tolist() for index in rows]
        at.fill("tune", minibatches, self.settings.tuned_at_once)
        with self.clock.phase("update_actor"):
            self.policy.reset(self.start.model(), len(minibatches))

    # --- a piece of work ----------------------------------------------------------------------------------------------

    def _write(self, numbers: Sequence[int]) -> Metrics:
        """Write responses to these problems, with or without help, and keep the right ones."""
        with self.clock.phase("gen"):
            sampling = replace(self.engine.sampling, temperature=self.settings.temperature)
            starts = self._starts(numbers)
            rollouts = self._written(starts, sampling)
        with self.clock.phase("reward"):
            judged, metrics = self._judge(rollouts)
            before = len(self._harvest.answers)
            for each in judged:
                if each.feedback.solved and (each.rollout.finished or self.settings.train_on_truncated):
                    self._keep(each.rollout)
            kept = self._harvest.answers[before:]
            agree("start states or answers", ([(state.problem.id, state.prefix) for state in starts], kept))
        if self._spent:
            self.position.queue.clear()
        return metrics | _successes(judged)

    def _starts(self, numbers: Sequence[int]) -> list[State]:
        if self.position.phase == "guide":
            return [state for state in map(self._help, numbers) if state is not None]
        self.position.tried += len(numbers)
        return [State(self.start.problems[i]) for i in numbers for _ in range(self.settings.n)]

    def _keep(self, rollout: Rollout) -> None:
        state = rollout.state
        answer = AcceptedAnswer(self._number[state.problem.id], rollout.tokens, guided=state.help is not None)
        self._harvest.add(answer, rollout.response)

    def _tune(self, minibatches: Sequence[Sequence[int]]) -> Metrics:
        """Optimiser steps on these answers, each with its problem's own prompt."""
        self.last_rollouts = []
        with self.clock.phase("update_actor"):
            answers = [self._harvest.answers[i] for index in minibatches for i in index]
            batch = as_batch(answers, self.start.problems, self.pad)
            rows = torch.arange(len(batch)).split([len(index) for index in minibatches])
            return self._descend(border.credit(self.objective, batch), rows, self.settings.loss_agg_mode)

    def _position_metrics(self) -> Metrics:
        answers, at = self._harvest.answers, self.position
        metrics = {
            "gsi/iteration": float(at.iteration),
            "gsi/round": float(at.round),
            "gsi/accepted": float(len(answers)),
            "gsi/accepted_guided": float(sum(answer.guided for answer in answers)),
            "gsi/problems_covered_frac": self._harvest.covered / max(1, len(at.drawn)),
            "gsi/unsolved_frac": 1 - len(self._harvest.right) / at.tried if at.tried else 0.0,
        }
        if at.phase == "tune":
            metrics["gsi/tuned_frac"] = 1 - at.left
        return metrics


def _successes(judged: Sequence[Judged]) -> Metrics:
    """The share of right guided attempts, by kind of help."""
    solved: dict[str, list[bool]] = defaultdict(list)
    for each in judged:
        if each.rollout.state.help is not None:
            solved[each.rollout.state.help].append(each.feedback.solved)
    return {f"gsi/guided_success/{stage}": fmean(each) for stage, each in solved.items()}
