"""Folders that hold only a low-rank adapter: finding the base model, and merging both."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrl.errors import DataError

ABOUT = "adapter_config.json"
ALONE = f"it holds an adapter ({ABOUT}), which has to be merged into its base model first"
"""The fault of an adapter where only whole models are read."""
REMEDY = (
    f"expected a folder, or a hub id that this machine can reach; write where it is as base_model_name_or_path into "
    f"{ABOUT}, or merge both and give the result"
)
MERGEABLE = ("LORA", "ADALORA", "LOHA", "LOKR", "OFT", "BOFT", "HRA", "VERA", "FOURIERFT", "IA3")
"""Kinds of ``peft`` that are part of the weights once merged; others, such as learnt prompts, are not."""


@dataclass(frozen=True)
class Adapter:
    """An adapter in the folder ``path`` on the model ``base``, a folder or hub id of some ``revision``."""

    path: str
    base: str
    revision: str | None

    def merge(self, model: Any) -> Any:
        """The base model with the adapter in its weights."""
        try:
            from peft import PeftModel
        except ImportError as error:
            raise DataError(
                f"model.path: {self.path!r} holds an adapter, which needs peft ({error}); pip install peft"
            ) from error
        return PeftModel.from_pretrained(model, self.path).merge_and_unload().requires_grad_(True)

    def unreadable(self, why: str) -> DataError:
        """The error for a base that cannot be loaded."""
        return DataError(
            f"model.path: {self.path!r} holds an adapter on {self.base!r}, which cannot be read ({why[:200]}); {REMEDY}"
        )


def holds_adapter(path: str) -> bool:
    """Whether a local folder holds an adapter."""
    return (Path(path) / ABOUT).is_file()


def adapter_of(path: str) -> Adapter | None:
    """The adapter that a local folder holds; None where it holds none. Raises DataError where it cannot be used."""
    file = Path(path) / ABOUT
    if not holds_adapter(path):
        return None
    if any((Path(path) / name).is_file() for name in ("config.json", "model.safetensors")):
        raise DataError(
            f"model.path: {path!r} holds a whole model (config.json) and an adapter ({ABOUT}); expected one of them; "
            "move the files of the other away"
        )
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        kind, base, revision = about["peft_type"], about["base_model_name_or_path"], about.get("revision")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"model.path: {str(file)!r} cannot be read ({type(error).__name__}: {error}); expected what peft writes, "
            "with peft_type and base_model_name_or_path"
        ) from error
    if kind not in MERGEABLE:
        raise DataError(
            f"model.path: {path!r} holds an adapter of kind {kind!r}; expected one that merges: {', '.join(MERGEABLE)}"
        )
    return Adapter(path, _base(path, base), revision)


def _base(path: str, base: Any) -> str:
    """The base: a hub id, or a folder relative to the working directory or to the adapter's own folder."""
    for folder in (Path(str(base)).expanduser(), Path(path) / str(base)):
        if base and folder.is_dir():
            return str(folder)
    if base and not os.path.isabs(str(base)) and str(base).count("/") <= 1 and not str(base).startswith("."):
        return str(base)  # a hub id; loading reports a wrong one
    raise DataError(f"model.path: {path!r} holds an adapter whose base model {base!r} is not there; {REMEDY}")
