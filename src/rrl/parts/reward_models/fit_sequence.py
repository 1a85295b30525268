"""Trains a sequence-classification reward model on a language model: Bradley-Terry, saved for transformers."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rrl.contracts.judging import RewardModelTrainer
from rrl.errors import DataError, StorageError
from rrl.functional import bradley_terry_loss
from rrl.parts.reward_models.reading import Count, Reading, Rows, context_of, on_device
from rrl.parts.reward_models.sequence import ABOUT, SequenceRewardModel
from rrl.processes.distributed import device
from rrl.ranges import at_least_one, between, check_ranges, not_negative, positive
from rrl.records.run_directory import write_json
from rrl.records.saving import rehearse, rescued, write_model
from rrl.training.descent import descend
from rrl.types import Pair, Show

Tokens = tuple[list[int], list[int]]
"""The token ids of a pair's two texts, the chosen one first."""


@dataclass(frozen=True, kw_only=True)
class SequenceTrainer(RewardModelTrainer):
    """AdamW on a new head, which begins at zero, and all weights of the language model below it.

    ``epochs`` passes over the pairs in batches of ``batch_size``, in micro-batches of ``micro_batch_size`` pairs;
    ``lr`` rises linearly over the share ``warmup`` of the steps and then stays; ``grad_clip`` 0 is off. ``dtype``
    bfloat16 computes in it over float32 weights. ``reading`` says how prompt and response become one text.
    """

    lr: float
    warmup: float
    epochs: int
    batch_size: int
    micro_batch_size: int
    weight_decay: float
    grad_clip: float
    dtype: Literal["float32", "bfloat16"]
    reading: Reading

    needs_model = True

    def __post_init__(self) -> None:
        check_ranges(
            self,
            at_least_one("epochs", "batch_size", "micro_batch_size"),
            not_negative("weight_decay", "grad_clip"),
            between(0, 1, "warmup"),
            positive("lr"),
        )

    def train(
        self, model: Any, tokenizer: Any, pairs: Sequence[Pair], folder: Path, seed: int, show: Show
    ) -> SequenceRewardModel:
        """Train, and save model and tokenizer."""
        with torch.random.fork_rng():  # dropout draws from the global state, and so does transformers for a new model
            torch.manual_seed(seed)
            scoring = with_head(model, tokenizer).to(device()).train()
            rehearse(scoring, tokenizer, folder)
            rows = self._rows(scoring, tokenizer, pairs)
            self._optimise(scoring, rows, tokenizer.pad_token_id, Random(f"reward model/{seed}"), show)
        with rescued(partial(write_model, scoring, tokenizer), "reward-model", folder):
            faults = write_model(scoring.eval(), tokenizer, folder)
        if faults:
            raise StorageError(*(f"reward model: {fault}; what could be written is in {folder}" for fault in faults))
        write_json(folder / ABOUT, {"kind": "sequence", "reading": asdict(self.reading)})
        return SequenceRewardModel(
            path=str(folder), revision=None, reading=self.reading, batch_size=2 * self.micro_batch_size,
            dtype="float32", trust_remote_code=False,
        )  # fmt: skip

    def _rows(self, model: Any, tokenizer: Any, pairs: Sequence[Pair]) -> list[Tokens]:
        """The token ids of each pair's two texts."""
        texts = [(pair.prompt, text) for pair in pairs for text in (pair.chosen, pair.rejected)]
        rows = self.reading.tokens(texts, tokenizer, context_of(model, tokenizer), Count())
        return list(zip(rows[::2], rows[1::2], strict=True))

    def _optimise(self, model: Any, rows: Sequence[Tokens], pad: int, rng: Random, show: Show) -> None:
        steps = self.epochs * math.ceil(len(rows) / self.batch_size)
        losses = descend(
            model, self._batches(model, rows, pad, rng), lr=self.lr, full_at=max(1.0, self.warmup * steps),
            weight_decay=self.weight_decay, grad_clip=self.grad_clip, key="fit",
        )  # fmt: skip
        for step, loss in enumerate(losses, 1):
            show(step / steps, {"loss": loss})

    def _batches(self, model: Any, rows: Sequence[Tokens], pad: int, rng: Random) -> Iterator[Iterator[Tensor]]:
        """The losses of each batch's micro-batches; every epoch has an order of its own."""
        for _ in range(self.epochs):
            order = rng.sample(rows, len(rows))
            for begin in range(0, len(rows), self.batch_size):
                yield self._losses(model, order[begin : begin + self.batch_size], pad)

    def _losses(self, model: Any, rows: Sequence[Tokens], pad: int) -> Iterator[Tensor]:
        """The mean loss per pair, as a sum over micro-batches."""
        for begin in range(0, len(rows), self.micro_batch_size):
            part = rows[begin : begin + self.micro_batch_size]
            chosen, rejected = self._rewards(model, [*(c for c, _ in part), *(r for _, r in part)], pad).chunk(2)
            yield bradley_terry_loss(chosen, rejected) * len(part) / len(rows)

    def _rewards(self, model: Any, rows: Rows, pad: int) -> Tensor:
        tokens, attention = on_device(rows, pad)
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            logits = model(input_ids=tokens, attention_mask=attention).logits
        rewards: Tensor = logits[:, 0].float()
        return rewards


def with_head(model: Any, tokenizer: Any) -> Any:
    """The language model as a sequence-classification model with one output, whose head is zero.

    Raises DataError for an architecture that has no such form.
    """
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(model.config)
    config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
    try:
        scoring = AutoModelForSequenceClassification.from_config(
            config, dtype=torch.float32, attn_implementation=config._attn_implementation
        )
        scoring.base_model.load_state_dict(model.base_model.state_dict())
    except (ValueError, RuntimeError) as error:
        raise DataError(
            f"model: {config.model_type!r} has no form with a head for sequences in transformers ({error}); expected "
            "an architecture that has one, such as llama, qwen2, mistral or gpt2; or use fit=embeddings"
        ) from error
    trunk = {id(parameter) for parameter in scoring.base_model.parameters()}
    for parameter in scoring.parameters():
        if id(parameter) not in trunk:
            nn.init.zeros_(parameter)
    return scoring
