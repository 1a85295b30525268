"""The reference engine: batched sampling with a transformers model, from prompt plus prefix."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rrl.errors import DivergenceError
from rrl.functional import token_logprobs
from rrl.interfaces import RolloutEngine, StateDict, WeightSource, Written
from rrl.parts.engines.decoding import Decoding
from rrl.processes.distributed import spread
from rrl.ranges import at_least_one, between, check_ranges
from rrl.records.pulse import beat
from rrl.types import Rollout, Sampling, State


@dataclass(kw_only=True)
class HFEngine(RolloutEngine):
    """Writes with the policy's own model.

    ``temperature`` shapes the distribution; ``max_response_length`` limits a whole response in tokens, replayed prefix
    included; ``stop`` are texts that end a response; ``batch_size`` is the number
    of rows written together, which are sorted by length.

    Every row draws from a uniform number of its own per position, so that neither batching nor the end of other
    rows changes what it writes (beyond rounding).
    """

    temperature: float
    max_response_length: int
    stop: tuple[str, ...]
    batch_size: int
    _generator: torch.Generator = field(init=False, default_factory=torch.Generator)

    is_exact = True

    def __post_init__(self) -> None:
        check_ranges(self, between(0, 100, "temperature"), at_least_one("max_response_length", "batch_size"))
        if "" in self.stop:
            raise ValueError(f"stop: an empty text ends every response at once; expected texts, got {list(self.stop)}")

    def start(self, source: WeightSource, tokenizer: Any, seed: int) -> None:
        self._source, self._tokenizer = source, tokenizer
        self._generator.manual_seed(seed)

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, top_p=1.0, top_k=0, max_new_tokens=self.max_response_length, stop=self.stop)

    def generate(
        self,
        states: Sequence[State],
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
        written: Written | None = None,
    ) -> list[Rollout]:
        """One rollout per state, in order and on every rank; each rank writes its share of them."""
        sampling = sampling or self.sampling
        noise = self._noise(len(states), sampling, generator or self._generator)
        with self._model() as model:
            rows = list(zip(states, noise, strict=True))
            return spread(rows, lambda mine: self._write(model, mine, sampling, written))

    def state_dict(self) -> StateDict:
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: StateDict) -> None:
        self._generator.set_state(state["generator"])

    def _noise(self, count: int, sampling: Sampling, generator: torch.Generator) -> Tensor:
        """The random numbers of each row, [count, ...]."""
        return torch.rand(count, sampling.max_new_tokens, generator=generator)

    def _write(
        self, model: Any, rows: Sequence[tuple[State, Tensor]], sampling: Sampling, written: Written | None
    ) -> list[Rollout]:
        """Rollouts from states and their random numbers, written in the order of their lengths.

        Who writes what does not depend on lengths, so that each rank verifies what it has written itself.
        """
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0].problem.prompt) + len(rows[i][0].prefix))
        rollouts = dict(zip(order, self._in_order(model, [rows[i] for i in order], sampling, written), strict=True))
        return [rollouts[i] for i in range(len(rows))]

    def _in_order(
        self, model: Any, rows: Sequence[tuple[State, Tensor]], sampling: Sampling, written: Written | None
    ) -> list[Rollout]:
        """The same in the order of the rows, a batch at a time."""
        rollouts: list[Rollout] = []
        for begin in range(0, len(rows), self.batch_size):
            states, noise = zip(*rows[begin : begin + self.batch_size], strict=True)
            writer = Writer(model, self._tokenizer, sampling, self._source.version, written)
            rollouts += writer.write(states, torch.stack(noise))
        return rollouts

    def _model(self) -> AbstractContextManager[Any]:
        """What it writes with, for the length of the context."""
        return self._source.generation_model()


class Writer:
    """Writes one batch of rows to their ends; ``written`` gets the rollouts as soon as they are complete."""

    def __init__(self, model: Any, tokenizer: Any, sampling: Sampling, version: int, written: Written | None) -> None:
        self._model, self._tokenizer, self._sampling = model, tokenizer, sampling
        self._version, self._written = version, written
        self._ends = torch.tensor(sorted(end_tokens(model, tokenizer)), device=model.device)

    def write(self, states: Sequence[State], noise: Tensor) -> list[Rollout]:
        """One rollout per state, drawn by its uniform numbers ``noise`` [rows, max_new_tokens]."""
        self._states = states
        self._contexts = [(*state.problem.prompt, *state.prefix) for state in states]
        self._actions: list[list[int]] = [[] for _ in states]
        self._logprobs: list[list[float]] = [[] for _ in states]
        self._kept: list[list[float]] = [[] for _ in states]
        self._finished = [False] * len(states)
        self._rollouts: dict[int, Rollout] = {}
        self._decode(noise.to(self._model.device))
        return [self._rollouts[row] for row in range(len(states))]

    def _complete(self, rows: Sequence[int]) -> None:
        """Make the rollouts of these rows, which have ended."""
        texts = self._tokenizer.batch_decode([self._without_end(row) for row in rows])
        for row, text in zip(rows, texts, strict=True):
            actions, logprobs, kept = self._actions[row], self._logprobs[row], self._kept[row]
            self._rollouts[row] = Rollout(
                self._states[row],
                tuple(actions),
                tuple(logprobs),
                tuple(kept),
                self._finished[row],
                text,
                self._version,
            )
        if self._written is not None:
            self._written([self._rollouts[row] for row in rows])

    def _decode(self, noise: Tensor) -> None:
        """Token by token; rows that have ended leave the batch when they are half of it."""
        decoding = Decoding(self._model, self._contexts, self._tokenizer.pad_token_id)
        rows = list(range(len(self._contexts)))
        while rows:
            chosen, alive = self._draw(rows, decoding.logits(), noise)
            decoding.append(chosen, alive)
            if 2 * len(alive) <= len(rows):
                decoding.keep(alive)
                rows = [rows[place] for place in alive]
        self._complete(range(len(self._states)))

    def _draw(self, rows: Sequence[int], logits: Tensor, noise: Tensor) -> tuple[Tensor, list[int]]:
        """Draw a token for each row from logits [rows, vocabulary]; returns them and the places that go on."""
        beat()
        index = torch.tensor([len(self._actions[row]) for row in rows], device=noise.device)
        uniform = noise[torch.tensor(rows, device=noise.device), index.clamp(max=noise.shape[1] - 1)]
        chosen, logprobs, kept = draw(logits, uniform, self._sampling)
        return chosen, self._append(rows, chosen, logprobs, kept)

    def _append(self, rows: Sequence[int], chosen: Tensor, logprobs: Tensor, kept: Tensor) -> list[int]:
        """Record a token for each row still writing; returns the places in ``rows`` that go on."""
        ended = torch.isin(chosen, self._ends).tolist()
        alive = []
        columns = zip(rows, chosen.tolist(), logprobs.tolist(), kept.tolist(), ended, strict=True)
        for place, (row, token, logprob, mass, end) in enumerate(columns):
            if self._finished[row] or self._full(row):
                continue
            self._actions[row].append(token)
            self._logprobs[row].append(logprob)
            self._kept[row].append(mass)
            self._finished[row] = end or self._stopped(row)
            if not self._finished[row] and not self._full(row):
                alive.append(place)
        return alive

    def _without_end(self, row: int) -> tuple[int, ...]:
        """Prefix and actions without a closing end token; other special tokens stay, for the verifier to see."""
        tokens = self._states[row].prefix + tuple(self._actions[row])
        return tokens[:-1] if tokens[-1] in self._ends.tolist() else tokens

    def _full(self, row: int) -> bool:
        """Whether the response is as long as it may be; a prefix that long already still gets one token."""
        written = len(self._actions[row])
        return written > 0 and len(self._states[row].prefix) + written >= self._sampling.max_new_tokens

    def _stopped(self, row: int) -> bool:
        """Whether the newest token completed a stop text, which may have begun in the prefix."""
        if not self._sampling.stop:
            return False
        longest = max(len(text.encode()) for text in self._sampling.stop)  # a token is a byte or more
        tail = (*self._states[row].prefix[-longest:], *self._actions[row][-longest:])[-longest:]
        now = self._tokenizer.decode(tail)
        found = [text for text in self._sampling.stop if text in now]
        before = self._tokenizer.decode(tail[:-1]) if found else ""
        return any(now.count(text) > before.count(text) for text in found)


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a token per row by inverting the distribution function at ``uniform`` [batch] in [0, 1).

    ``logits`` [batch, vocabulary]. Returns the tokens, their log-probabilities (nats) under exactly the distribution
    they were drawn from, and the log of the probability mass that top-k and top-p kept. Temperature 0 takes the
    likeliest token, with log-probability 0. Raises DivergenceError when logits are not numbers.
    """
    if logits.isnan().any():
        raise DivergenceError(
            "logits: nan; expected numbers; the weights have left their range: lower policy.actor_lr or set "
            "policy.grad_clip"
        )
    if sampling.temperature == 0:
        zeros = torch.zeros_like(uniform)
        return logits.argmax(-1), zeros, zeros
    whole = logits / sampling.temperature
    kept = _truncate(whole, sampling)
    cumulative = kept.softmax(-1).double().cumsum(-1)
    tokens = torch.searchsorted(cumulative, uniform.double().unsqueeze(-1) * cumulative[:, -1:], right=True).squeeze(-1)
    logprobs = token_logprobs(kept, tokens)
    return tokens, logprobs, token_logprobs(whole, tokens) - logprobs


def _truncate(logits: Tensor, sampling: Sampling) -> Tensor:
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    nothing = torch.empty(0)
    if sampling.top_k:
        logits = TopKLogitsWarper(sampling.top_k)(nothing, logits)
    return TopPLogitsWarper(sampling.top_p)(nothing, logits) if sampling.top_p < 1 else logits


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Every token id that ends a response: the tokenizer's EOS and those of the model's generation config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return {token for token in (tokenizer.eos_token_id, *several) if token is not None}
