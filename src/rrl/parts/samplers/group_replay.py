"""Whole groups of rollouts that are learnt from again, in the place of new ones that teach nothing."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rrl.collate import joined
from rrl.functional import masked_mean, truncated_importance
from rrl.interfaces import ScorePrefixes, StateDict
from rrl.parts.samplers.problems import Problems
from rrl.parts.samplers.silence import Standstill
from rrl.ranges import at_least_one, between, check_ranges, positive
from rrl.types import Batch, Judged, Metrics, Problem, State


class Group(NamedTuple):
    """The rollouts from one start as rows of a batch, with their credit, and the step in which they were written."""

    problem_id: str
    step: int
    rows: Batch


@dataclass(kw_only=True)
class GroupReplay(Problems):
    """Starts as ``Problems`` does; stored groups take the place of new ones whose advantages are all 0 in the update.

    The latest ``capacity`` groups of another kind are stored, with the advantages that they had. In a step some of
    them are drawn evenly, at most ``share`` of the rows, and as many rows without signal are left out. They are
    off-policy: the ratio that the objective clips is that to the policy which wrote them. With ``importance_cap`` it is
    that to the present policy, and the advantage of each token is weighed by min(pi_present / pi_then, cap).

    After TRL's GRPO with a replay buffer, which keeps the groups of largest spread and draws by it, and ExGRPO
    (arXiv 2510.02245), which replays single successes.
    """

    capacity: int
    share: float
    importance_cap: float | None
    _groups: list[Group] = field(init=False, default_factory=list)
    _drawn: list[Batch] = field(init=False, default_factory=list)
    _step: int = field(init=False, default=0)
    _standstill: Standstill = field(init=False, default_factory=Standstill)

    needs_annotation = True
    needs_siblings = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, at_least_one("capacity"), between(0, 1, "share"), positive("importance_cap"))

    def start(self, problems: Sequence[Problem], seed: int, inspect: ScorePrefixes, tokenizer: Any) -> None:
        super().start(problems, seed, inspect, tokenizer)
        self._draws = random.Random(f"group_replay/{seed}")
        self._problems, self._inspect = {problem.id: problem for problem in problems}, inspect

    def observe(self, judged: Sequence[Judged], batch: Batch) -> Metrics:
        """Draw groups for this step, then store its own."""
        self._step += 1
        quiet = silent(batch)
        drawn = self._draw(min(int(quiet.sum()), int(self.share * len(batch))))
        levels = {each.rollout.state.problem.level: level for each, level in zip(judged, batch.level, strict=True)}
        present = self._present(drawn)
        ratios = [
            float(masked_mean((now - group.rows.old_logprobs).exp(), group.rows.mask))
            for group, now in zip(drawn, present, strict=True)
        ]
        self._drawn = [
            self._ready(group, now, levels.setdefault(level, torch.tensor(len(levels))))
            for group, now in zip(drawn, present, strict=True)
            for level in [self._problems[group.problem_id].level]
        ]
        for number in batch.group[~quiet].unique():
            index = (batch.group == number).nonzero().flatten()
            self._groups.append(Group(judged[int(index[0])].rollout.state.problem.id, self._step, batch.rows(index)))
        self._groups = self._groups[-self.capacity :]
        self._standstill.heed(
            self.share == 0 or bool(drawn),
            "no stored group was learnt from: none is stored, every new one has a signal, or sampler.share has no room "
            "for one; look at replay/groups and replay/group_share",
        )
        return {
            "replay/groups": float(len(self._groups)),
            "replay/group_share": sum(map(len, self._drawn)) / len(batch),
            "replay/group_age/mean": fmean([self._step - group.step for group in drawn] or [0.0]),
            "replay/group_ratio/mean": fmean(ratios or [1.0]),
        }

    def experience(self, batch: Batch) -> Batch:
        """The drawn groups in the place of as many rows without signal."""
        drawn, self._drawn = self._drawn, []
        if not drawn:
            return batch
        left_out = silent(batch).nonzero().flatten()[: sum(map(len, drawn))]
        kept = torch.ones(len(batch), dtype=torch.bool).index_fill(0, left_out, False).nonzero().flatten()
        return joined([*([batch.rows(kept)] if len(kept) else []), *drawn])

    def state_dict(self) -> StateDict:
        """With the stored groups, and what decides which of them are drawn."""
        names = [each.name for each in fields(Batch)]
        groups = [(*group[:2], {name: getattr(group.rows, name) for name in names}) for group in self._groups]
        own = {"groups": groups, "draws": self._draws.getstate(), "step": self._step, "idle": self._standstill.steps}
        return super().state_dict() | own

    def load_state_dict(self, state: StateDict) -> None:
        super().load_state_dict(state)
        self._groups = [Group(problem_id, step, Batch(**rows)) for problem_id, step, rows in state["groups"]]
        self._draws.setstate(state["draws"])
        self._step, self._standstill = state["step"], Standstill(state.get("idle", 0))

    def _draw(self, room: int) -> list[Group]:
        """Stored groups in any order, as far as their rows find room."""
        drawn = []
        for group in self._draws.sample(self._groups, len(self._groups)):
            if len(group.rows) <= room:
                drawn.append(group)
                room -= len(group.rows)
        return drawn

    def _present(self, groups: Sequence[Group]) -> list[Tensor]:
        """The present policy's log-probabilities [rows, time] of the acted tokens of each group; 0 elsewhere."""
        states = [
            State(problem, tuple(tokens[real].tolist()[len(problem.prompt) :]))
            for group in groups
            for problem in [self._problems[group.problem_id]]
            for tokens, real in zip(group.rows.tokens, group.rows.attention, strict=True)
        ]
        scored, found = iter(self._inspect(states)), []
        for group in groups:
            now = torch.zeros_like(group.rows.old_logprobs)
            for row, acted in zip(now, group.rows.mask, strict=True):
                row[acted] = torch.tensor(next(scored).logprobs[-int(acted.sum()) :])
            found.append(now)
        return found

    def _ready(self, group: Group, now: Tensor, level: Tensor) -> Batch:
        """The rows to learn from, at the step's number for their level."""
        rows = group.rows.with_(level=level.expand(len(group.rows)))
        if self.importance_cap is None:
            return rows
        weight = truncated_importance(now, rows.old_logprobs, rows.mask.float(), cap=self.importance_cap)
        engine = torch.where(rows.mask, now + rows.engine_logprobs - rows.old_logprobs, 0.0)  # as far apart as then
        return rows.with_(advantages=rows.advantages * weight, old_logprobs=now, engine_logprobs=engine)


def silent(batch: Batch) -> Tensor:
    """The rows [batch] of groups in which every advantage is 0."""
    loud = (batch.advantages.abs() * batch.mask).sum(1) >= 1e-8
    return ~torch.isin(batch.group, batch.group[loud])
