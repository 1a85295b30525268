"""What is printed reaches its reader or does no harm: one that has gone, one that reads no Unicode, none at all."""

import io
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def open_streams() -> None:
    """Have every standard stream open, and print what its encoding lacks as an escape."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: else the next file that is opened takes its number
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printed(work: Callable[[], int]) -> int:
    """The code of the work when all that it printed is written; quiet, and 0, when its reader has seen enough."""
    try:
        code = _code(work)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except OSError:
        lost = _lost()
        if lost is None:
            raise  # of something else
        return lost


def _code(work: Callable[[], int]) -> int:
    try:
        return work()
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        return end.code


def _lost() -> int | None:
    """What the command ends with when an output cannot be written, which then goes nowhere; None when all can be."""
    unread = [stream for stream in (sys.stdout, sys.stderr) if _unread(stream)]
    try:
        sys.stdout.flush()  # what could not be written is still there
    except OSError as error:
        if not unread:
            print(f"standard output: nothing can be written to it ({error.strerror})", file=sys.stderr)
        _silence(sys.stdout)
        return 0 if unread else 1
    for stream in unread:
        _silence(stream)
    return 0 if unread else None


def _silence(stream: Any) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _unread(stream: Any) -> bool:
    """Whether a stream is a pipe that nobody reads."""
    with suppress(OSError, ValueError):  # no file, or closed
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    return False
