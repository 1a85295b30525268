"""What the forked process does to become the program: descriptors, limits; then it reports and is gone."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from rrl.sandbox.inside import program, streams
from rrl.sandbox.inside.cell import Cell

REPORT = 1000
"""The descriptor of the report."""
RESERVE = 2**21
"""Bytes of memory that are free again when the program has used up all of its own."""
READY, COMPILED = b"R", b"C"
"""What the report's pipe says as the process gets on."""


def become(request: Mapping[str, Any], cell: Cell, pipes: dict[str, int], nonce: bytes) -> None:
    """Turn this process into the program; never returns."""
    code = 1
    try:
        reserve = [bytes(RESERVE)]
        _prepare(cell, pipes)
        path = f"{os.getcwd()}/program.py"
        sys.argv, sys.path[:0] = [path], [os.path.dirname(path)]
        os.write(REPORT, READY)
        told = program.run(request, path, lambda: os.write(REPORT, COMPILED))
        code = 0 if told["status"] == "ended" else 1
        reserve.clear()
        text = program.as_text(told, cell.limits["output_kb"] * 2**10)
        program.write(nonce + text + nonce, REPORT)
    finally:
        os._exit(code)


def _prepare(cell: Cell, pipes: dict[str, int]) -> None:
    """All that must be so before a line of the program runs; the report's pipe tells what went wrong."""
    try:
        os.setsid()
        for descriptor, name in enumerate(("input", "output", "errors")):
            os.dup2(pipes[name], descriptor)
        os.dup2(pipes["report"], REPORT, inheritable=False)
        os.closerange(3, REPORT)  # nothing that the server had open stays open
        pipes["report"] = REPORT
        streams.open_all()
        cell.confine()
    except BaseException as error:
        program.write(repr(error).encode(), pipes["report"])
        raise
