"""Small real things that the replay tests share: problems, rollouts, tiny models, and one that writes a known text."""

import io
import pickle
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch

from rrl.engines.hf import HFEngine
from rrl.models import LoadedModel, TinyLlama
from rrl.prepared import FrozenSource
from rrl.types import Example, Problem, Rollout, State

torch.set_num_threads(1)

PAD, BOS, EOS = 0, 1, 2
WORDS = tuple("abcdefgh")
"""As token ids 4 to 11: the four before them are pad, begin, end and unknown."""


def through_pickle(state: Any) -> Any:
    """A saved state after a trip through a pickle."""
    return pickle.loads(pickle.dumps(state))


def through_torch(state: Any) -> Any:
    """A saved state after a trip through a checkpoint that holds plain data only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


THROUGH = pytest.mark.parametrize("through", [through_pickle, through_torch])


def problem(
    name: str = "p", *, level: str = "easy", prompt: Sequence[int] = (1, 4), reference: Sequence[int] = ()
) -> Problem:
    """A problem of which only the token ids matter."""
    return Problem(Example(name, level, question="", reference="", answer=""), tuple(prompt), tuple(reference))


def rollout(
    state: State, actions: Sequence[int], *, logprobs: Sequence[float] | None = None, version: int = 0
) -> Rollout:
    """A finished rollout with these actions, as if each had been certain unless ``logprobs`` says otherwise."""
    zeros = (0.0,) * len(actions)
    drawn = zeros if logprobs is None else tuple(logprobs)
    return Rollout(state, tuple(actions), drawn, zeros, finished=True, response="", version=version)


def tiny(vocabulary: tuple[str, ...] | None, *, hidden_size: int = 16, seed: int = 0) -> LoadedModel:
    """A random model whose every token depends visibly on its context; None for bytes as tokens."""
    sizes = {"hidden_size": hidden_size, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return TinyLlama(**sizes, max_position_embeddings=128, initializer_range=0.5, init_seed=seed).load(vocabulary)


def chain(vocabulary: tuple[str, ...] | None, *text: str, end: bool = True) -> LoadedModel:
    """A model with weights set by hand: after each token of ``text`` it writes the next one, in the end EOS.

    Its layers are off, its embedding is the unit matrix, and its head's columns name the successors.
    """
    size = 4 + (256 if vocabulary is None else len(vocabulary))
    model, tokenizer = tiny(vocabulary, hidden_size=size)
    tokens = [*ids(tokenizer, " ".join(text)), *[EOS] * end]
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.zero_()
        for now, following in pairwise(tokens):
            model.lm_head.weight[following, now] = 100.0
    return LoadedModel(model, tokenizer)


def ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The text's token ids, without special tokens."""
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)


def engine(loaded: LoadedModel, *, seed: int = 0, **changes: Any) -> HFEngine:
    """An engine that has begun with this model's weights."""
    settings: dict[str, Any] = {
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 12, "stop": (), "batch_size": 64, "dtype": None,
    }  # fmt: skip
    writer = HFEngine(**settings | changes)
    writer.start(FrozenSource(loaded.model), loaded.tokenizer, seed)
    return writer
