"""The start of training and evaluation: a model, its tokenizer, and problems that fit both."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rrl.errors import DataError
from rrl.interfaces import WeightSource
from rrl.training.models import LoadedModel
from rrl.training.prompts import Prompts
from rrl.training.tokens import context, embedded, refuse_beyond
from rrl.types import Example, Problem


@dataclass(frozen=True)
class Prepared:
    """A model, its tokenizer and problems; its warm start came from ``warmstart`` and will be found in ``kept``."""

    model: Any
    tokenizer: Any
    train: list[Problem]
    test: list[Problem]
    warmstart: Path | None
    kept: Path | None


class FrozenSource(WeightSource):
    """Lends the weights of a model that is not in training."""

    version = 0

    def __init__(self, model: Any) -> None:
        self._model = model

    @contextmanager
    def generation_model(self) -> Iterator[Any]:
        with torch.no_grad():
            yield self._model.eval()


def check_levels(examples: Sequence[Example], weights: Mapping[str, float] | None) -> None:
    """Every level with a weight needs problems."""
    levels = sorted({example.level for example in examples})
    missing = sorted(set(weights or {}) - set(levels))
    if missing:
        raise DataError(
            f"data.level_weights: no problems of level {', '.join(missing)}; expected levels among {', '.join(levels)}"
        )


def encode(examples: Sequence[Example], loaded: LoadedModel, prompts: Prompts, longest: int) -> list[Problem]:
    """Examples as problems that fit the model's context together with the ``longest`` response."""
    problems = prompts.encode(examples, loaded.tokenizer, context=context(loaded.model), response=longest)
    rows = ((problem.id, problem.prompt + problem.reference) for problem in problems)
    refuse_beyond(rows, loaded.tokenizer, embedded(loaded.model))
    return problems
