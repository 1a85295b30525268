"""The reference engine with continuous batching, over keys and values that are allocated once."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rrl.errors import DataError
from rrl.interfaces import Written
from rrl.parts.engines.hf import HFEngine, Writer
from rrl.types import Rollout, Sampling, State

log = logging.getLogger(__name__)
SLACK = 4
"""Columns beyond the longest row, as the divisor of its length: the more, the more seldom those in use are moved."""
REFILL = 8
"""Rows enter when this part of the places is free, as the divisor of their number: each entry costs a pass."""


@dataclass(kw_only=True)
class StaticHF(HFEngine):
    """Writes up to ``batch_size`` rows together in keys and values that are allocated once and written in place.

    Rows that end are replaced by waiting ones (continuous batching; Yu et al., "Orca", OSDI 2022); prompts and replayed
    prefixes enter by a forward pass of their own. A row's tokens are those of the reference engine. Raises DataError
    for a model that remembers anything else than keys and values.
    """

    def _in_order(
        self, model: Any, rows: Sequence[tuple[State, Tensor]], sampling: Sampling, written: Written | None
    ) -> list[Rollout]:
        """Rollouts from states and their random numbers [max_new_tokens]."""
        from rrl.parts.engines.slots import unheld

        if not rows:
            return []
        if reason := unheld(model):
            return self._write_unheld(reason, model, rows, sampling, written)
        states, noise = zip(*rows, strict=True)
        usual = (model, self._tokenizer, sampling, self._source.version, written)
        return StaticWriter(*usual, places=self.batch_size).write(states, torch.stack(noise))

    def _write_unheld(self, reason: str, *others: Any) -> list[Rollout]:
        raise DataError(f"engine: static cannot write with {reason}; expected keys and values; use engine=auto or hf")


@dataclass(kw_only=True)
class AutoHF(StaticHF):
    """Writes as ``StaticHF`` where the model allows it, else as ``HFEngine``, and logs that."""

    _logged: bool = field(init=False, default=False)

    def _write_unheld(self, reason: str, *others: Any) -> list[Rollout]:
        if not self._logged:
            log.info("engine: as engine=hf, since a static cache cannot serve %s", reason)
            self._logged = True
        return HFEngine._in_order(self, *others)


class StaticWriter(Writer):
    """Writes rows to their ends, at most ``places`` of them at a time."""

    def __init__(self, *usual: Any, places: int) -> None:
        super().__init__(*usual)
        self._places = places

    def _decode(self, noise: Tensor) -> None:
        """Token by token; the rows enter in order."""
        from rrl.parts.engines.slots import Slots

        waiting = list(range(len(self._states)))
        places = min(self._places, len(waiting))
        longest = max(map(self._longest, waiting))
        slack = max(16, longest // SLACK) if places < len(waiting) else 0
        self._slots = Slots(self._model, places, longest + slack, self._tokenizer.pad_token_id)
        self._at: dict[int, int] = {}  # the rows in writing, by place
        self._newest = torch.full((places,), self._tokenizer.pad_token_id, device=noise.device)
        while waiting or self._at:
            free = [place for place in range(places) if place not in self._at][: len(waiting)]
            if free and REFILL * len(free) >= min(places, REFILL * len(waiting)):
                rows, waiting = waiting[: len(free)], waiting[len(free) :]
                self._at |= zip(free, rows, strict=True)
                self._go_on(free, self._slots.enter(free, [self._contexts[row] for row in rows]), noise)
                continue
            if not waiting and 2 * len(self._at) <= places:
                places = self._shrink()
            taken = sorted(self._at)
            logits = self._slots.step(self._newest)
            self._go_on(taken, logits if len(taken) == places else logits[taken], noise)

    def _go_on(self, places: Sequence[int], logits: Tensor, noise: Tensor) -> None:
        """Draw a token for the rows at these places from logits [rows, vocabulary]; those that have ended leave."""
        chosen, alive = self._draw([self._at[place] for place in places], logits, noise)
        self._newest[places] = chosen
        ended = sorted(set(range(len(places))) - set(alive))
        if ended:
            self._slots.leave([places[number] for number in ended])
            self._complete([self._at.pop(places[number]) for number in ended])

    def _shrink(self) -> int:
        """Give up the places that are free; returns the number of those that stay."""
        taken = sorted(self._at)
        self._slots.keep(taken)
        self._newest = self._newest[taken]
        self._at = {new: self._at[old] for new, old in enumerate(taken)}
        return len(taken)

    def _longest(self, row: int) -> int:
        """The length that a row can have, prompt included."""
        return len(self._contexts[row]) + max(1, self._sampling.max_new_tokens - len(self._states[row].prefix))
