"""Rollouts by transformers' own ``generate``: a second opinion on the reference engine, and a pattern for others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rrl.collate import pad_left
from rrl.functional import token_logprobs
from rrl.interfaces import RolloutEngine, StateDict, WeightSource, Written
from rrl.parts.engines.hf import end_tokens
from rrl.ranges import at_least_one, between, check_ranges, not_negative
from rrl.types import Rollout, Sampling, State


@dataclass(kw_only=True)
class Generate(RolloutEngine):
    """Writes with the policy's own model.

    ``temperature``, ``top_k`` (0: off) and ``top_p`` (1: off) shape the distribution; ``max_response_length`` limits a
    whole response, replayed prefix included; ``batch_size`` is the number of rows written together. Unlike ``HFEngine``
    it has no stop texts, and what a row writes depends on the rows it is written with.
    """

    temperature: float
    top_p: float
    top_k: int
    max_response_length: int
    batch_size: int
    _generator: torch.Generator = field(init=False, default_factory=torch.Generator)

    def __post_init__(self) -> None:
        check_ranges(
            self,
            not_negative("temperature", "top_k"),
            between(1e-9, 1, "top_p"),
            at_least_one("max_response_length", "batch_size"),
        )

    def start(self, source: WeightSource, tokenizer: Any, seed: int) -> None:
        """Begin with this policy's weights."""
        self._source, self._tokenizer = source, tokenizer
        self._generator.manual_seed(seed)

    @property
    def sampling(self) -> Sampling:
        """The sampling of training rollouts."""
        return Sampling(self.temperature, self.top_p, self.top_k, self.max_response_length, stop=())

    def generate(
        self,
        states: Sequence[State],
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
        written: Written | None = None,
    ) -> list[Rollout]:
        """One rollout per state, in order."""
        sampling = sampling or self.sampling
        seed = int(torch.randint(2**31, (), generator=generator or self._generator))
        rollouts: list[Rollout] = []
        # generate() draws from torch's global generator: lend it a seed of ours, and put its state back afterwards.
        with torch.random.fork_rng(), self._source.generation_model() as model:
            torch.manual_seed(seed)
            for begin in range(0, len(states), self.batch_size):
                batch = self._write(model, states[begin : begin + self.batch_size], sampling)
                if written is not None:
                    written(batch)
                rollouts += batch
        return rollouts

    def state_dict(self) -> StateDict:
        """The random state."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: StateDict) -> None:
        """Go back to a saved random state."""
        self._generator.set_state(state["generator"])

    def _write(self, model: Any, states: Sequence[State], sampling: Sampling) -> list[Rollout]:
        rows = [(*state.problem.prompt, *state.prefix) for state in states]
        limits = [max(1, sampling.max_new_tokens - len(state.prefix)) for state in states]
        ends = end_tokens(model, self._tokenizer)
        tokens, real = pad_left(rows, self._tokenizer.pad_token_id)
        tokens, attention = tokens.to(model.device), real.long().to(model.device)
        out = model.generate(
            input_ids=tokens, attention_mask=attention, generation_config=self._config(sampling, max(limits), ends)
        )
        written = out.sequences[:, tokens.shape[1] :]
        logprobs, kept = _logprobs(out, written, sampling.temperature)
        rollouts = []
        for state, limit, *row in zip(states, limits, written.tolist(), logprobs.tolist(), kept.tolist(), strict=True):
            stop = next((i + 1 for i, token in enumerate(row[0][:limit]) if token in ends), None)
            actions, drawn, mass = (tuple(column[: stop or limit]) for column in row)
            text = self._tokenizer.decode(state.prefix + (actions if stop is None else actions[:-1]))
            rollouts.append(Rollout(state, actions, drawn, mass, stop is not None, text, self._source.version))
        return rollouts

    def _config(self, sampling: Sampling, longest: int, ends: set[int]) -> Any:
        """Everything said outright: what is left open, generate() takes from the model's own file."""
        from transformers import GenerationConfig

        greedy = sampling.temperature == 0
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        return GenerationConfig(
            do_sample=not greedy,
            **({} if greedy else drawn),
            repetition_penalty=1.0,
            max_new_tokens=longest,
            eos_token_id=sorted(ends),
            pad_token_id=self._tokenizer.pad_token_id,
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
        )


def _logprobs(out: Any, written: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities [batch, time] as drawn, and the log of the mass that top-k and top-p kept; 0 when greedy."""
    if temperature == 0:
        return torch.zeros(written.shape), torch.zeros(written.shape)
    drawn, whole = (
        torch.stack([token_logprobs(step.float(), written[:, t]) for t, step in enumerate(steps)], dim=1)
        for steps in (out.scores, [logits / temperature for logits in out.logits])
    )
    return drawn, whole - drawn
