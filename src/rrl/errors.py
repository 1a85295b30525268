"""Faults that a user can fix, printed without a traceback, with exit code 2; the valid name closest to a wrong one."""

import difflib
from collections.abc import Sequence
from typing import Any


class UsageError(Exception):
    """Faults in a user's input; each names the key or item, the value, what was expected and the remedy."""

    heading = "cannot go on"

    def __init__(self, *faults: str) -> None:
        super().__init__(*faults)
        self.faults: Sequence[str] = faults

    def __str__(self) -> str:
        return "\n  ".join([f"{type(self).__name__}: {self.heading}:", *self.faults])


class ConfigError(UsageError):
    """The configuration does not fit the code."""

    heading = "config does not fit the code"


class DataError(UsageError):
    """A data set, a model or a tokenizer on disk is not what was expected."""

    heading = "data does not fit"


class ContractError(DataError):
    """A part broke its contract in ``interfaces.py``. What was saved before stays."""

    heading = "a part does not keep its contract"


class PartError(ContractError):
    """A user's own part raised an error, the cause of this one. What was saved before stays."""

    heading = "a part of your own failed"


class DivergenceError(UsageError):
    """Training met a number that is not finite. What was saved before stays."""

    heading = "training stopped"


class ServiceError(UsageError):
    """A network service fails permanently. Its earlier answers stay."""

    heading = "a service cannot be used"


class StorageError(UsageError):
    """There is no room to write. What was saved before stays."""

    heading = "cannot save"


def shown(value: Any) -> str:
    """A value as in YAML."""
    if isinstance(value, tuple):
        value = list(value)
    return "null" if value is None else repr(value)


def nearest(name: str, valid: Sequence[str]) -> str:
    """``"; did you mean 'x'?"`` with the valid name closest to ``name``, or a list of all when none is close."""
    near = closest(name, valid)
    if near:
        return f"; did you mean {near!r}?"
    return f"; valid: {', '.join(sorted(valid))}" if len(valid) <= 20 else ""


def closest(name: str, valid: Sequence[str]) -> str | None:
    """The valid name most similar to ``name``, if any is similar enough."""
    best = max(valid, key=lambda candidate: likeness(name, candidate), default="")
    return best if best and likeness(name, best) >= 0.6 else None


def likeness(name: str, candidate: str) -> float:
    """The similarity of two names, 0 to 1; a match of a single word of the candidate counts 5 % less."""
    words = [ratio(name, word) for word in candidate.split("_")]
    return max(ratio(name, candidate), 0.95 * max(words))


def ratio(name: str, candidate: str) -> float:
    return difflib.SequenceMatcher(None, name, candidate).ratio()
