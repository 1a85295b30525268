"""Where an error of a user's own code arose, and what it says, in a line."""

import sysconfig
import traceback
from pathlib import Path
from typing import Any

OURS = str(Path(__file__).parents[1])
LIBRARY, *PLACES = (sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
PACKAGES = tuple(PLACES)
MOST = 300
"""Characters of what an error says."""


def raised(error: BaseException, otherwise: str = "no line of Python") -> str:
    """File and line of a user's own, or ``otherwise`` where there is none, with what the error says."""
    return f"{line(error) or otherwise}: {words(error)}"


def named(part: Any, method: str) -> str:
    """A method of a part by its full name."""
    return f"{type(part).__module__}.{type(part).__qualname__}.{method}"


def line(error: BaseException) -> str | None:
    """File and line that failed: of a user's own, else of a package that is installed; never of ours."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OURS)]
    packages = [frame for frame in frames if frame.filename.startswith(PACKAGES)]
    own = [frame for frame in frames if not frame.filename.startswith((*PACKAGES, LIBRARY, "<frozen"))]
    found = own or packages
    return f"{found[-1].filename}, line {found[-1].lineno}" if found else None


def words(error: BaseException) -> str:
    """Its type and the first line of its text, whatever its own ``str`` does."""
    try:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception as other:  # it is a stranger's
        said = f"<{type(other).__name__} in its str>"
    return f"{type(error).__name__}: {said}".removesuffix(": ").split("\n")[0][:MOST]
