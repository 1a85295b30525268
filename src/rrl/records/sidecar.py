"""A program in a separate process beside training, which training neither waits for nor fails with."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rrl.records.texts import ended_with

MOST_WAITING = 64 * 2**20
"""Bytes queued for a program that is starting or slow."""


class SidecarError(Exception):
    """The program has failed or does not answer; it is no longer running."""


class Sidecar:
    """Runs ``python -m module`` in ``folder``; sends it messages as lines of JSON, and receives lines of text.

    A received line that begins with ``failed: `` reports its failure; others are messages to the user. The program's
    input ends when this process ends for any reason.
    """

    def __init__(self, module: str, folder: Path) -> None:
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C reaches only training, which then closes this program
        )
        self._streams: list[Any] = [self._process.stdin, self._process.stdout]
        self._input, self._output = (stream.fileno() for stream in self._streams)
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)
        self._waiting, self._heard = bytearray(), b""

    def send(self, message: Mapping[str, Any]) -> list[str]:
        """Send a message, or queue it while the pipe is full; returns the lines received meanwhile. Never waits.

        Raises SidecarError when the program has failed or the queue exceeds MOST_WAITING.
        """
        self._waiting += (json.dumps(message, default=str) + "\n").encode()
        ended = self._process.poll() is not None
        lines = self._exchange()  # raises the failure that the program reported, if any
        if ended:
            self._fail(ended_with(self._process.returncode))
        if len(self._waiting) > MOST_WAITING:
            self._fail(f"it has not taken {len(self._waiting) // 2**20} MiB")
        return lines

    def close(self, patience: float) -> list[str]:
        """Wait until the program has taken the queue and ended; SidecarError after ``patience`` seconds."""
        lines, end = [], time.monotonic() + patience
        while self._process.poll() is None:
            if time.monotonic() > end:
                self._fail(f"it did not end within {patience:g} s")
            lines += self._exchange()
            select.select([self._output], [self._input] if self._waiting else [], [], 0.1)
        lines += self._exchange()
        if self._process.returncode:
            self._fail(ended_with(self._process.returncode))
        self._hang_up()
        return lines

    def _exchange(self) -> list[str]:
        """Write what the pipe takes, and read the available lines."""
        try:
            del self._waiting[: os.write(self._input, self._waiting)]
        except BlockingIOError:
            pass  # full; the next call continues
        except BrokenPipeError:
            self._waiting.clear()  # it has ended; its report is read below
        heard = b""
        with suppress(BlockingIOError):
            heard = os.read(self._output, 2**16)
        *lines, self._heard = (self._heard + heard).split(b"\n")
        for line in lines:
            if line.startswith(b"failed: "):
                self._fail(line.removeprefix(b"failed: ").decode(errors="replace"))
        return [line.decode(errors="replace") for line in lines]

    def _fail(self, why: str) -> None:
        self._process.kill()
        self._hang_up()
        raise SidecarError(why)

    def _hang_up(self) -> None:
        self._process.wait()
        for stream in self._streams:
            stream.close()
