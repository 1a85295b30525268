"""Trains a small Bradley-Terry network on frozen embeddings, in minutes and on the CPU."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from rrl.contracts.judging import RewardModelTrainer
from rrl.errors import DataError
from rrl.functional import bradley_terry_loss
from rrl.parts.reward_models.embedder import Embedder
from rrl.parts.reward_models.embeddings import EmbeddingsRewardModel, Head, save_head
from rrl.ranges import at_least_one, between, check_ranges, not_negative, positive
from rrl.training.descent import descend
from rrl.types import Pair, Show

CHUNK = 64
"""Pairs that are embedded between two signs of progress."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingsTrainer(RewardModelTrainer):
    """AdamW on the head alone; every text is embedded once.

    ``hidden`` are the widths of its layers (none: a linear head) and ``dropout`` its share of units left out;
    ``epochs`` passes at most in batches of ``batch_size`` pairs, of which the one is kept whose loss on the share
    ``validation`` of the pairs, held out for that, is lowest, and none follows ``patience`` epochs without a lower one.
    ``embed_batch_size`` texts are embedded together.
    """

    embedder: Embedder
    hidden: tuple[int, ...]
    dropout: float
    lr: float
    weight_decay: float
    epochs: int
    batch_size: int
    validation: float
    patience: int
    embed_batch_size: int

    def __post_init__(self) -> None:
        check_ranges(
            self,
            at_least_one("epochs", "batch_size", "patience", "embed_batch_size"),
            not_negative("weight_decay"),
            between(0, 0.99, "dropout"),
            between(0.01, 0.5, "validation"),
            positive("lr"),
        )
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden: expected widths of at least 1, got {list(self.hidden)}")

    def train(
        self, model: Any, tokenizer: Any, pairs: Sequence[Pair], folder: Path, seed: int, show: Show
    ) -> EmbeddingsRewardModel:
        """Embed, train the head, and save it."""
        chosen, rejected = self._embed(pairs, show)
        order = torch.tensor(Random(f"reward model/{seed}").sample(range(len(pairs)), len(pairs)))
        held = max(1, round(self.validation * len(pairs)))
        if held == len(pairs):
            raise DataError(f"pairs: {len(pairs)}, of which fit.validation holds {held} out; expected 2 or more")
        with torch.random.fork_rng():  # weights and dropout draw from the global state
            torch.manual_seed(seed)
            head = Head(chosen.shape[1], self.hidden, self.dropout)
            head.standardise(torch.cat([chosen[order[held:]], rejected[order[held:]]]))
            self._optimise(head, (chosen, rejected), order[held:], order[:held], show)
        save_head(folder, self.embedder, head.eval(), self.hidden)
        return EmbeddingsRewardModel(path=str(folder), batch_size=self.embed_batch_size)

    def _embed(self, pairs: Sequence[Pair], show: Show) -> tuple[Tensor, Tensor]:
        """The embeddings [pairs, size] of chosen and of rejected responses: nine tenths of the work."""
        parts = []
        for begin in range(0, len(pairs), CHUNK):
            part = pairs[begin : begin + CHUNK]
            texts = [(p.prompt, p.chosen) for p in part] + [(p.prompt, p.rejected) for p in part]
            parts.append(self.embedder.embed(texts, self.embed_batch_size).chunk(2))
            show(0.9 * (begin + len(part)) / len(pairs), {})
        return torch.cat([c for c, _ in parts]), torch.cat([r for _, r in parts])

    def _optimise(self, head: Head, sides: tuple[Tensor, Tensor], train: Tensor, held: Tensor, show: Show) -> None:
        """Leave the head as it was in its best epoch."""
        best, kept, waited = math.inf, copy.deepcopy(head.state_dict()), 0
        per_epoch = math.ceil(len(train) / self.batch_size)
        losses = descend(
            head, self._batches(head, sides, train), lr=self.lr, full_at=1, weight_decay=self.weight_decay,
            grad_clip=0.0, key="fit",
        )  # fmt: skip
        for epoch, _ in enumerate(islice(losses, per_epoch - 1, None, per_epoch), 1):
            head.eval()
            with torch.no_grad():
                loss = float(_loss(head, sides, held))
            waited = 0 if loss < best else waited + 1
            if loss < best:
                best, kept = loss, copy.deepcopy(head.state_dict())
            show(0.9 + 0.1 * epoch / self.epochs, {"loss": loss})
            if waited == self.patience:
                break
        head.load_state_dict(kept)

    def _batches(self, head: Head, sides: tuple[Tensor, Tensor], train: Tensor) -> Iterator[list[Tensor]]:
        """The loss of each batch; every epoch has an order of its own."""
        for _ in range(self.epochs):
            head.train()
            for index in train[torch.randperm(len(train))].split(self.batch_size):
                yield [_loss(head, sides, index)]


def _loss(head: Head, sides: tuple[Tensor, Tensor], index: Tensor) -> Tensor:
    chosen, rejected = sides
    return bradley_terry_loss(head(chosen[index]), head(rejected[index]))
