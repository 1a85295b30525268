"""The standard streams of a program, opened and flushed as CPython does it for ``python program.py < input | cat``."""

import io
import os
import sys
from typing import Any, TextIO

ERRORS = {"stdin": "surrogateescape", "stdout": "surrogateescape", "stderr": "backslashreplace"}
"""By stream: what becomes of bytes that are no UTF-8; CPython does so where the environment names no language."""


def open_all() -> None:
    """New streams on the descriptors 0, 1 and 2, once for all programs.

    What streams can do they find out here, on a file and two pipes, which is what each program has there.
    """
    end, pipe = os.pipe()
    file = os.memfd_create("input")
    for descriptor, (name, like) in enumerate(zip(ERRORS, (file, pipe, pipe), strict=True)):
        stream = _opened_as(like, descriptor, name)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    for each in (end, pipe, file):
        os.close(each)


def _opened_as(like: int, descriptor: int, name: str) -> TextIO:
    """What this process has there stays."""
    kept = os.dup(descriptor)
    os.dup2(like, descriptor)
    stream = _opened(descriptor, name)
    os.dup2(kept, descriptor)
    os.close(kept)
    return stream


def _opened(descriptor: int, name: str) -> TextIO:
    """Line by line as ``create_stdio`` in CPython's pylifecycle.c."""
    mode = "r" if descriptor == 0 else "w"
    buffer: Any = open(descriptor, f"{mode}b", closefd=False)  # noqa: SIM115
    buffer.raw.name = f"<{name}>"
    text = io.TextIOWrapper(buffer, "utf-8", ERRORS[name], "\n", line_buffering=name == "stderr")
    text.mode = mode  # type: ignore[misc]
    return text


def flush() -> None:
    """Of ``sys.stdout``."""
    if sys.stdout is not None and not _closed(sys.stdout):
        sys.stdout.flush()


def take_back() -> None:
    """The streams of the beginning in place of those that the program has put there."""
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def _closed(stream: TextIO) -> bool:
    """False for a detached one too, as in CPython, which then fails to flush it."""
    try:
        return stream.closed
    except (AttributeError, ValueError):
        return False
