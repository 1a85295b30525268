"""Calls of a user's parts: errors name kind, class, method, file and line."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rrl.contracts.tracebacks import named, raised
from rrl.errors import PartError, UsageError


@contextmanager
def calling(kind: str, part: Any, method: str) -> Iterator[None]:
    """Raise PartError, with the error as its cause, for errors of a user's part; UsageError and others pass."""
    try:
        yield
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        if not is_own(part):
            raise
        failure = f"{named(part, method)} failed ({raised(error, _beginning(part, method))})"
        raise PartError(f"{kind}: {failure}; fix this class (docs/adding-a-part.md)") from error


def is_own(part: Any) -> bool:
    """Whether a part's class is a user's own."""
    return type(part).__module__.partition(".")[0] != "rrl"


def _beginning(part: Any, method: str) -> str:
    """The first line of the method, for a call that failed before it."""
    found = inspect.getattr_static(type(part), method, None)
    function = getattr(found, "fget", None) or getattr(found, "__func__", None) or found
    code = getattr(function, "__code__", None)
    return "no line of Python" if code is None else f"{code.co_filename}, line {code.co_firstlineno}"
