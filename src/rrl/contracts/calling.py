"""Calls of parts of a user's own: what they raise is told by kind, class, method, file and line."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rrl.contracts.tracebacks import named, raised
from rrl.errors import PartError, UsageError


@contextmanager
def calling(kind: str, part: Any, method: str) -> Iterator[None]:
    """Turn what a method of a user's own part raises inside into PartError, with the error as its cause.

    A fault that the part tells itself passes, and so does every error of a part of ours.
    """
    try:
        yield
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        if not is_own(part):
            raise
        told = f"{named(part, method)} failed ({raised(error, _beginning(part, method))})"
        raise PartError(f"{kind}: {told}; mend this class (docs/adding-a-part.md)") from error


def is_own(part: Any) -> bool:
    """Whether a part is of a user's own class."""
    return type(part).__module__.partition(".")[0] != "rrl"


def _beginning(part: Any, method: str) -> str:
    """Where the method begins, for a call that did not come as far as its first line."""
    found = inspect.getattr_static(type(part), method, None)
    function = getattr(found, "fget", None) or getattr(found, "__func__", None) or found
    code = getattr(function, "__code__", None)
    return "no line of Python" if code is None else f"{code.co_filename}, line {code.co_firstlineno}"
