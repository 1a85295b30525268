"""Forks the process of one run, watches its time and output, and leaves nothing of it behind."""

import ctypes
import gc
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrl.sandbox.inside import child

CHUNK = 2**16
SUBREAPER = 36


def prepare() -> None:
    """Once: orphans of programs become children of this process."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    gc.collect()
    gc.freeze()


def run(request: dict[str, Any], settings: Mapping[str, Any]) -> tuple[dict[str, Any], bytes, bytes]:
    """How it ended, what it printed, and its report."""
    limits = settings["limits"]
    request["folder"] = tempfile.mkdtemp(dir=settings["folder"])
    nonce = os.urandom(16)
    pipes, ends = _pipes(request)
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child.become(request, settings, pipes, nonce)
    for descriptor in pipes.values():
        os.close(descriptor)
    texts, crossed = _follow(ends, start + limits["wall_seconds"], limits["output_kb"] * 1024)
    end = _finish(pid, crossed)
    shutil.rmtree(request["folder"], ignore_errors=True)
    report = texts["report"]
    compiled, report = report.startswith(b"C"), report.removeprefix(b"C")
    genuine = report.startswith(nonce) and report.endswith(nonce) and len(report) > 2 * len(nonce)
    header = {**end, "crossed": crossed, "compiled": compiled, "seconds": time.monotonic() - start}
    return header, texts["output"], report[16:-16] if genuine else b""


def _pipes(request: Mapping[str, Any]) -> tuple[dict[str, int], dict[int, str]]:
    """The program's descriptors, and our ends of what it writes."""
    text = request["input"] if request["function"] is None else ""
    given = os.memfd_create("input")
    os.write(given, text.encode("utf-8", "surrogatepass"))
    os.lseek(given, 0, os.SEEK_SET)
    pipes, ends = {"input": given}, {}
    for name in ("output", "errors", "report"):
        end, pipes[name] = os.pipe()
        ends[end] = name
    return pipes, ends


def _follow(ends: dict[int, str], deadline: float, most: int) -> tuple[dict[str, bytes], str]:
    """Everything written until all ends are closed, or a limit is crossed."""
    texts = {name: bytearray() for name in ends.values()}
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    crossed, open_ends = "", set(ends)
    while open_ends and not crossed:
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        for end, _ in ready:
            if not _take(end, texts[ends[end]]):
                poll.unregister(end)
                open_ends.discard(end)
        if len(texts["output"]) + len(texts["errors"]) > most or len(texts["report"]) > 6 * most + 4096:
            crossed = "OutputLimit"
        elif "report" not in {ends[end] for end in open_ends}:
            break
        elif time.monotonic() >= deadline:
            crossed = "WallTime"
    for end in ends:
        if not crossed:
            while select.select([end], [], [], 0)[0] and _take(end, texts[ends[end]]):
                pass
        os.close(end)
    return {name: bytes(text) for name, text in texts.items()}, crossed


def _take(end: int, text: bytearray) -> bool:
    part = os.read(end, CHUNK)
    text += part
    return bool(part)


def _finish(pid: int, crossed: str) -> dict[str, Any]:
    """Kill what is left, and tell how the program itself ended."""
    if crossed:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    _kill(-pid)
    me = Path(f"/proc/self/task/{os.getpid()}/children")
    while orphans := me.read_text().split():
        for orphan in orphans:
            _kill(int(orphan))
            os.waitpid(int(orphan), 0)
    return {"code": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime}


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
