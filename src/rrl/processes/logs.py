"""Logging: on the terminal or in a file, and in one log for each rank (logs/rank-0.log) of the run's directory."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from rrl.processes.stopping import has_parent
from rrl.records.console import on_terminal
from rrl.records.secrecy import redacted
from rrl.records.texts import visible

log = logging.getLogger(__name__)
STAMP = "%Y-%m-%dT%H:%M:%S%z"
"""Local time with its offset from UTC, as in ISO 8601."""


class Redacting(logging.Formatter):
    """Lines and tracebacks without secrets and without terminal controls."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(redacted(super().format(record)))


class _File(logging.StreamHandler[IO[str]]):
    """A log on a disk that may be full: saving reports that fault, the log does not."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the record."""


def set_up_logging() -> None:
    """This project's messages from INFO on, others from WARNING on; on a terminal without time stamps and progress."""
    handler = logging.StreamHandler()
    terminal = on_terminal()
    if terminal:  # which shows a bar
        handler.addFilter(lambda record: record.name != "rrl.records.progress")
    handler.setFormatter(Redacting("%(message)s" if terminal else "%(asctime)s %(message)s", STAMP))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("rrl").setLevel(logging.INFO)


def log_lines(lines: Sequence[str]) -> None:
    for line in lines:
        log.info("%s", line)


def log_lines_twice(lines: Sequence[str]) -> None:
    """Log the lines now and, where Python ends with a traceback, again below it."""
    log_lines(lines)
    before = sys.excepthook

    def below(*error: Any) -> None:
        before(*error)
        log_lines(lines)

    sys.excepthook = below


@contextmanager
def open_log(folder: Path, rank: int) -> Iterator[IO[str]]:
    """Append log records to this rank's file, and everything that ranks but the first print.

    The first rank's output goes there too after a failure that its parent reports.
    """
    path = folder / "logs" / f"rank-{rank}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8", errors="backslashreplace")
    handler = _File(file)
    handler.setFormatter(Redacting("%(asctime)s %(levelname)s %(message)s", STAMP))
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
