"""From what a server tells of a process to a run: nothing counts as ended without its report."""

import json
import signal
from collections.abc import Mapping
from typing import Any

from rrl.sandbox.limits import Limits
from rrl.sandbox.runs import Run, Status


def run_of(header: Mapping[str, Any], output: bytes, report: bytes, limits: Limits, *, prints: bool) -> Run:
    """``report`` was written in the program's own process: what stands in it may be of any shape.

    What ``prints`` has ended when its process ended with 0, as a shell sees it; its report tells an error in a thread.
    """
    seconds = float(header["seconds"])
    told = None if header["crossed"] else _read(report)
    if prints and header["code"] == 0 and not header["crossed"]:
        return Run("ended", output.decode("utf-8", "replace"), *_error(told or {}), seconds)
    if told is None or (prints and told["status"] == "ended"):
        status, error, message = _without(header, limits)
        return Run(status, None, error, None, message, seconds)
    return Run(told["status"], told.get("value"), *_error(told), seconds)


def _error(told: Mapping[str, Any]) -> tuple[str | None, int | None, str]:
    return told.get("error"), told.get("line"), told.get("message", "")


def failure(why: str) -> Run:
    """The sandbox's own fault."""
    return Run("sandbox_failure", None, "SandboxFailure", None, why, 0.0)


def destroyer() -> Run:
    """Of a program on which servers break that are sound."""
    return Run("runtime_error", None, "Killed", None, "the sandbox broke on this program, and on no other", 0.0)


def _read(report: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(report)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and _sound(told) else None


def _sound(told: Mapping[str, Any]) -> bool:
    """Whether a report has the types of one."""
    if told.get("status") == "ended":
        return True
    known = told.get("status") in ("runtime_error", "compile_error")
    line = told.get("line")
    worded = isinstance(told.get("error"), str) and isinstance(told.get("message"), str)
    return known and worded and (line is None or type(line) is int)


def _without(header: Mapping[str, Any], limits: Limits) -> tuple[Status, str, str]:
    code: int = header["code"]
    status: Status = "runtime_error" if header["compiled"] else "compile_error"
    if header["crossed"] == "OutputLimit":
        return "runtime_error", "OutputLimit", f"more than {limits.output_kb} KiB of output"
    if header["crossed"] == "WallTime":
        return "time_out", "WallTime", f"longer than {limits.wall_seconds:g} s"
    if header["crossed"] == "CpuTime" or header["cpu"] >= limits.cpu_seconds:
        return "time_out", "CpuTime", f"more than {limits.cpu_seconds:g} s of computing"
    if code == -signal.SIGKILL:
        return status, "Killed", "the process was killed"
    if code < 0:
        return status, _name(-code), "the process was ended by a signal"
    return status, "NoEvidence", f"the process ended with code {code} before the program's end"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
