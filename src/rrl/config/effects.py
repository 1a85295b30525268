"""Keys without effect: set on a command line or in a file, but read by no part in use."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from inspect import signature
from typing import Any

from rrl.config.choices import targets
from rrl.config.importing import load_class
from rrl.config.spelling import likeliest_key

INTERPOLATION = re.compile(r"\$\{[^{}]*\}")
NAME = re.compile(r"\w+(?:\.\w+)*")
READ = ("algo", "data.name")
"""Keys that name the run; no part needs to read them."""


def without_effect(given: Iterable[str], values: Mapping[str, Any], parts: Iterable[str]) -> list[str]:
    """The ``given`` keys that none of ``parts``, keys of the top level, takes its value from.

    ``values`` has every key of a configuration, references unresolved.
    """
    slots = set(parts)
    read = slots | set(READ) | _named_by(slots, values)
    return [key for key in given if not any(touches(key, name) for name in read)]


def strangers(values: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    """A fault for each key at the top and in ``data`` that is not ``known``, and that no reference or part names.

    ``values`` has every key of a configuration, references unresolved. Such keys come from a user's own files.
    """
    unknown = [key for key in values if key not in known and key.rpartition(".")[0] in ("", "data")]
    if not unknown:
        return []
    named = set[str]().union(*(names(value) for value in values.values() if not isinstance(value, Mapping)))
    classes = [target for key, target in values.items() if key.endswith("_target_")]
    return [
        _fault_of(key, known)
        for key in unknown
        if not any(touches(key, name) for name in named)
        and not any(takes(target, key.removeprefix("data.")) for target in classes)
    ]


def _fault_of(key: str, known: Sequence[str]) -> str:
    if key == "experiment":
        return (
            "experiment: its file does not begin with the line '# @package _global_', so that none of its keys is set"
        )
    meant = likeliest_key(key, known, ())
    return f"{key}: no such key" + (f"; did you mean {meant!r}?" if meant else "")


def touches(key: str, name: str) -> bool:
    """Whether one is the other, or lies below it."""
    return key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.")


def names(value: Any) -> set[str]:
    """The keys that the references in a value name."""
    return {name for text in INTERPOLATION.findall(str(value)) for name in NAME.findall(text)}


def _named_by(keys: set[str], values: Mapping[str, Any]) -> set[str]:
    """Every key that these and the keys below them refer to, directly or through others."""
    links = {key: names(value) & values.keys() for key, value in values.items() if not isinstance(value, Mapping)}
    found: set[str] = set()
    fresh = keys
    while fresh:
        below = [key for key in links if any(key == name or key.startswith(f"{name}.") for name in fresh)]
        fresh = {name for key in below for name in links[key]} - found
        found |= fresh
    return found


def takers_of(key: str, used: Sequence[str]) -> list[str]:
    """The choices for a part in use that would take this key by its name."""
    root, _, below = key.partition(".")
    name = below.partition(".")[0] if root == "data" else root
    found = {f"{slot}={option}": classes for slot in used for option, classes in targets(slot).items()}
    return [
        choice
        for choice, classes in found.items()
        if any(name not in given and takes(target, name) for target, given in classes)
    ]


def takes(target: str | None, name: str) -> bool:
    """Whether the class that a ``_target_`` names, if there is one, takes an argument of this name."""
    found = load_class(str(target), "", []) if target else None
    return found is not None and name in signature(found).parameters


def collected(parts: Any, what: str) -> Iterator[tuple[str, Any]]:
    """The path and the result of the method ``what`` of each part that has one, parts within parts included."""
    for field in fields(parts):
        part = getattr(parts, field.name, None)
        if field.name.startswith("_") or not is_dataclass(part) or isinstance(part, type):
            continue
        if hasattr(part, what):
            yield field.name, getattr(part, what)()
        yield from ((f"{field.name}.{path}", result) for path, result in collected(part, what))
