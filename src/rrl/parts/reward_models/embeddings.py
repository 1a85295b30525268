"""The cheap reward model: a small network on frozen embeddings (Sun et al., arXiv 2502.04357)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rrl.contracts.judging import RewardModel
from rrl.errors import DataError
from rrl.parts.reward_models.embedder import Embedder
from rrl.parts.reward_models.reading import Reading
from rrl.ranges import at_least_one, check_ranges
from rrl.records.run_directory import write_json
from rrl.training.pretrained import unreadable

ABOUT, HEAD = "reward_model.json", "head.safetensors"
EXPECTED = "a folder that rrl-reward-model fit=embeddings has written"


class Head(nn.Module):
    """A reward from an embedding: standardised, through ReLU layers of the widths ``hidden``, to one number."""

    def __init__(self, size: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.mean, self.scale = nn.Buffer(torch.zeros(size)), nn.Buffer(torch.ones(size))
        layers: list[nn.Module] = []
        for width, following in zip((size, *hidden), hidden, strict=False):
            layers += [nn.Linear(width, following), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear((size, *hidden)[-1], 1))

    def standardise(self, embeddings: Tensor) -> None:
        """Take mean and deviation from these embeddings [n, size]."""
        self.mean.copy_(embeddings.mean(0))
        self.scale.copy_(embeddings.std(0).clamp(min=1e-6))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Rewards [n] of embeddings [n, size]."""
        rewards: Tensor = self.layers((embeddings - self.mean) / self.scale)
        return rewards.squeeze(-1)


@dataclass(kw_only=True)
class EmbeddingsRewardModel(RewardModel):
    """A head on embeddings, from the folder ``path``; ``batch_size`` texts are embedded together."""

    path: str | None
    batch_size: int

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("batch_size"))
        if not self.path:
            raise ValueError("path: missing; give a reward model's folder, as in reward_model.path=runs/reward-model")

    def start(self) -> None:
        _ = self._loaded

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        if not pairs:
            return []
        embedder, head = self._loaded
        with torch.no_grad():
            scores: list[float] = head(embedder.embed(pairs, self.batch_size)).tolist()
        return scores

    def described(self) -> dict[str, Any]:
        embedder = self._loaded[0]
        counts = {"texts": embedder.count.texts, "cut": embedder.count.cut}
        return {"kind": "embeddings", "path": self.path, "embedder": embedder.settings(), **counts}

    @cached_property
    def _loaded(self) -> tuple[Embedder, Head]:
        return load_head(Path(str(self.path)).expanduser())


def save_head(folder: Path, embedder: Embedder, head: Head, hidden: Sequence[int]) -> None:
    """Write the head and the settings of its embedder, for ``load_head``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in head.state_dict().items()}, folder / HEAD)
    about = {"kind": "embeddings", "embedder": embedder.settings(), "sha256": embedder.fingerprint()}
    write_json(folder / ABOUT, {**about, "size": len(head.mean), "hidden": list(hidden)})


def load_head(folder: Path) -> tuple[Embedder, Head]:
    """The embedder and the head that ``save_head`` wrote. Raises DataError where one of them cannot be found."""
    from safetensors.torch import load_file

    if not (folder / ABOUT).is_file() or not (folder / HEAD).is_file():
        raise unreadable("reward_model.path", folder, f"it has no {ABOUT} with {HEAD}", EXPECTED)
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        embedder = Embedder(**{**about["embedder"], "reading": Reading(**about["embedder"]["reading"])})
        head = Head(about["size"], about["hidden"], 0.0)
        head.load_state_dict(load_file(folder / HEAD))
    except Exception as error:  # a damaged file can raise nearly anything
        raise unreadable("reward_model.path", folder, f"{type(error).__name__}: {error}", EXPECTED) from error
    if embedder.fingerprint() != about["sha256"]:
        raise DataError(
            f"reward_model.path: the weights of {embedder.path!r} are not those that the head in {str(folder)!r} was "
            "trained on; expected the same; restore them, or train the head anew"
        )
    return embedder, head.eval()
