"""Calls of a user's parts: errors name kind, class, method, file, line and text, in one line."""

import inspect
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rrl.errors import PartError, UsageError

OURS = str(Path(__file__).parents[1])
LIBRARY, *PLACES = (sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
PACKAGES = tuple(PLACES)
MOST = 300
"""Characters of an error's text."""


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


def raised(error: BaseException, otherwise: str = "no line of Python") -> str:
    """File and line of the error, or ``otherwise`` without any, and its text."""
    return f"{failing_line(error) or otherwise}: {error_text(error)}"


def named(part: Any, method: str) -> str:
    """The full name of a part's method."""
    return f"{type(part).__module__}.{type(part).__qualname__}.{method}"


def failing_line(error: BaseException) -> str | None:
    """File and line of the user's code, else of an installed package; never of rrl."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OURS)]
    packages = [frame for frame in frames if frame.filename.startswith(PACKAGES)]
    own = [frame for frame in frames if not frame.filename.startswith((*PACKAGES, LIBRARY, "<frozen"))]
    found = own or packages
    return f"{found[-1].filename}, line {found[-1].lineno}" if found else None


def error_text(error: BaseException) -> str:
    """The error's type and the first line of its text; safe against errors in its ``str``."""
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception as other:  # a user's ``str`` may raise anything
        text = f"<{type(other).__name__} in its str>"
    return f"{type(error).__name__}: {text}".removesuffix(": ").split("\n")[0][:MOST]
