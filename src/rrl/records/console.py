"""Prints whole lines above a bar on a terminal: the output of this process, its libraries and its children."""

import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO

MOVES = re.compile(r"\x1b\[[0-9;?]*[A-LN-Za-ln-z]|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")
"""Cursor movements and bells: any control sequence except tabs and colours."""
TICK, PATIENCE = 1.0, 2.0
"""Seconds between redrawings, and those after which an incomplete line is shown."""


def on_terminal() -> bool:
    """Whether standard error is a terminal on which a line can be drawn again."""
    return os.environ.get("TERM", "dumb") != "dumb" and sys.stderr.isatty()


class Console:
    """Redirects standard output and error through a pipe while it is open; drawings go to ``terminal``.

    The file descriptors are redirected, which includes subprocesses and C libraries. A thread passes whole lines to
    ``show`` and calls ``tick`` every second.
    """

    def __init__(self, show: Callable[[str], None], tick: Callable[[], None]) -> None:
        self._show, self._tick = show, tick
        self._rest, self._heard, self._lock = b"", time.monotonic(), threading.RLock()
        _flush()
        self._saved = {number: os.dup(number) for number in (1, 2) if os.isatty(number)}
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        self.terminal: IO[str] = open(os.dup(2), "w", encoding=encoding, errors="replace")  # noqa: SIM115
        self._pipe, write = os.pipe()
        for number in self._saved:
            os.dup2(write, number)
        os.close(write)
        self._open, self._over = True, False

    def follow(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._follow, name="console", daemon=True).start()

    def close(self) -> None:
        """Show the remaining lines, and restore output and error."""
        if not self._open:
            return
        _flush()
        for number, saved in self._saved.items():
            os.dup2(saved, number)
            os.close(saved)
        with self._lock:
            self._open = False
            self._over = self._over or self._take()
            self._end_line()

    def _follow(self) -> None:
        """Read until no process can write into the pipe: children may outlive the console."""
        while not self._over:
            ready = select.select([self._pipe], [], [], TICK)[0]
            with self._lock:
                self._over = self._over or (bool(ready) and self._take())
                if self._over or (time.monotonic() - self._heard > PATIENCE and b"\r" not in self._rest):
                    self._end_line()
                if self._open:
                    with suppress(OSError):
                        self._tick()
        os.close(self._pipe)

    def _take(self) -> bool:
        """Show the whole lines in the pipe; returns whether it has ended."""
        while select.select([self._pipe], [], [], 0)[0]:
            chunk = os.read(self._pipe, 2**16)
            if not chunk:
                return True
            *lines, rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._show_line(line)
            drawn = rest.rstrip(b"\r").rfind(b"\r")  # another program's bar: only its last state counts
            self._rest, self._heard = rest[max(0, drawn) :], time.monotonic()
        return False

    def _end_line(self) -> None:
        if self._rest:
            self._show_line(self._rest)
        self._rest = b""

    def _show_line(self, line: bytes) -> None:
        with suppress(OSError):  # the terminal is gone: continue to read, so that writers do not block
            self._show(cleaned(line))


def cleaned(line: bytes) -> str:
    """The visible text of a line, without overwritten text and cursor movements."""
    text = line.decode("utf-8", errors="replace").rstrip("\r")
    return MOVES.sub("", text.rpartition("\r")[2])


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
