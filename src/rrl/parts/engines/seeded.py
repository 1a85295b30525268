"""What engines with weights of their own share: a seed for each row, and each version of the policy's weights once."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rrl.errors import ConfigError, DivergenceError
from rrl.interfaces import WeightSource
from rrl.parts.engines.handing_over import HandOver
from rrl.parts.engines.hf import HFEngine, Writer
from rrl.ranges import check_ranges, positive, refuse
from rrl.types import Sampling


@dataclass(kw_only=True)
class SeededEngine(HFEngine):
    """Writes with vLLM, whose log-probabilities may differ from the policy's by ``tolerance`` nats on average.

    Each row has a seed of its own, drawn from the engine's generator, which is all its state. The same seeds, rows and
    weights give the same tokens.
    """

    tolerance: float
    handed_over: HandOver | None = field(init=False, default=None)
    _held: int | None = field(init=False, default=None)

    is_exact = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, positive("tolerance"))
        refuse({f"temperature: expected 0 or at least 0.01, got {self.temperature}": 0 < self.temperature < 0.01})

    def start(self, source: WeightSource, tokenizer: Any, seed: int) -> None:
        super().start(source, tokenizer, seed)
        self._held = None

    def _noise(self, count: int, sampling: Sampling, generator: torch.Generator) -> Tensor:
        """A seed for each row; vLLM would draw at 0.01 for a lower temperature."""
        if 0 < sampling.temperature < 0.01 or sampling.temperature > 2:
            raise ConfigError(f"temperature: vLLM draws at 0 or from 0.01 to 2, got {sampling.temperature}")
        return torch.randint(2**62, (count,), generator=generator)

    @contextmanager
    def _model(self) -> Iterator[Any]:
        """What a writer reads of the policy's model, after its weights have been handed over."""
        if self._held != self._source.version:
            with self._source.generation_model() as model:
                self._about = SimpleNamespace(generation_config=model.generation_config, device=torch.device("cpu"))
                self._hand_over(model)
            self._held = self._source.version
        yield self._about

    @abstractmethod
    def _hand_over(self, model: Any) -> None:
        """Give vLLM the model's weights, and compare. Raises DivergenceError, on every rank."""


class SeededWriter(Writer):
    """Writes rows from tokens that vLLM has drawn."""

    def _record(self, rows: Sequence[int], drawn: Sequence[tuple[int, float]]) -> set[int]:
        """Append a token with its log-probability to each of the rows; returns those that go on."""
        if any(logprob != logprob for _, logprob in drawn):
            raise DivergenceError(
                "log-probabilities: nan; expected numbers; the weights have left their range: lower policy.actor_lr or "
                "set policy.grad_clip"
            )
        tokens, logprobs = torch.tensor(drawn, dtype=torch.float64).reshape(-1, 2).unbind(1)
        return {rows[place] for place in self._append(rows, tokens.long(), logprobs, torch.zeros(len(rows)))}

    def _refuse_early(self, rows: set[int], remedy: str) -> None:
        """Raise ConfigError if vLLM has ended these rows before they are complete."""
        for row in sorted(rows)[:1]:
            length = len(self._contexts[row]) + len(self._actions[row])
            raise ConfigError(
                f"engine: vLLM ended a row of {length} tokens that should go on; expected room for prompt and "
                f"response; {remedy}, or lower data.max_response_length"
            )

    def _max_tokens(self, row: int) -> int:
        """New tokens that a row may have at most; a prefix that is as long as a response may be gets one."""
        return max(1, self._sampling.max_new_tokens - len(self._states[row].prefix))
