"""The warm server: one interpreter that forks a process for each run. Standard library only, started as a file.

It reads requests from the socket on its standard input and answers on it, one at a time; it ends when that closes.
"""

import json
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from rrl.sandbox.inside import child, watch  # noqa: E402

PRELOADED = (
    "abc array ast bisect calendar cmath cProfile collections collections.abc contextlib copy csv dataclasses datetime "
    "decimal difflib enum fractions functools gc hashlib heapq inspect io itertools json locale math numbers operator "
    "pickle platform pprint queue random re secrets signal statistics string struct subprocess tempfile textwrap "
    "threading time timeit traceback typing unicodedata uuid warnings zlib concurrent.futures multiprocessing"
)
LENGTH = struct.Struct("!I")


def main() -> None:
    """Serve until the socket closes."""
    settings = json.loads(sys.argv[1])
    line = socket.socket(fileno=os.dup(0))
    line.set_inheritable(False)
    for name in PRELOADED.split():
        __import__(name)
    sys.path.remove(str(Path(__file__).parents[3]))
    sys.argv = [child.NAME]
    watch.prepare()
    send(line, {"ready": os.getpid()})
    while (request := receive(line)) is not None:
        header, output, report = watch.run(request, settings)
        send(line, {**header, "output": len(output), "report": len(report)}, output, report)


def receive(line: socket.socket) -> Any:
    """The next request; None when there will be none."""
    size = _exactly(line, LENGTH.size)
    return json.loads(_exactly(line, LENGTH.unpack(size)[0])) if size else None


def _exactly(line: socket.socket, size: int) -> bytes:
    """So many bytes, or nothing at the end."""
    parts = bytearray()
    while len(parts) < size:
        part = line.recv(min(size - len(parts), 2**20))
        if not part:
            return b""
        parts += part
    return bytes(parts)


def send(line: socket.socket, header: dict[str, Any], *rest: bytes) -> None:
    """An answer: the length of its header, the header, and bytes whose lengths stand in it."""
    text = json.dumps(header).encode()
    line.sendall(b"".join((LENGTH.pack(len(text)), text, *rest)))


if __name__ == "__main__":
    main()
