"""The warm server: one interpreter, and its fork that forks a process for each run.

Standard library only, started as a file.

It reads requests from the socket on its standard input and answers on it, one at a time; it ends when that closes.
What it has loaded is paid for at each fork, so that neither it nor the modules beside it import more than they need.
"""

import gc
import json
import os
import resource
import struct
import sys
from typing import Any

sys.path[:] = [path for path in sys.path if not path.endswith("/inside")]
HOME = os.path.dirname(os.path.abspath(__file__)).removesuffix("/rrl/sandbox/inside")
sys.path.append(HOME)
# What modules do in each child of a fork costs as much as the fork, and serves processes with threads: this has none.
os.register_at_fork, _register = lambda **hooks: None, os.register_at_fork

import random  # noqa: E402
import threading  # noqa: E402

from rrl.sandbox.inside import streams, watch  # noqa: E402
from rrl.sandbox.inside.cell import Cell  # noqa: E402
from rrl.sandbox.inside.program import write  # noqa: E402
from rrl.sandbox.inside.zygote import Zygote  # noqa: E402

PRELOADED = (
    "_strptime array atexit bisect cmath collections.abc copy dataclasses datetime decimal enum fractions functools "
    "heapq io itertools math operator queue re string threading time typing"
)
"""What programs import most; the rest they load themselves."""
THREAD_STACK = 2**23
"""Bytes; without it each thread would have as much as the first one may grow to."""
HOLES = 2**16
"""Bytes of objects of each size class, at most, that fill what imports left free."""
POOL, FIRST = 2**14, 48
"""Bytes that CPython gives a size class at a time, and those at the beginning that say what of them is free."""
LENGTH = struct.Struct("!I")
_filled: list[bytes] = []
"""With these in the holes of the heap, what a child makes lies together and in new pools, and touches fewer pages."""


def main() -> None:
    """Serve until the line closes."""
    settings = json.loads(sys.argv[1])
    _deepen(settings["limits"]["memory_mb"] * 2**20 // 2)
    cell = Cell(settings)
    try:
        for name in PRELOADED.split():
            __import__(name)
        _settle()
        cell.open_library()
        _tidy()
        _serve(cell, _take_line())
    finally:
        cell.leave()


def _serve(cell: Cell, line: int) -> None:
    zygote = Zygote(cell, line)
    _send(line, {"ready": True})
    while request := _receive(line):
        header, output, report = watch.run(request, zygote, cell, line)
        _send(line, {**header, "output": len(output), "report": len(report)}, output, report)
        cell.clear()


def _take_line() -> int:
    """The socket that the parent is at the other end of, away from where programs have their input."""
    line = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return line


def _deepen(stack: int) -> None:
    """Start again with a deep stack: recursive programs need it, and its place is chosen at the start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft != stack and (hard == resource.RLIM_INFINITY or stack <= hard):
        resource.setrlimit(resource.RLIMIT_STACK, (stack, hard))
        os.execv(sys.executable, [sys.executable, "-S", "-s", *sys.argv])


def _settle() -> None:
    """From here on this interpreter looks as one that was started for a program, the same each time."""
    import site

    for puts_in_builtins in (site.setquit, site.setcopyright, site.sethelper):  # an interpreter began without it
        puts_in_builtins()
    os.register_at_fork = _register
    os.environ.clear()
    sys.path.remove(HOME)
    random.seed(0)
    threading.stack_size(THREAD_STACK)
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)  # many problems print very long numbers
    streams.open_all()


def _tidy() -> None:
    """After all that is to be made before the first program."""
    gc.collect()
    for size in range(48, 513, 16):
        _fill(size)
    gc.freeze()  # a collection in a child would touch, and so copy, all of this memory


def _fill(size: int) -> None:
    """The holes for objects of this size: there are no more where one is the first in its pool."""
    for _ in range(HOLES // size):
        block = bytes(size - sys.getsizeof(b""))
        if id(block) % POOL == FIRST:
            break
        _filled.append(block)


def _receive(line: int) -> bytes:
    """The next request; nothing when there will be none."""
    size = _exactly(line, LENGTH.size)
    return _exactly(line, LENGTH.unpack(size)[0]) if size else b""


def _exactly(line: int, size: int) -> bytes:
    """So many bytes, or nothing at the end."""
    parts = bytearray()
    while len(parts) < size:
        part = os.read(line, min(size - len(parts), 2**20))
        if not part:
            return b""
        parts += part
    return bytes(parts)


def _send(line: int, header: dict[str, Any], *rest: bytes) -> None:
    """An answer: the length of its header, the header, and bytes whose lengths stand in it."""
    text = json.dumps(header).encode()
    write(b"".join((LENGTH.pack(len(text)), text, *rest)), line)


if __name__ == "__main__":
    main()
