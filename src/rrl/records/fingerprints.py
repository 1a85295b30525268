"""Content hashes of weights, tokenizers and rows, independent of where they come from."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch


def fingerprint(rows: Iterable[Any]) -> str:
    """SHA-256, in hex, of the rows as canonical JSON lines, in their order; independent of file format and key order.

    Values that JSON cannot represent count as their ``str``.
    """
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
        digest.update(f"{line}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Of the vocabulary and its rules, the special tokens and the chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    return fingerprint([rules, tokenizer.special_tokens_map, tokenizer.chat_template])


def weights_fingerprint(weights: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Of every tensor of a model's state, bit by bit, with its name; they are given in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in weights:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
