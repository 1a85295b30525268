"""The main program of a worker process: answers one item after another, each within limits; see ``workers.py``.

Uses only the standard library, so that a worker loads no more than its own work needs.
"""

import json
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

ReportPhase = Callable[[str], None]
Work = Callable[[Any, ReportPhase], Any]
"""Turns an item into a result, both plain data; reports each phase before it begins, in case it dies there."""

LENGTH = 4
"""Bytes of the length before each message; see ``rrl.processes.warm_child``."""
ORPHANED = 5.0
"""Seconds between two checks of an idle worker whether its parent still lives."""


def serve(load: Callable[[], Work]) -> None:
    """Run a worker: ``python -m module SECONDS MEMORY_MB``; stdin is a socket, for items and answers as JSON.

    A worker that uses more than SECONDS of processor time for an item is ended by the operating system, even inside
    compiled code and even when its parent is gone. Memory beyond MEMORY_MB raises MemoryError, after which it leaves.
    """
    seconds, memory_mb = float(sys.argv[1]), int(sys.argv[2])
    try:
        work = load()
    except Exception as error:
        _say({"failed": f"{type(error).__name__}: {error}"})
        return
    _limit(memory_mb)
    _say({"ready": True})
    for item in _items():
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF, which has no handler, ends the process
        answer = _answer(work, item)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say(answer)
        if answer["end"] == "memory":
            return


def _answer(work: Work, item: bytes) -> dict[str, Any]:
    try:
        return {"end": "done", "value": work(json.loads(item), lambda phase: _say({"phase": phase}))}
    except MemoryError:
        return {"end": "memory"}
    except Exception as error:  # of whatever kind: the parent decides whose fault it is
        return {"end": "raised", "message": f"{type(error).__name__}: {str(error)[:200]}"}


def _limit(memory_mb: int) -> None:
    size = memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it writes no file


def _items() -> Iterator[bytes]:
    """Items, each after its length, until the end, or until the parent is another process than at the start."""
    parent, heard = os.getppid(), b""
    while True:
        ready, _, _ = select.select([0], [], [], ORPHANED)
        if not ready and os.getppid() != parent:
            return
        chunk = os.read(0, 2**16) if ready else b""
        if ready and not chunk:
            return
        heard += chunk
        if len(heard) >= LENGTH and len(heard) == LENGTH + int.from_bytes(heard[:LENGTH], "big"):
            yield heard[LENGTH:]
            heard = b""


def _say(message: dict[str, Any]) -> None:
    text = json.dumps(message).encode()
    data = len(text).to_bytes(LENGTH, "big") + text
    while data:
        data = data[os.write(0, data) :]
