"""What a model can read: so many tokens in a row, and of a tokenizer's tokens those that it embeds."""

from collections.abc import Iterable, Sequence
from typing import Any

from rrl.errors import DataError

SHOWN = 10
"""The number of texts that an error names; the rest are counted."""


def embedded(model: Any) -> int:
    """The number of tokens that a model embeds."""
    return int(model.get_input_embeddings().weight.shape[0])


def context(model: Any) -> int:
    """The longest row that a model can read, in tokens."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9


def agree_on_padding(tokenizer: Any, size: int) -> None:
    """Make EOS the pad token where no pad token is embedded. ValueError where EOS is not embedded either."""
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= size:
        if tokenizer.eos_token_id is None or tokenizer.eos_token_id >= size:
            raise ValueError("its tokenizer has neither a pad nor an EOS token that the model embeds")
        tokenizer.pad_token = tokenizer.eos_token


def known(rows: Iterable[Sequence[int]], size: int) -> list[list[int]]:
    """Rows without the tokens that are not embedded, for readers of arbitrary texts."""
    return [[token for token in row if token < size] for row in rows]


def refuse_beyond(rows: Iterable[tuple[str, Sequence[int]]], tokenizer: Any, size: int) -> None:
    """Raise DataError, naming texts and tokens, where a row (a name and token numbers) has one that is not embedded."""
    found = [
        (name, sorted({token for token in row if token >= size})) for name, row in rows if max(row, default=0) >= size
    ]
    faults = [
        f"{name}: has {_named(beyond, tokenizer)}, but the model embeds {size} tokens; use the tokenizer the model was "
        "trained with, or take it out of the text"
        for name, beyond in found[:SHOWN]
    ]
    if faults:
        raise DataError(*faults, *([f"... and {len(found) - SHOWN} more texts"] if len(found) > SHOWN else []))


def _named(tokens: Sequence[int], tokenizer: Any) -> str:
    names = tokenizer.convert_ids_to_tokens(list(tokens))
    return ", ".join(f"token {token} ({name!r})" for token, name in zip(tokens, names, strict=True))
