"""Forks the process of one run, follows its time and its output, and says how it ended."""

import os
import select
import signal
import time
from collections.abc import Mapping
from typing import Any

from rrl.sandbox.inside import child
from rrl.sandbox.inside.cell import Cell
from rrl.sandbox.inside.program import write

CHUNK = 2**16
TICK = 0.002
"""Seconds between looks at a process, where the kernel cannot announce its end; and how late a limit may be found."""
SETTING_UP = 10.0
"""Seconds in which a forked process must be ready to become the program."""
NONCE = 16
"""Random bytes of a nonce."""
ABANDONED = "Abandoned"


def run(request: Mapping[str, Any], cell: Cell, line: int) -> tuple[dict[str, Any], bytes, bytes]:
    """How it ended, what it printed, and its report if that is genuine; ``line`` is who wants to know."""
    nonce = fresh()
    theirs, ours = _pipes(request)
    pid = cell.fork()
    if pid == 0:
        child.become(request, cell, theirs, nonce)
    for descriptor in set(theirs.values()):
        os.close(descriptor)
    watch = Watch(pid, ours, cell.limits, line)
    watch.follow()
    header = watch.finish()
    cell.clear(pid)
    return header, bytes(watch.texts["output"]), _genuine(bytes(watch.texts["report"]), nonce)


def fresh() -> bytes:
    """What nobody can know. It begins like none of the words that may stand before it in a report."""
    return b"N" + os.urandom(NONCE)


def _genuine(report: bytes, nonce: bytes) -> bytes:
    """What stands between this run's nonces; nothing in place of anything else."""
    told = report.removeprefix(child.READY).removeprefix(child.COMPILED)
    genuine = len(told) > 2 * len(nonce) and told.startswith(nonce) and told.endswith(nonce)
    return told[len(nonce) : -len(nonce)] if genuine else b""


def _pipes(request: Mapping[str, Any]) -> tuple[dict[str, int], dict[int, str]]:
    """The program's descriptors, and our ends of what it writes."""
    report, theirs_report = os.pipe()
    output, theirs_output = os.pipe()
    theirs = {"output": theirs_output, "errors": theirs_output, "report": theirs_report}
    ours = {report: "report", output: "output"}
    if request["function"] is not None:  # what it prints is counted, and not wanted
        return {**theirs, "input": os.open(os.devnull, os.O_RDONLY)}, ours
    errors, theirs["errors"] = os.pipe()
    theirs["input"] = os.memfd_create("input")
    write(request["input"].encode("utf-8", "surrogatepass"), theirs["input"])
    os.lseek(theirs["input"], 0, os.SEEK_SET)
    return theirs, {**ours, errors: "errors"}


class Watch:
    """One process while it runs. ``crossed`` names the limit that it was stopped for."""

    def __init__(self, pid: int, ends: dict[int, str], limits: Mapping[str, Any], line: int) -> None:
        self._pid, self._ends, self._limits, self._line = pid, ends, limits, line
        self._start = time.monotonic()
        self._deadline = self._look = self._start + SETTING_UP
        self._most = limits["output_kb"] * 2**10
        self.texts = {"output": bytearray(), "errors": bytearray(), "report": bytearray()}
        self.crossed = ""
        self._poll = select.poll()
        for end in ends:
            self._poll.register(end, select.POLLIN)
        self._poll.register(line, select.POLLRDHUP)

    def follow(self) -> None:
        """Read until the process has ended or crossed a limit; it can do neither without our noticing."""
        alarm = self._alarm()
        while not self.crossed:
            ready = self._ready(TICK if alarm is None else max(0.0, self._look - time.monotonic()) + TICK)
            if alarm in ready or (alarm is None and self._gone()):
                break
            self._read(ready)
            if time.monotonic() >= self._look:
                self._check_time()
        if alarm is not None:
            self._poll.unregister(alarm)
            os.close(alarm)
        while not self.crossed and (ready := self._ready(0)):  # what stands in the pipes of a process that has ended
            self._read(ready)

    def _alarm(self) -> int | None:
        """A descriptor that is ready when the process has ended; since Linux 5.3."""
        try:
            alarm = os.pidfd_open(self._pid)
        except OSError:
            return None
        self._poll.register(alarm, select.POLLIN)
        return alarm

    def _gone(self) -> bool:
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

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
        if name == "report" and not texts["report"]:
            self._begin()
        texts[name] += part
        if len(texts["output"]) + len(texts["errors"]) > self._most or len(texts["report"]) > 2 * self._most + 2**13:
            self.crossed = "OutputLimit"

    def _begin(self) -> None:
        """The program's time runs from now: how long the process took to become ready is not its fault."""
        self._start = time.monotonic()
        self._deadline = self._start + self._limits["wall_seconds"]
        self._look = min(self._deadline, self._start + self._limits["cpu_seconds"])

    def _check_time(self) -> None:
        now, most = time.monotonic(), self._limits["cpu_seconds"]
        computed = self._computed()
        if now >= self._deadline:
            self.crossed = "WallTime"
        elif computed >= most:
            self.crossed = "CpuTime"
        self._look = min(self._deadline, now + most - computed)

    def _computed(self) -> float:
        """Seconds of processor time; 0 for a process that has just ended."""
        try:
            return time.clock_gettime(~self._pid << 3 | 2)
        except OSError:
            return 0.0

    def finish(self) -> dict[str, Any]:
        """End it where it has not ended, and tell how."""
        seconds = time.monotonic() - self._start
        if self.crossed:
            os.kill(self._pid, signal.SIGKILL)
        _, status, usage = os.wait4(self._pid, 0)
        for end in self._ends:
            os.close(end)
        report = self.texts["report"]
        if not report.startswith(child.READY) and self.crossed != ABANDONED:
            raise RuntimeError(f"a process did not become ready: {report.decode(errors='replace')}")
        return {
            "code": os.waitstatus_to_exitcode(status),
            "cpu": usage.ru_utime + usage.ru_stime,
            "crossed": self.crossed,
            "compiled": report.startswith(child.READY + child.COMPILED),
            "seconds": seconds,
        }
