"""What is logged: on the terminal or in a file, and one log a rank (logs/rank-0.log) in the run's directory."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from rrl.processes.stopping import has_parent
from rrl.records.console import on_terminal
from rrl.records.secrecy import Redacting
from rrl.records.texts import visible

log = logging.getLogger(__name__)
STAMP = "%Y-%m-%dT%H:%M:%S%z"
"""Local time with its distance from UTC, as ISO 8601 has it."""


class _Visible(Redacting):
    """Lines without secrets, in which nothing steers the terminal that shows them."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class _File(logging.StreamHandler[IO[str]]):
    """Writes what the disk takes: that it is full is said by what is saved, not by its log."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Pass over the record."""


def set_up_logging() -> None:
    """Our own messages at level INFO, other people's from WARNING on; with time stamps unless a person looks on.

    A person sees progress as a bar, and no lines of it.
    """
    handler = logging.StreamHandler()
    watched = on_terminal()
    if watched:
        handler.addFilter(lambda record: record.name != "rrl.records.progress")
    handler.setFormatter(_Visible("%(message)s" if watched else "%(asctime)s %(message)s", STAMP))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("rrl").setLevel(logging.INFO)


def tell(lines: Sequence[str]) -> None:
    """Log each of the lines."""
    for line in lines:
        log.info("%s", line)


def tell_twice(lines: Sequence[str]) -> None:
    """Log them now and, where Python ends with a traceback, again below it."""
    tell(lines)
    before = sys.excepthook

    def below(*error: Any) -> None:
        before(*error)
        tell(lines)

    sys.excepthook = below


@contextmanager
def open_log(folder: Path, rank: int) -> Iterator[IO[str]]:
    """Append what is logged to this rank's file; all that ranks but the first print goes there too.

    So do the first one's last words when it fails and its parent tells the reason.
    """
    path = folder / "logs" / f"rank-{rank}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8", errors="backslashreplace")
    handler = _File(file)
    handler.setFormatter(_Visible("%(asctime)s %(levelname)s %(message)s", STAMP))
    if rank > 0:
        _print_to(file)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield file
    except BaseException:
        if has_parent():
            _print_to(file)
        raise
    finally:
        root.removeHandler(handler)
        with suppress(OSError):
            file.close()


def _print_to(file: IO[str]) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file.fileno(), stream.fileno())
