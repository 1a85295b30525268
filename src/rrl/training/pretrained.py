"""Models of transformers from folders and hub ids, with their tokenizers; any fault of one becomes one error."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rrl.errors import DataError
from rrl.training.adapters import ALONE, holds_adapter
from rrl.training.tokens import agree_on_padding, embedded
from rrl.training.weight_files import leave_in_files, parameters_on_meta

Refuse = Callable[[object], DataError]
"""Makes the error from the reason: an exception, or words."""


def load_pretrained(
    auto_class: str, path: str, refuse: Refuse, common: Mapping[str, Any], **arguments: Any
) -> tuple[Any, Any, list[str]]:  # fmt: skip
    """A model by the class of this name in transformers, its tokenizer, and the names of missing weights.

    The tokenizer has a pad token: its own, or else EOS. ``common`` are arguments of both. Raises what
    ``refuse`` makes where one cannot be read, or where neither a pad nor an EOS token is embedded.
    """
    import transformers

    if holds_adapter(path):
        raise refuse(ALONE)
    with refusing(refuse):
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **common)
        model, report = getattr(transformers, auto_class).from_pretrained(
            path, output_loading_info=True, **common, **arguments
        )
        agree_on_padding(tokenizer, embedded(model))
    return model, tokenizer, sorted(report["missing_keys"])


def with_weights_in_files(path: str, config: Any, common: Mapping[str, Any], **arguments: Any) -> Any:
    """The causal language model that ``load_pretrained`` would give, but its weights stay in their files.

    Returns why instead where the files do not hold them one by one, under the model's names.
    """
    from transformers import AutoModelForCausalLM
    from transformers.conversion_mapping import get_model_conversion_mapping

    if "auto_map" in config.to_dict() or getattr(config, "quantization_config", None):
        return "its code is its own, or it is quantized"
    generation = arguments.pop("generation_config")
    with parameters_on_meta():
        model = AutoModelForCausalLM.from_config(config, **arguments)
    if get_model_conversion_mapping(model, add_legacy=False):
        return "transformers converts it while it reads"
    if why := leave_in_files(model, _files_of_weights(path, common["revision"])):
        return why
    model.generation_config = generation or _generation_config(path, common["revision"])
    return model.eval()


def _generation_config(path: str, revision: str | None) -> Any:
    """That of the model or, where it has none, of the values in its configuration."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(path, revision=revision)
    except OSError:
        return GenerationConfig.from_pretrained(
            path, config_file_name="config.json", revision=revision, _from_model_config=True
        )


def _files_of_weights(path: str, revision: str | None) -> dict[str, str]:
    """The safetensors file of each weight by its name; none where the weights have another format."""
    from safetensors import safe_open

    if whole := _found(path, "model.safetensors", revision):
        with safe_open(whole, framework="pt") as file:
            return dict.fromkeys(file.keys(), whole)
    index = _found(path, "model.safetensors.index.json", revision)
    if index is None:
        return {}
    names = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
    files = {file: str(_found(path, file, revision)) for file in set(names.values())}
    return {name: files[file] for name, file in names.items()}


def _found(path: str, name: str, revision: str | None) -> str | None:
    """A file of the folder or hub id, downloaded if need be; None where there is none."""
    from transformers.utils import cached_file

    try:
        return str(cached_file(path, name, revision=revision))
    except OSError:
        return None


@contextmanager
def refusing(refuse: Refuse) -> Iterator[None]:
    """Turn any error but a DataError into what ``refuse`` makes of it."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a broken folder can raise nearly anything
        raise refuse(error) from error


def unreadable(key: str, path: object, reason: object, expected: str) -> DataError:
    """The error for a folder or hub id that is not what was expected."""
    return DataError(
        f"{key}: {str(path)!r} cannot be used ({' '.join(str(reason).split())[:300]}); expected {expected}"
    )
