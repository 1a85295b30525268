"""Ends the processes that a program leaves behind, where it has no process namespace of its own."""

import contextlib
import os
import signal
import time

PATIENCE = 5.0
"""Seconds within which killed processes must end."""


def end_orphans(pid: int, user: int | None) -> None:
    """End children of this process and processes of the program's user; TimeoutError if some do not end."""
    children = f"/proc/self/task/{os.getpid()}/children"
    deadline = time.monotonic() + PATIENCE
    while orphans := _content(children).split():
        if time.monotonic() > deadline:
            raise TimeoutError("processes of a program cannot be ended")
        _kill_all_of(user)
        for each in (-pid, *map(int, orphans)):
            _kill(each)
        _reap()


def _content(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 2**16)
    finally:
        os.close(descriptor)


def _kill_all_of(user: int | None) -> None:
    """Kill all at once: programs may fork faster than processes are counted."""
    if user is None:
        return
    killer = os.fork()
    if killer == 0:
        try:
            os.setresuid(user, user, user)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(killer, 0)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.kill(pid, signal.SIGKILL)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):  # none is left
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
