"""The forked process: it reads its request, applies limits, runs the program, reports, and exits."""

import os
import struct
import sys
import time
from typing import Any

from rrl.sandbox.inside import program, request
from rrl.sandbox.inside.cell import Cell

RESERVE = 2**21
"""Bytes of memory that are released for the report, in case the program has used up its own."""
READY, COMPILED, TOLD = b"\x01", b"\x02", b"\x03"
"""The marks in the report's pipe, in order. No line of the program runs before COMPILED."""
SECONDS, LENGTH = struct.Struct("=d"), struct.Struct("=I")
"""After READY: processor time until then. After TOLD: the length of the report, which comes last."""
_exit, _write = os._exit, os.write
"""The originals, in case a program changes them."""


def become(cell: Cell, descriptors: list[int]) -> None:
    """Turn this process into the program; never returns."""
    leave, code = _exit, 1
    try:
        reserve = [bytes(RESERVE)]
        report = cell.report
        source, call = _prepare(cell, *descriptors)
        folder = os.getcwd()
        path = f"{folder}/program.py"
        sys.argv, sys.path[:0] = [path], [folder]
        _write(report, READY + SECONDS.pack(time.process_time()))
        told = program.run(source, call, path, lambda: _write(report, COMPILED))
        code = 0 if told["status"] == "ended" else 1
        reserve.clear()
        text = b"" if told == program.ENDED else program.as_text(told, cell.limits["output_kb"] * 2**10)
        program.write(TOLD + LENGTH.pack(len(text)) + text, report)
    finally:
        leave(code)


def _prepare(cell: Cell, asked: int, read: int, output: int, errors: int, report: int) -> tuple[str, Any]:
    """All preparations before a line of the program runs; errors go to the report's pipe."""
    try:
        os.setsid()
        source, call = request.program(os.pread(asked, os.lseek(asked, 0, os.SEEK_END), 0))
        os.dup2(read, 0)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.dup2(report, cell.report, inheritable=False)
        report = cell.report
        os.closerange(3, report)  # the server's own files
        cell.confine()
    except BaseException as error:
        program.write(repr(error).encode(errors="replace"), report)
        raise
    return source, call
