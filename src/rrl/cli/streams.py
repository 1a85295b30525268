"""Standard streams that are closed, without a reader, or without Unicode, handled without a traceback."""

import io
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def open_streams() -> None:
    """Open every closed standard stream, and print characters that an encoding lacks as escapes."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: otherwise the next opened file would take its descriptor
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printed(work: Callable[[], int]) -> int:
    """The exit code of the work, after all output is written; 0, silently, when the reader has closed the pipe."""
    try:
        code = _exit_code(work)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except OSError:
        code_of_output = _output_exit_code()
        if code_of_output is None:
            raise  # of something else
        return code_of_output


def _exit_code(work: Callable[[], int]) -> int:
    try:
        return work()
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        return end.code


def _output_exit_code() -> int | None:
    """The exit code for an output that cannot be written, and is then discarded; None when all can be written."""
    unread = [stream for stream in (sys.stdout, sys.stderr) if _unread(stream)]
    try:
        sys.stdout.flush()  # retry what is still in the buffer
    except OSError as error:
        if not unread:
            print(f"standard output: nothing can be written to it ({error.strerror})", file=sys.stderr)
        _silence(sys.stdout)
        return 0 if unread else 1
    for stream in unread:
        _silence(stream)
    return 0 if unread else None


def _silence(stream: Any) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _unread(stream: Any) -> bool:
    """Whether a stream is a pipe without a reader."""
    with suppress(OSError, ValueError):  # not a file, or closed
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    return False
