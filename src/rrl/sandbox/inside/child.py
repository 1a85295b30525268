"""What the forked process does to become the program: it reads its request, takes on limits, reports, and is gone."""

import json
import os
import struct
import sys
import time
from typing import Any

from rrl.sandbox.inside import program, streams
from rrl.sandbox.inside.cell import Cell

RESERVE = 2**21
"""Bytes of memory that are free again when the program has used up all of its own."""
READY, COMPILED, TOLD = b"\x01", b"\x02", b"\x03"
"""What the report's pipe says as the process gets on. No line of the program runs before COMPILED."""
SECONDS, LENGTH = struct.Struct("=d"), struct.Struct("=I")
"""After READY: processor time until then. After TOLD: the length of the report, which ends what is said."""
_exit, _write = os._exit, os.write
"""As they are before a program changes them."""


def become(cell: Cell, descriptors: list[int]) -> None:
    """Turn this process into the program; never returns."""
    leave, code = _exit, 1
    try:
        reserve = [bytes(RESERVE)]
        report = cell.report
        request = _prepare(cell, *descriptors)
        path = f"{os.getcwd()}/program.py"
        sys.argv, sys.path[:0] = [path], [os.path.dirname(path)]
        _write(report, READY + SECONDS.pack(time.process_time()))
        told = program.run(request, path, lambda: _write(report, COMPILED))
        code = 0 if told["status"] == "ended" else 1
        reserve.clear()
        text = program.as_text(told, cell.limits["output_kb"] * 2**10)
        program.write(TOLD + LENGTH.pack(len(text)) + text, report)
    finally:
        leave(code)


def _prepare(cell: Cell, given: int, output: int, errors: int, report: int) -> dict[str, Any]:
    """All that must be so before a line of the program runs; the report's pipe tells what went wrong."""
    try:
        os.setsid()
        request: dict[str, Any] = json.loads(_all(given))
        for number, descriptor in enumerate((_stdin(request), output, errors)):
            os.dup2(descriptor, number)
        os.dup2(report, cell.report, inheritable=False)
        report = cell.report
        os.closerange(3, report)  # nothing that was open before stays open
        streams.open_all()
        cell.confine()
    except BaseException as error:
        program.write(repr(error).encode(errors="replace"), report)
        raise
    return request


def _all(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _stdin(request: dict[str, Any]) -> int:
    """What the program reads; nothing where a function is called."""
    if request["function"] is not None:
        return os.open(os.devnull, os.O_RDONLY)
    file = os.memfd_create("input")
    program.write(request["input"].encode("utf-8", "surrogatepass"), file)
    try:
        return os.open(f"/proc/self/fd/{file}", os.O_RDONLY)  # as a shell opens it
    except OSError:
        os.lseek(file, 0, os.SEEK_SET)
        return file
