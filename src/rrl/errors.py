"""Faults that a user can mend: the command line prints them without a traceback and exits with code 2."""

from collections.abc import Sequence
from typing import Any


class UsageError(Exception):
    """Faults in what the user gave; each names the key or item, the value, what was expected and the remedy."""

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
    """A part returned something else than what ``interfaces.py`` says. What was saved before stays."""

    heading = "a part does not keep its contract"


class DivergenceError(UsageError):
    """Training met a number that is not finite. What was saved before stays."""

    heading = "training stopped"


class ServiceError(UsageError):
    """A service that was asked over the network will not answer, whoever asks how often. What it answered stays."""

    heading = "a service cannot be used"


class StorageError(UsageError):
    """There is no room to write. What was saved before stays."""

    heading = "cannot save"


def shown(value: Any) -> str:
    """A value as a user would write it."""
    if isinstance(value, tuple):
        value = list(value)
    return "null" if value is None else repr(value)
