"""The parent's side of one warm server: starts it, sends requests, and ends it when it does not answer."""

import logging
import os
import secrets
import subprocess
import tempfile
import time
from typing import Any, ClassVar

from rrl.processes.warm_child import WarmChild
from rrl.sandbox import start
from rrl.sandbox.limits import Limits

log = logging.getLogger(__name__)
GRACE = 20.0
"""Seconds beyond the program's own limit after which a server is lost; long, for busy machines."""
CLEARING = 10.0
"""The longest wait, in seconds, for clearing a server's folder; after that it continues in the background."""
Answer = tuple[dict[str, Any], bytes, bytes]


class Server(WarmChild[Answer]):
    """One warm server. Its answer: the end of a program on one input, its output, its report.

    Not ``filtered``: programs may make any system call. Without ``own_user``, programs started by root run as root.
    """

    parting: ClassVar[float] = 2.0

    def __init__(self, level: start.Level, limits: Limits, *, filtered: bool = True, own_user: bool = True) -> None:
        self._limits = limits
        # the server makes the folder, and removes it even when this process is killed
        self._folder = f"{tempfile.gettempdir()}/rrl-sandbox-{secrets.token_hex(8)}" if level == "rlimits" else ""
        command = start.command(level, limits, self._folder, filtered=filtered, own_user=own_user)
        super().__init__(command, env=start.ENVIRONMENT, cwd="/")

    def _answer(self, request: bytes) -> Answer:
        deadline = time.monotonic() + self._limits.wall_seconds + GRACE
        self._send(request, deadline)
        header = self._receive(deadline)
        return header, self._exactly(header["output"], deadline), self._exactly(header["report"], deadline)

    def close(self) -> None:
        """Remove its folder, too."""
        super().close()
        if self._folder:
            _remove(self._folder)


def _remove(folder: str) -> None:
    """Remove it in a separate process, so that a program's files can neither block nor break this one."""
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
