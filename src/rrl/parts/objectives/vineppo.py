"""Credit by continuations: the policy itself goes on from a few points of each response, in the critic's place."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from rrl.cuts import CutPoints, Cutter, spread_out
from rrl.functional import advantages_between, whiten, whiten_apart
from rrl.interfaces import Author, StateDict
from rrl.parts.objectives.clipped import Clipped
from rrl.ranges import at_least_one, check_ranges, not_negative, positive
from rrl.types import Batch, Judged, Metrics, PolicyOutput, State, Verdict

Value = tuple[int, float]
"""A number of new tokens, and the estimated value of the state after them."""


@dataclass(kw_only=True)
class VinePPO(Clipped):
    """VinePPO (Kazemnejad et al., arXiv 2410.01679): PPO whose values are means of Monte-Carlo continuations.

    The start of each response and ``points`` of its legal cuts, evenly spread, are continued ``continuations`` times;
    the mean score is the value of that state, and the last new token ends in a state of value 0. All tokens between
    two such points have the same advantage: what was paid between them, and the difference of the values. Equal states
    are continued once. Continuations that the task cannot judge are left out; a cut of which none is left is no point,
    and a start counts as 0. ``advantage_norm`` is as in PPO.

    The paper takes every step of the reasoning as a point and 9 continuations. Departures: values are the task's
    scores, whatever the reward pays, so that it wants reward=verdict; what is written is not learnt from.
    """

    points: int
    continuations: int
    advantage_norm: Literal["batch", "origin", "none"]
    cut_points: CutPoints
    max_response_length: int
    seed: int
    _author: Author | None = field(init=False, default=None, repr=False, compare=False)
    _values: list[list[Value]] = field(init=False, default_factory=list, repr=False, compare=False)

    pays_entropy = False

    def __post_init__(self) -> None:
        check_ranges(
            self,
            positive("clip_ratio", "importance_cap"),
            not_negative("points"),
            at_least_one("continuations"),
        )
        self._rng = random.Random(f"vineppo/{self.seed}")

    def lend(self, author: Author) -> None:
        self._author, self._cutter = author, Cutter(author.tokenizer, self.cut_points)

    def expense(self, rollouts: int, longest: int) -> int:
        return rollouts * (1 + self.points) * self.continuations * longest

    def observe(self, judged: Sequence[Judged]) -> Metrics:
        """Have continuations written from the points of these rollouts, and keep the values for their credit."""
        assert self._author is not None, "there is an author before the first step"
        places = [self._places(each) for each in judged]
        states = {key: state for found in places for key, state, _ in found}
        repeated = [key for key in states for _ in range(self.continuations)]
        written = self._author.judged([states[key] for key in repeated], self._rng.getrandbits(62))
        scores = defaultdict[object, list[float]](list)
        for key, each in zip(repeated, written, strict=True):
            if each.feedback.verdict is not Verdict.ERROR:
                scores[key].append(each.feedback.score)
        values = {key: fmean(found) for key, found in scores.items()}
        self._values = [[(after, values[key]) for key, _, after in found if key in values] for found in places]
        return {
            "vineppo/tokens": float(sum(len(each.rollout.actions) for each in written)),
            "vineppo/states": float(len(states)),
            "vineppo/value/mean": fmean(values.values()) if values else 0.0,
        }

    def assign_credit(self, batch: Batch) -> Batch:
        """Advantages between points; ``values`` holds that of the last point, ``returns`` what is still paid."""
        values, known = torch.zeros_like(batch.rewards), torch.zeros_like(batch.mask)
        for row, found in enumerate(self._values):
            begin = int(batch.mask[row].nonzero()[0])
            for after, value in found:
                values[row, begin + after], known[row, begin + after] = value, True
        rewards = self.kl.rewards(batch)
        advantages, values = advantages_between(rewards, values, known, batch.mask)
        if self.advantage_norm == "batch":
            advantages = whiten(advantages, batch.mask)
        elif self.advantage_norm == "origin":
            advantages = whiten_apart(advantages, batch.mask, batch.replayed)
        self.kl.adapt(batch)
        left = torch.where(batch.mask, rewards, 0.0).flip(1).cumsum(1).flip(1)
        returns = torch.where(batch.mask, left, 0.0)
        return batch.with_(rewards=rewards, values=values, advantages=advantages, returns=returns)

    def loss(self, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
        """Clipped surrogate and KL; the critic's loss is zero."""
        loss, divergence, metrics = self.surrogate(batch, output)
        return loss + divergence, torch.zeros_like(loss), {name: float(x.detach()) for name, x in metrics.items()}

    def state_dict(self) -> StateDict:
        return super().state_dict() | {"rng": self._rng.getstate()}

    def load_state_dict(self, state: StateDict) -> None:
        super().load_state_dict(state)
        self._rng.setstate(state["rng"])

    def _places(self, judged: Judged) -> list[tuple[object, State, int]]:
        """The start of a rollout and its points: each with a key, its state, and the new tokens before it."""
        rollout = judged.rollout
        problem, begin = rollout.state.problem, len(rollout.state.prefix)
        legal = [cut for cut in self._cutter.legal(rollout.tokens) if begin < cut < self.max_response_length]
        return [
            ((problem.id, prefix), State(problem, prefix), cut - begin)
            for cut in (begin, *spread_out(legal, self.points))
            for prefix in [rollout.tokens[:cut]]
        ]
