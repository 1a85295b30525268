"""Models of transformers from folders and hub ids, with their tokenizers; any fault of one becomes one error."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rrl.errors import DataError
from rrl.training.adapters import ALONE, holds_adapter
from rrl.training.tokens import agree_on_padding, embedded

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
