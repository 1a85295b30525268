"""What the forked process does before it is the program: streams, folder, limits."""

import gc
import os
import resource
import sys
import threading
from collections.abc import Mapping
from typing import Any

from rrl.sandbox.inside import program

NAME = program.NAME
REPORT = 1000
"""The descriptor of the report, above those that a program may open."""
THREAD_STACK = 2**23
MEGABYTE = 2**20


def become(request: Mapping[str, Any], settings: Mapping[str, Any], pipes: Mapping[str, int], nonce: bytes) -> None:
    """Turn this process into the program; never returns."""
    code = 1
    try:
        os.setsid()
        for descriptor, name in enumerate(("input", "output", "errors")):
            os.dup2(pipes[name], descriptor)
        os.dup2(pipes["report"], REPORT, inheritable=False)
        os.closerange(3, REPORT)
        os.closerange(REPORT + 1, REPORT + 200)
        os.chdir(request["folder"])
        os.environ.clear()
        sys.stdin, sys.stdout, sys.stderr = None, None, None  # type: ignore[assignment]
        program.streams()
        _limit(settings["limits"])
        threading.stack_size(THREAD_STACK)
        gc.freeze()
        report = program.run(
            request["source"], request["function"], request["input"], lambda: _write(b"C")
        )
        program.written(report, nonce, REPORT)
        code = 0
    finally:
        os._exit(code)


def _write(mark: bytes) -> None:
    os.write(REPORT, mark)


def _limit(limits: Mapping[str, Any]) -> None:
    cpu = max(1, -int(-limits["cpu_seconds"] // 1))
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_FSIZE, limits["file_mb"] * MEGABYTE),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_AS, limits["memory_mb"] * MEGABYTE),
    ):
        resource.setrlimit(what, (most, most))
