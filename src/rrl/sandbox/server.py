"""The parent's side of one warm server: starts it, asks it, and gives it up when it does not answer."""

import contextlib
import json
import logging
import os
import secrets
import select
import socket
import struct
import subprocess
import tempfile
import time
from typing import Any

from rrl.sandbox import start
from rrl.sandbox.limits import Limits

log = logging.getLogger(__name__)
LENGTH = struct.Struct("!I")
STARTING = 60.0
"""Seconds that a server may take to start."""
GRACE = 20.0
"""Seconds beyond the program's own limit after which a server is given up; on a busy machine all takes longer."""
PARTING = 2.0
"""Seconds that a server has to end by itself."""
CLEARING = 10.0
"""Seconds that are waited for the folder of a server that did not clear it; then this goes on beside us."""
Answer = tuple[dict[str, Any], bytes, bytes]


class ServerLost(Exception):
    """The server ended, or does not answer."""


class Server:
    """One warm server. Only one thread may ask it; another may close it meanwhile.

    Not ``filtered``: programs may make any system call. Without ``own_user`` root's programs remain root's.
    """

    def __init__(self, level: start.Level, limits: Limits, *, filtered: bool = True, own_user: bool = True) -> None:
        self._limits = limits
        # the server makes it, so that there is nobody who leaves it behind when this process is killed
        self._folder = f"{tempfile.gettempdir()}/rrl-sandbox-{secrets.token_hex(8)}" if level == "rlimits" else ""
        try:
            self._line, theirs = socket.socketpair()
            self._errors = os.memfd_create("errors")
        except OSError as error:
            raise ServerLost(str(error)) from error
        try:
            with theirs:
                self._process = subprocess.Popen(
                    start.command(level, limits, self._folder, filtered=filtered, own_user=own_user),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    env=start.ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as error:
            self._tidy()
            raise ServerLost(str(error)) from error
        try:
            self._receive(time.monotonic() + STARTING)
        except ServerLost:
            self.close()
            raise

    def ask(self, request: bytes) -> Answer:
        """Have one program run on one input: how it ended, what it printed, its report."""
        deadline = time.monotonic() + self._limits.wall_seconds + GRACE
        try:
            self._line.settimeout(GRACE)
            self._line.sendall(LENGTH.pack(len(request)) + request)
        except OSError as error:
            raise self._lost(str(error)) from error
        header = self._receive(deadline)
        return header, self._exactly(header["output"], deadline), self._exactly(header["report"], deadline)

    def _receive(self, deadline: float) -> dict[str, Any]:
        size = LENGTH.unpack(self._exactly(LENGTH.size, deadline))[0]
        try:
            header: dict[str, Any] = json.loads(self._exactly(size, deadline))
        except ValueError as error:
            raise self._lost("the server's answer cannot be read") from error
        return header

    def _exactly(self, size: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            try:
                if not select.select([self._line], [], [], max(0.0, deadline - time.monotonic()))[0]:
                    raise self._lost("the server does not answer")
                part = self._line.recv(min(size - len(parts), 2**20))
            except (OSError, ValueError) as error:  # ValueError: another thread closed the socket
                raise self._lost(str(error)) from error
            if not part:
                raise self._lost("the server ended")
            parts += part
        return bytes(parts)

    def _lost(self, why: str) -> ServerLost:
        """With the last words of the server, if there were any."""
        with contextlib.suppress(OSError):
            words = os.pread(self._errors, 2**16, 0).decode("utf-8", "replace").strip().splitlines()
            return ServerLost(f"{why}: {words[-1]}" if words else why)
        return ServerLost(why)

    def hang_up(self) -> None:
        """From any thread: the server stops what it does and ends, and who waits for its answer is told."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the server and leave nothing of it behind."""
        self.hang_up()
        try:
            self._process.wait(PARTING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._tidy()

    def _tidy(self) -> None:
        self._line.close()
        os.close(self._errors)
        if self._folder:
            _remove(self._folder)

    def forget(self) -> None:
        """In a fork of the process that started it: let go without touching it."""
        self._line.close()
        os.close(self._errors)


def _remove(folder: str) -> None:
    """In a process of its own, which nothing that a program left can keep here or take along with it."""
    if not os.path.lexists(folder):
        return
    try:
        process = subprocess.Popen(
            start.clearing(folder), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        if process.wait(CLEARING) != 0:
            log.warning("a folder of the sandbox could not be removed; remove it: %s", folder)
    except subprocess.TimeoutExpired:
        log.warning("a program of the sandbox has left so many files that removing them goes on: %s", folder)
    except OSError as error:
        log.warning("a folder of the sandbox could not be removed (%s); remove it: %s", error, folder)
