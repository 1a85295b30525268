"""The file, line and text of an error in a user's code, in one line."""

import sysconfig
import traceback
from pathlib import Path
from typing import Any

OURS = str(Path(__file__).parents[1])
LIBRARY, *PLACES = (sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
PACKAGES = tuple(PLACES)
MOST = 300
"""Characters of an error's text."""


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
