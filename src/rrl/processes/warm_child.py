"""A process that stays warm between requests: a socket is its standard input, and its answers come back on it."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from rrl.records.texts import ended_with

Answer = TypeVar("Answer")
LENGTH = struct.Struct("!I")
"""Stands before each message, in both directions."""
STARTING = 60.0
"""Seconds that a process may take to be ready."""
AT_ONCE = 0.001
"""Seconds that are waited for what should be there."""


class Lost(OSError):
    """The process ended or gives no answer. After any OSError it is of no more use."""


class WarmChild(ABC, Generic[Answer]):
    """Starts at once. Only one thread may ask it; any other may hang up.

    ``parting``: seconds that it has to end by itself after that.
    """

    parting: ClassVar[float]

    def __init__(self, command: Sequence[str], **settings: Any) -> None:
        self._ready = False
        self._errors = os.fdopen(os.memfd_create("errors"), "rb")
        self._line, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=self._errors,
                    start_new_session=True,  # Ctrl-C is for the parent
                    **settings,
                )  # fmt: skip
        except OSError:
            self.forget()
            raise

    def ask(self, request: bytes) -> Answer:
        """Its answer, once it is ready. Lost, with its last words, when there is none."""
        try:
            if not self._ready:
                self._greet()
            return self._answer(request)
        except TimeoutError as error:
            raise self._lost("it does not answer") from error
        except ConnectionError as error:
            raise self._lost(ended_with(self.end())) from error

    def hang_up(self) -> None:
        """End the conversation, from any thread; a thread that waits for an answer gets an error."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def end(self) -> int:
        """Hang up and wait; kill it if it takes too long. Returns its exit code."""
        self.hang_up()
        try:
            return self._process.wait(self.parting)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def close(self) -> None:
        """End it and leave nothing of it behind."""
        self.end()
        self.forget()

    def forget(self) -> None:
        """Let go without touching it; in a fork it is not ours."""
        self._line.close()
        self._errors.close()

    @abstractmethod
    def _answer(self, request: bytes) -> Answer:
        """What it answers to a request when it is ready. May raise TimeoutError and ConnectionError."""

    def _greet(self) -> None:
        message = self._receive(time.monotonic() + STARTING)
        if "failed" in message:
            raise Lost(message["failed"])
        self._ready = True

    def _send(self, request: bytes, deadline: float) -> None:
        self._line.settimeout(max(AT_ONCE, deadline - time.monotonic()))
        self._line.sendall(LENGTH.pack(len(request)) + request)

    def _receive(self, deadline: float) -> dict[str, Any]:
        """The next message, a JSON object."""
        size = LENGTH.unpack(self._exactly(LENGTH.size, deadline))[0]
        try:
            message: dict[str, Any] = json.loads(self._exactly(size, deadline))
        except ValueError as error:
            raise self._lost("its answer cannot be read") from error
        return message

    def _exactly(self, size: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            self._line.settimeout(max(AT_ONCE, deadline - time.monotonic()))
            part = self._line.recv(min(size - len(parts), 2**20))
            if not part:
                raise ConnectionError
            parts += part
        return bytes(parts)

    def _lost(self, why: str) -> Lost:
        words = os.pread(self._errors.fileno(), 2**16, 0).decode("utf-8", "replace").strip().splitlines()
        return Lost(": ".join([why, *words[-1:]]))
