"""RLTF's own loss: a policy gradient on recent samples, and as much supervised training on references."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from rrl.collate import Row, collate_rows
from rrl.functional import policy_gradient_loss, weighted_sum
from rrl.interfaces import Objective, StateDict
from rrl.ranges import at_least_one, check_ranges
from rrl.types import Batch, Metrics, PolicyOutput, Rollout

_SUPERVISED = -1
"""The group of rows that hold references."""


class Sample(NamedTuple):
    """A rollout in the buffer, as plain data: what it began with, what was written, and each written token's pay."""

    problem: str
    level: str
    prompt: tuple[int, ...]
    prefix: tuple[int, ...]
    actions: tuple[int, ...]
    pay: tuple[float, ...]
    reference: tuple[int, ...]


@dataclass(kw_only=True)
class RLTF(Objective):
    """The original loss of RLTF (Liu et al., arXiv 2307.04349): L = - sum_t w_t A_t log pi_t, without a ratio.

    The buffer holds the latest ``capacity`` rollouts. A step on n rollouts puts them in and then learns from n rows:
    one half are samples drawn from the buffer, whose advantages are what their tokens were paid when they were written;
    the other half are the references of the same problems, cut to ``max_response_length`` tokens, with advantage 1.
    ``seed`` is that of the drawing.
    """

    capacity: int
    max_response_length: int
    seed: int
    _samples: list[Sample] = field(init=False, default_factory=list)
    _generator: torch.Generator = field(init=False, default_factory=torch.Generator)

    needs = frozenset({"references"})
    pays_entropy = False

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("capacity", "max_response_length"))
        self._generator.manual_seed(self.seed)

    def assign_credit(self, batch: Batch) -> Batch:
        """A token's advantage is its pay."""
        return batch.with_(advantages=torch.where(batch.mask, batch.rewards, 0.0))

    def experience(self, rollouts: Sequence[Rollout], batch: Batch) -> Batch:
        """As many rows as there are rollouts: samples from the buffer, and references."""
        fresh = [
            Sample(p.id, p.level, p.prompt, r.state.prefix, r.actions, tuple(pay[acted].tolist()), p.reference)
            for r, pay, acted in zip(rollouts, batch.advantages, batch.mask, strict=True)
            for p in [r.state.problem]
        ]
        self._samples = [*self._samples, *fresh][-self.capacity :]
        order = torch.randperm(len(self._samples), generator=self._generator)
        drawn = [self._samples[index] for index in order[: (len(batch) + 1) // 2].tolist()]
        taught = [sample for sample in drawn if sample.reference][: len(batch) - len(drawn)]
        references = [s.reference[: self.max_response_length] for s in taught]
        rows = [Row((*s.prompt, *s.prefix), s.actions, s.pay, (s.problem, s.prefix), s.level) for s in drawn]
        rows += [
            Row(s.prompt, reference, [1.0] * len(reference), s.problem, s.level)
            for s, reference in zip(taught, references, strict=True)
        ]
        learnt = collate_rows(rows, pad=0)  # any token serves as padding, which nothing attends to
        group = torch.where(torch.arange(len(rows)) < len(drawn), learnt.group, _SUPERVISED)
        return learnt.with_(advantages=learnt.rewards, group=group)

    def loss(self, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
        """The policy gradient over both kinds of rows; there is no critic."""
        supervised = (batch.group == _SUPERVISED).unsqueeze(1)
        taught, sampled = (torch.where(rows, batch.weight, 0.0) for rows in (supervised, ~supervised))
        pg_loss, sl_loss = (policy_gradient_loss(output.logprobs, batch.advantages, w) for w in (sampled, taught))
        metrics = {
            "actor/pg_loss": pg_loss,
            "actor/sl_loss": sl_loss,
            "actor/entropy": weighted_sum(output.entropy, batch.weight),
            "rltf/supervised_frac": taught.sum(),
            "rltf/buffer_size": len(self._samples) * batch.weight.sum(),
        }
        loss = pg_loss + sl_loss
        return loss, torch.zeros_like(loss), {name: float(value.detach()) for name, value in metrics.items()}

    def state_dict(self) -> StateDict:
        """The buffer, oldest first, and the random state."""
        return {"samples": [tuple(sample) for sample in self._samples], "generator": self._generator.get_state()}

    def load_state_dict(self, state: StateDict) -> None:
        self._samples = [Sample(*sample) for sample in state["samples"]]
        self._generator.set_state(state["generator"])
