"""Vectors of texts by a frozen model, as the input of small reward models."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rrl.parts.reward_models.reading import Count, Reading, batches, context_of
from rrl.processes.distributed import device
from rrl.records.fingerprints import weights_fingerprint
from rrl.training.pretrained import load_pretrained, unreadable
from rrl.training.tokens import embedded, known
from rrl.training.weight_files import weights


@dataclass(kw_only=True)
class Embedder:
    """Vectors of texts by a frozen model of transformers: an encoder, or a causal language model's trunk.

    ``path`` is a folder or hub id, with ``revision``. ``pooling`` mean averages the last hidden states of a text, last
    takes its last token's. ``features`` joint embeds prompt and response as one text; apart embeds each by itself and
    gives [prompt, response, prompt * response], the way of sentence encoders.
    """

    path: str | None
    revision: str | None
    pooling: Literal["mean", "last"]
    features: Literal["joint", "apart"]
    reading: Reading
    trust_remote_code: bool
    count: Count = field(init=False, default_factory=Count)

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path: missing; give a folder or hub id of a model of transformers")

    def settings(self) -> dict[str, Any]:
        """The arguments of its constructor; a local path is absolute."""
        names = ("path", "revision", "pooling", "features", "trust_remote_code")
        path = Path(str(self.path)).expanduser()
        local = {"path": str(path.absolute())} if path.is_dir() else {}
        return {**{name: getattr(self, name) for name in names}, **local, "reading": asdict(self.reading)}

    def fingerprint(self) -> str:
        """The weights as a hash."""
        return weights_fingerprint(weights(self._loaded[0]))

    def embed(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> Tensor:
        """One vector for each (prompt, response): [pairs, size], on the CPU."""
        if self.features == "joint":
            return self._vectors(pairs, batch_size)
        prompts = self._vectors([("", prompt) for prompt, _ in pairs], batch_size)
        responses = self._vectors([("", response) for _, response in pairs], batch_size)
        return torch.cat([prompts, responses, prompts * responses], dim=1)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        common = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        path = os.path.expanduser(str(self.path))
        refuse = partial(unreadable, "embedder.path", path, expected="a model of transformers, with its tokenizer")
        model, tokenizer, _ = load_pretrained("AutoModel", path, refuse, common, dtype=torch.float32)
        return model.to(device()).eval(), tokenizer

    def _vectors(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> Tensor:
        model, tokenizer = self._loaded
        distinct = list(dict.fromkeys(pairs))  # a prompt comes with two responses
        rows = self.reading.tokens(distinct, tokenizer, context_of(model, tokenizer), self.count)
        rows = known(rows, embedded(model))
        found: dict[int, Tensor] = {}
        with torch.no_grad():
            for places, tokens, attention in batches(rows, batch_size, tokenizer.pad_token_id):
                hidden = model(input_ids=tokens, attention_mask=attention).last_hidden_state.float()
                found |= zip(places, pooled(hidden, attention, self.pooling).cpu(), strict=True)
        where = {pair: i for i, pair in enumerate(distinct)}
        return torch.stack([found[where[pair]] for pair in pairs])


def pooled(hidden: Tensor, attention: Tensor, pooling: Literal["mean", "last"]) -> Tensor:
    """One vector a row: the mean of its real tokens' states [batch, time, size], or the last real token's."""
    if pooling == "mean":
        share = attention / attention.sum(1, keepdim=True)
        return (hidden * share.unsqueeze(-1)).sum(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), attention.sum(1) - 1]
