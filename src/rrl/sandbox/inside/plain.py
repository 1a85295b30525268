"""A function's value as JSON data, free of the program's own classes."""

import json
from typing import Any

DEEPEST = 100
MOST_BITS = 14_000
"""The most bits of an integer: about 4,200 digits, which Python can read again."""


def data(value: Any, depth: int = 0) -> Any:
    """Tuples become lists, keys of dictionaries texts; TypeError for anything that is not data.

    Values are read by the methods of the built-in types, so that a subclass cannot override them.
    """
    if depth > DEEPEST:
        raise RecursionError(f"the returned value is nested more than {DEEPEST} deep")
    if isinstance(value, list):
        return [data(each, depth + 1) for each in list.__iter__(value)]
    if isinstance(value, tuple):
        return [data(each, depth + 1) for each in tuple.__iter__(value)]
    if isinstance(value, dict):
        return {_key(key): data(each, depth + 1) for key, each in dict.items(value)}
    return _single(value)


def _single(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if not isinstance(value, int):
        raise TypeError(f"a {type(value).__name__} was returned, which is not JSON data")
    if int.bit_length(value) > MOST_BITS:
        raise ValueError("an integer of more than 4,200 digits was returned")
    return int.__int__(value)


def _key(key: Any) -> str:
    single = _single(key)
    return single if isinstance(single, str) else json.dumps(single)
