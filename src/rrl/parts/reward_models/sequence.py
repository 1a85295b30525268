"""A reward model in the format of transformers: a sequence-classification model with one output."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch

from rrl.contracts.judging import RewardModel
from rrl.errors import DataError
from rrl.parts.reward_models.reading import Count, Reading, batches, context_of
from rrl.processes.distributed import device
from rrl.ranges import at_least_one, check_ranges
from rrl.training.pretrained import load_pretrained, unreadable
from rrl.training.tokens import embedded, known

ABOUT = "reward_model.json"
"""What rrl-reward-model writes beside the weights: the reading that the model was trained on."""
EXPECTED = "a folder or hub id of a sequence-classification model with one output, as rrl-reward-model makes"


@dataclass(kw_only=True)
class SequenceRewardModel(RewardModel):
    """Any such model, by local folder or hub id ``path`` (and ``revision``).

    ``reading`` says how prompt and response become one text; ``batch_size`` texts go through the model together, in
    ``dtype``. Padding is on the right and changes no number beyond rounding.
    """

    path: str | None
    revision: str | None
    reading: Reading
    batch_size: int
    dtype: Literal["float32", "bfloat16"]
    trust_remote_code: bool
    _count: Count = field(init=False, default_factory=Count)

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("batch_size"))
        if not self.path:
            raise ValueError("path: missing; give a folder or hub id, as in reward_model.path=runs/reward-model")

    def start(self) -> None:
        _ = self._loaded

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The model's single logit for each pair."""
        model, tokenizer = self._loaded
        rows = known(self.reading.tokens(pairs, tokenizer, context_of(model, tokenizer), self._count), embedded(model))
        scores = [0.0] * len(rows)
        with torch.no_grad():
            for places, tokens, attention in batches(rows, self.batch_size, tokenizer.pad_token_id):
                logits = model(input_ids=tokens, attention_mask=attention).logits[:, 0].float()
                for place, score in zip(places, logits.tolist(), strict=True):
                    scores[place] = score
        return scores

    def described(self) -> dict[str, Any]:
        about = {"kind": "sequence", "path": self.path, "revision": self.revision, "reading": asdict(self.reading)}
        return {**about, "texts": self._count.texts, "cut": self._count.cut}

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        path = os.path.expanduser(str(self.path))
        _refuse_other_layout(Path(path), self.reading)
        common = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        model, tokenizer = load_sequence_model(path, getattr(torch, self.dtype), common)
        return model.to(device()).eval(), tokenizer


def load_sequence_model(path: str, dtype: torch.dtype, common: dict[str, Any]) -> tuple[Any, Any]:
    """Model and tokenizer. Raises DataError for anything but a trained head with one output."""
    refuse = partial(unreadable, "reward_model.path", path, expected=EXPECTED)
    auto_class = "AutoModelForSequenceClassification"
    model, tokenizer, missing = load_pretrained(auto_class, path, refuse, common, dtype=dtype)
    if missing:
        raise refuse(f"it has no weights for {', '.join(missing[:3])}: a model without a reward head")
    if model.config.num_labels != 1:
        raise refuse(f"its head has {model.config.num_labels} outputs, not 1")
    # The model finds the end of a text by the token that pads.
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def _refuse_other_layout(folder: Path, reading: Reading) -> None:
    """Refuse a model that was trained on another layout, or of another kind."""
    if not (folder / ABOUT).is_file():
        return
    try:
        taught = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        kind = taught["kind"]
        layout = taught["reading"]["layout"] if kind == "sequence" else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable("reward_model.path", folder, f"{ABOUT}: {type(error).__name__}: {error}", EXPECTED) from error
    if kind != "sequence":
        raise unreadable("reward_model.path", folder, f"it is of kind {kind}", f"reward_model={kind}")
    if layout != reading.layout:
        raise DataError(
            f"reward_model.reading.layout: {reading.layout!r}, but the reward model in {str(folder)!r} was trained on "
            f"{layout!r}; expected the same"
        )
