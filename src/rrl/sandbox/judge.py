"""From what a server tells of a process to a run."""

import json
import signal
from collections.abc import Mapping
from typing import Any

from rrl.sandbox.limits import Limits
from rrl.sandbox.runs import Run, Status


def run_of(header: Mapping[str, Any], output: bytes, report: bytes, limits: Limits, *, prints: bool) -> Run:
    """A run counts as ended only with a report."""
    seconds = float(header["seconds"])
    told = _report(report)
    if told is None or header["crossed"]:
        status, error, message = _without(header, limits)
        return Run(status, None, error, None, message, seconds)
    if told["status"] == "ended":
        value = output.decode("utf-8", "replace") if prints else told["value"]
        return Run("ended", value, None, None, "", seconds)
    return Run(told["status"], None, told["error"], told["line"], told["message"], seconds)


def _report(text: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and "status" in told else None


def _without(header: Mapping[str, Any], limits: Limits) -> tuple[Status, str, str]:
    code = header["code"]
    if header["crossed"] == "OutputLimit":
        return "runtime_error", "OutputLimit", f"more than {limits.output_kb} KiB of output"
    if header["crossed"] == "WallTime":
        return "time_out", "WallTime", f"longer than {limits.wall_seconds:g} s"
    if header["cpu"] >= limits.cpu_seconds:
        return "time_out", "CpuTime", f"more than {limits.cpu_seconds:g} s of computing"
    status: Status = "runtime_error" if header["compiled"] else "compile_error"
    if code == -signal.SIGKILL:
        return status, "Killed", "the process was killed"
    if code < 0:
        return status, signal.Signals(-code).name, "the process was ended by a signal"
    return status, "NoEvidence", f"the process ended with code {code} before the program's end"


def failure(why: str) -> Run:
    """The sandbox's own fault."""
    return Run("sandbox_failure", None, "SandboxFailure", None, why, 0.0)
