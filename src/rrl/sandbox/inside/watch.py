"""Follows the process of one run, its time and its output, and reports its end."""

import os
import select
import signal
import time
from collections.abc import Mapping
from typing import Any

from rrl.sandbox.inside import child
from rrl.sandbox.inside.cell import Cell
from rrl.sandbox.inside.program import write
from rrl.sandbox.inside.request import split
from rrl.sandbox.inside.zygote import Zygote

CHUNK = 2**16
TICK = 0.002
"""The largest delay, in seconds, in noticing that a limit is exceeded."""
SETTING_UP = 10.0
"""Seconds in which a forked process must be ready to become the program."""
ANYBODY = 0o666
"""A pipe's permissions: a program may open its streams again by name."""
ABANDONED = "Abandoned"


def run(request: bytes, zygote: Zygote, cell: Cell, line: int) -> tuple[dict[str, Any], bytes, bytes]:
    """Its end, its output, and its report if that is complete; ``line`` is the connection to the parent."""
    theirs, ours = _open(request)
    pid = zygote.start(theirs)
    for descriptor in theirs:
        os.close(descriptor)
    watch = Watch(pid, ours, cell.limits, zygote, line)
    watch.follow()
    header = watch.finish()
    return header, bytes(watch.texts["output"]), watch.report


def whole(said: bytes) -> bytes:
    """The report, where nothing else was written; else nothing."""
    head = len(child.TOLD) + child.LENGTH.size
    alone = said.startswith(child.TOLD) and said[len(child.TOLD) : head] == child.LENGTH.pack(max(0, len(said) - head))
    return said[head:] if alone else b""


def _open(request: bytes) -> tuple[list[int], dict[int, str]]:
    """The process' descriptors, and our ends of what it writes."""
    made, read = split(request)
    theirs, ours = [_file(made), _stdin(read)], {}
    for name in ("output", "errors", "report"):
        end, its = os.pipe()
        theirs.append(its)
        ours[end] = name
        os.fchmod(its, ANYBODY)
    return theirs, ours


def _file(text: memoryview) -> int:
    file = os.memfd_create("input")
    write(text, file)
    return file


def _stdin(text: memoryview) -> int:
    """As a shell opens it, where /proc lets us."""
    file = _file(text)
    try:
        read_only = os.open(f"/proc/self/fd/{file}", os.O_RDONLY)
    except OSError:
        os.lseek(file, 0, os.SEEK_SET)
        return file
    os.close(file)
    return read_only


class Watch:
    """One process while it runs. ``crossed`` names the limit that it was stopped for."""

    def __init__(self, pid: int, ends: dict[int, str], limits: Mapping[str, Any], zygote: Zygote, line: int) -> None:
        self._pid, self._ends, self._limits, self._zygote, self._line = pid, ends, limits, zygote, line
        self._start = time.monotonic()
        self._deadline = self._look = self._start + SETTING_UP
        self._computed_before = self._used = 0.0
        self._most = limits["output_kb"] * 2**10
        self.texts = {"output": bytearray(), "errors": bytearray(), "report": bytearray()}
        self.crossed = ""
        self.report = b""
        self._poll = select.poll()
        for end in ends:
            self._poll.register(end, select.POLLIN)
        self._poll.register(line, select.POLLRDHUP)

    def follow(self) -> None:
        """Read until the process has ended or crossed a limit."""
        self._poll.register(self._zygote, select.POLLIN)
        while not self.crossed:
            ready = self._ready(max(0.0, self._look - time.monotonic()) + TICK)
            if self._zygote.fileno() in ready:
                break
            self._read(ready)
            if time.monotonic() >= self._look:
                self._check_time()
        self._poll.unregister(self._zygote)
        while not self.crossed and (ready := self._ready(0)):  # the rest in the pipes of a process that has ended
            self._read(ready)

    def _ready(self, seconds: float) -> list[int]:
        return [descriptor for descriptor, _ in self._poll.poll(1000 * seconds)]

    def _read(self, ready: list[int]) -> None:
        for end in ready:
            if end == self._line:
                self.crossed = ABANDONED
            elif part := os.read(end, CHUNK):
                self._keep(self._ends[end], part)
            else:
                self._poll.unregister(end)

    def _keep(self, name: str, part: bytes) -> None:
        texts = self.texts
        if name == "report" and not texts["report"] and part.startswith(child.READY):
            self._begin(part)
        texts[name] += part
        if len(texts["output"]) + len(texts["errors"]) > self._most or len(texts["report"]) > self._most + 2**13:
            self.crossed = "OutputLimit"

    def _begin(self, said: bytes) -> None:
        """The program's time runs from now: how long the process took to become ready is not its fault."""
        self._computed_before = child.SECONDS.unpack_from(said, len(child.READY))[0]
        self._start = time.monotonic()
        self._deadline = self._start + self._limits["wall_seconds"]
        self._look = min(self._deadline, self._start + self._limits["cpu_seconds"])

    def _check_time(self) -> None:
        now, most = time.monotonic(), self._limits["cpu_seconds"]
        self._used = self._computed() - self._computed_before
        if now >= self._deadline:
            self.crossed = "WallTime"
        elif self._used >= most:
            self.crossed = "CpuTime"
        self._look = min(self._deadline, now + most - self._used)

    def _computed(self) -> float:
        """Seconds of processor time; 0 for a process that has just ended."""
        try:
            return time.clock_gettime(~self._pid << 3 | 2)
        except OSError:
            return 0.0

    def finish(self) -> dict[str, Any]:
        """End it if it is still running; returns the facts of its end."""
        seconds = time.monotonic() - self._start
        if self.crossed:
            os.kill(self._pid, signal.SIGKILL)
        code, computed = self._zygote.collect()
        for end in self._ends:
            os.close(end)
        said = bytes(self.texts["report"])
        if not said.startswith(child.READY) and self.crossed != ABANDONED:
            raise RuntimeError(f"a process did not become ready: {said.decode(errors='replace')}")
        said = said[len(child.READY) + child.SECONDS.size :]
        compiled = said.startswith(child.COMPILED)
        self.report = whole(said.removeprefix(child.COMPILED))
        return {
            "code": code,
            "cpu": max(computed - self._computed_before, self._used),  # by two of the kernel's counts
            "crossed": self.crossed,
            "compiled": compiled,
            "seconds": seconds,
        }
