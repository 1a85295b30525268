"""Keys without effect: what was set on a command line, and nothing that is in use reads."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

INTERPOLATION = re.compile(r"\$\{[^{}]*\}")
NAME = re.compile(r"\w+(?:\.\w+)*")
READ = ("algo", "data.name")
"""Keys that are read by themselves, as names of a run."""


def without_effect(given: Iterable[str], values: Mapping[str, Any], parts: Iterable[str]) -> list[str]:
    """Of the ``given`` keys those that none of ``parts``, keys of the top level, takes its value from.

    ``values`` has every key of a configuration, whose references are not resolved.
    """
    slots = set(parts)
    read = slots | set(READ) | _named_by(slots, values)
    return [key for key in given if not any(touches(key, name) for name in read)]


def touches(key: str, name: str) -> bool:
    """Whether one is the other, or lies below it."""
    return key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.")


def names(value: Any) -> set[str]:
    """What the references in a value name."""
    return {name for text in INTERPOLATION.findall(str(value)) for name in NAME.findall(text)}


def _named_by(keys: set[str], values: Mapping[str, Any]) -> set[str]:
    """Every key that these, and what lies below them, take values from, however far."""
    links = {key: names(value) & values.keys() for key, value in values.items() if not isinstance(value, Mapping)}
    found: set[str] = set()
    fresh = keys
    while fresh:
        below = [key for key in links if any(key == name or key.startswith(f"{name}.") for name in fresh)]
        fresh = {name for key in below for name in links[key]} - found
        found |= fresh
    return found


def collected(parts: Any, what: str) -> Iterator[tuple[str, Any]]:
    """What each part says by a method ``what``, where it has one, with the part's path; parts within parts too."""
    for field in fields(parts):
        part = getattr(parts, field.name, None)
        if field.name.startswith("_") or not is_dataclass(part) or isinstance(part, type):
            continue
        if hasattr(part, what):
            yield field.name, getattr(part, what)()
        yield from ((f"{field.name}.{path}", said) for path, said in collected(part, what))
