"""A probe of a few rows before training or measuring: whether the engine and the networks agree on a model."""

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import torch

from rrl.collate import context_batch
from rrl.contracts import border
from rrl.errors import DataError, UsageError
from rrl.interfaces import RolloutEngine, ScorePrefixes
from rrl.training.networks import Actor
from rrl.training.tokens import context
from rrl.types import Example, Problem, Rollout, Sampling, State, TokenScores

ROWS = ((3, 0), (9, 5), (14, 6), (6, 2))
"""Tokens of prompt and prefix of the probe's rows: several lengths, and rows that leave the batch before others."""
WRITTEN = 8
"""Tokens of its longest response, prefix included."""
LIMITS = {"float32": 0.005, "bfloat16": 0.25}
"""The largest mean difference of log-probabilities (nats) that is due to rounding, not to another context."""


def check_agreement(
    model: Any, problems: Sequence[Problem], engine: RolloutEngine, inspect: ScorePrefixes, dtype: str
) -> None:
    """Write a few rows with the engine and score them by the networks; refuse a model on which they differ.

    The rows are made of the problems' tokens. ``inspect`` scores prefixes at the engine's temperature, by networks of
    the precision ``dtype``. Raises DataError with the model's class and the difference.
    """
    sampling = Sampling(engine.sampling.temperature or 1.0, top_p=1.0, top_k=0, max_new_tokens=WRITTEN, stop=())
    rough = {dtype, getattr(engine, "dtype", dtype)} & {"bfloat16", None}  # None: not known here
    try:
        rollouts = border.rollouts(engine, _states(problems), sampling, torch.Generator().manual_seed(0))
        difference = _difference(rollouts, inspect([State(r.state.problem, r.tokens) for r in rollouts]))
    except (torch.OutOfMemoryError, MemoryError, UsageError):
        raise
    except Exception as error:  # a model may raise anything on arguments that it does not expect
        raise DataError(
            _refused(model, engine, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        ) from error
    if not difference <= LIMITS["bfloat16" if rough else "float32"]:
        seen = f"log-probabilities of the same tokens, written and read again, differ by {difference:.3g} on average"
        raise DataError(_refused(model, engine, seen))


def reader(model: Any, tokenizer: Any, temperature: float) -> ScorePrefixes:
    """Scores prefixes by a forward pass of a model that is not in training."""
    actor = Actor(model, temperature or 1.0).eval()

    @torch.no_grad()
    def inspect(states: Sequence[State]) -> list[TokenScores]:
        batch = context_batch(states, tokenizer, context(model)).to(model.device)
        logprobs, _, _ = actor(batch.tokens, batch.attention, batch.mask)
        rows = zip(states, batch.mask, logprobs, strict=True)
        return [TokenScores(tuple(row[mask][: len(state.prefix)].tolist()), ()) for state, mask, row in rows]

    return inspect


def _states(problems: Sequence[Problem]) -> list[State]:
    """Rows of the problems' tokens, one after another."""
    tokens = cycle([token for problem in problems[: len(ROWS)] for token in problem.prompt])
    example = Example("probe", "", question="", reference="", answer="")
    rows = [(tuple(islice(tokens, prompt)), tuple(islice(tokens, prefix))) for prompt, prefix in ROWS]
    return [State(Problem(example, prompt, ()), prefix) for prompt, prefix in rows]


def _difference(rollouts: Sequence[Rollout], scored: Sequence[TokenScores]) -> float:
    pairs = [
        (logprob + kept, read)
        for rollout, score in zip(rollouts, scored, strict=True)
        for logprob, kept, read in zip(
            rollout.logprobs, rollout.kept, score.logprobs[len(rollout.state.prefix) :], strict=True
        )
    ]
    written, read = torch.tensor(pairs).unbind(1)
    return float((written - read).abs().mean())


def _refused(model: Any, engine: RolloutEngine, seen: str) -> str:
    who = f"{type(model).__name__} cannot be served by {type(engine).__name__}"
    return (
        f"model: {who} ({seen}); expected a causal language model that reads rows padded on the left as it reads them "
        "alone; docs/models.md lists those that were tried"
    )
