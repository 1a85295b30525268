"""The parent's side of one warm server: starts it, asks it, and gives it up when it does not answer."""

import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rrl.sandbox.limits import Limits

SERVE = Path(__file__).parent / "inside" / "serve.py"
LENGTH = struct.Struct("!I")
STARTING = 60.0
"""Seconds that a server may take to start."""
GRACE = 10.0
"""Seconds beyond the program's own limit after which a server is given up."""


class ServerLost(Exception):
    """The server ended, or does not answer."""


class Server:
    """One warm server and its folder."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._folder = tempfile.mkdtemp(prefix="rrl-sandbox-")
        self._line, theirs = socket.socketpair()
        settings = json.dumps({"limits": asdict(limits), "folder": self._folder})
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-E", str(SERVE), settings],
                stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={}, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        self._receive(time.monotonic() + STARTING)

    def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes, bytes]:
        """Have one program run on one input: how it ended, what it printed, its report."""
        text = json.dumps(request).encode()
        deadline = time.monotonic() + self._limits.wall_seconds + GRACE
        try:
            self._line.settimeout(GRACE)
            self._line.sendall(LENGTH.pack(len(text)) + text)
        except OSError as error:
            raise ServerLost(str(error)) from error
        header = self._receive(deadline)
        return header, self._exactly(header["output"], deadline), self._exactly(header["report"], deadline)

    def _receive(self, deadline: float) -> dict[str, Any]:
        size = LENGTH.unpack(self._exactly(LENGTH.size, deadline))[0]
        header: dict[str, Any] = json.loads(self._exactly(size, deadline))
        return header

    def _exactly(self, size: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            if not select.select([self._line], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise ServerLost("the server does not answer")
            try:
                part = self._line.recv(min(size - len(parts), 2**20))
            except OSError as error:
                raise ServerLost(str(error)) from error
            if not part:
                raise ServerLost("the server ended")
            parts += part
        return bytes(parts)

    def close(self) -> None:
        """End the server and remove its folder."""
        self._line.close()
        try:
            self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def forget(self) -> None:
        """In a fork of the process that started it: let go without touching it."""
        os.close(self._line.detach())
