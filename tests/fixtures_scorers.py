"""Small real reward models, and dialogues with a planted preference, for the tests of preferences."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rrl.models import LoadedModel, TinyLlama
from rrl.scorers.embedder import Embedder
from rrl.scorers.fit_embeddings import EmbeddingsFit
from rrl.scorers.fit_sequence import SequenceFit, with_head
from rrl.scorers.reading import Reading
from rrl.scorers.sequence import SequenceScorer
from rrl.scoring import Scorer
from rrl.types import Metrics, Pair

WORDS = ("red", "green", "blue", "warm", "cold", "soft", "loud", "fast")


def reading(**changes: Any) -> Reading:
    """Plain text, longer than any test's."""
    return Reading(**{"layout": "plain", "max_length": 512} | changes)


def tiny(**changes: Any) -> LoadedModel:
    """A random language model of bytes."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"max_position_embeddings": 256, "initializer_range": 0.15, "init_seed": 0}
    return TinyLlama(**sizes | more | changes).load(None)


def saved_model(folder: Path, *, head: float = 0.3) -> Path:
    """A sequence-classification model whose head is random with this deviation."""
    loaded = tiny()
    scoring = with_head(loaded.model, loaded.tokenizer)
    torch.nn.init.normal_(scoring.score.weight, std=head, generator=torch.Generator().manual_seed(1))
    scoring.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def saved_encoder(folder: Path) -> Path:
    """A random language model, whose trunk can serve as an encoder."""
    loaded = tiny()
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def sequence_scorer(path: Path | str | None, **changes: Any) -> SequenceScorer:
    """The scorer of a folder."""
    shape = {"revision": None, "reading": reading(), "batch_size": 4, "dtype": "float32", "trust_remote_code": False}
    return SequenceScorer(path=None if path is None else str(path), **shape | changes)


def sequence_fit(**changes: Any) -> SequenceFit:
    """A short training."""
    shape = {"lr": 2e-3, "warmup": 0.1, "epochs": 2, "batch_size": 16, "micro_batch_size": 8, "weight_decay": 0.0}
    return SequenceFit(**shape | {"grad_clip": 1.0, "dtype": "float32", "reading": reading()} | changes)


def embedder(path: Path, **changes: Any) -> Embedder:
    """Mean vectors of prompt and response as one text."""
    shape = {"revision": None, "pooling": "mean", "features": "joint", "trust_remote_code": False}
    return Embedder(path=str(path), reading=reading(), **shape | changes)


def embeddings_fit(path: Path, features: str = "joint", **changes: Any) -> EmbeddingsFit:
    """A short training."""
    shape = {"hidden": (16,), "dropout": 0.0, "lr": 1e-2, "weight_decay": 0.0, "epochs": 30, "batch_size": 32}
    more = {"validation": 0.1, "patience": 10, "embed_batch_size": 32, "embedder": embedder(path, features=features)}
    return EmbeddingsFit(**shape | more | changes)


def planted_pairs(count: int, seed: int) -> list[Pair]:
    """The chosen response has the keyword "zz" in it, the other one has not."""
    rng = random.Random(seed)
    return [_planted(rng, number) for number in range(count)]


def _planted(rng: random.Random, number: int) -> Pair:
    words = [rng.choice(WORDS) for _ in range(4)]
    chosen = [*words]
    chosen[rng.randrange(4)] = "zz"
    prompt = f"\n\nHuman: {rng.choice(WORDS)} {number}\n\nAssistant:"
    level, subset = ("helpful", "helpful-base") if number % 2 else ("harmless", "harmless-base")
    return Pair(f"p{number}", level, prompt, " ".join(chosen), " ".join(words), {"subset": subset})


def silent(progress: float, metrics: Metrics) -> None:
    """No display."""


class Table(Scorer):
    """A reward model that is a table of responses, and remembers what it was asked."""

    def __init__(self, rewards: dict[str, float]) -> None:
        self.rewards, self.asked, self.started = rewards, list[tuple[str, str]](), False

    def start(self) -> None:
        self.started = True

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.asked += pairs
        return [self.rewards[response] for _, response in pairs]

    def described(self) -> dict[str, Any]:
        return {}
