"""From a server's answer about a process to a run: a program counts as ended only with a report.

The report is written in the program's own process, so that a program can forge it. It may have any shape, and every
part is checked before use.
"""

import json
import signal
from collections.abc import Mapping
from typing import Any

from rrl.sandbox.inside.plain import DEEPEST
from rrl.sandbox.inside.program import MESSAGE
from rrl.sandbox.limits import Limits
from rrl.sandbox.runs import ProgramRun, Status

BEFORE, AFTER = ("compile_error",), ("ended", "runtime_error")
"""The statuses that a report may have before the program is compiled, and after it."""
MOST_LINES = 10**7
"""The largest line number that a report may have."""


def run_of(header: Mapping[str, Any], output: bytes, report: bytes, limits: Limits, *, prints: bool) -> ProgramRun:
    """The result of a process; ``header`` is from its watcher, ``report`` from the process itself.

    A program that ``prints`` has ended when its process ended with 0, as in a shell; its report has an error where a
    thread failed.
    """
    seconds, code, compiled = float(header["seconds"]), header["code"], header["compiled"]
    stopped = header["crossed"] or code not in (0, 1) or header["cpu"] >= limits.cpu_seconds
    checked = None if stopped else _checked_report(report, compiled=compiled)
    if prints and code == 0 and compiled and not stopped:
        return ProgramRun("ended", output.decode("utf-8", "replace"), *_error(checked or {}), seconds)
    if checked is None or (checked["status"] == "ended" and (prints or code != 0)):
        status, error, message = _without_report(header, limits)
        return ProgramRun(status, None, error, None, message, seconds)
    return ProgramRun(checked["status"], checked.get("value"), *_error(checked), seconds)


def _error(report: Mapping[str, Any]) -> tuple[str | None, int | None, str]:
    return report.get("error"), report.get("line"), report.get("message", "")


def failure(why: str) -> ProgramRun:
    """The run for a failure of the sandbox itself."""
    return ProgramRun("sandbox_failure", None, "SandboxFailure", None, why, 0.0)


def destroyer() -> ProgramRun:
    """The run of a program on which working servers break."""
    return ProgramRun("runtime_error", None, "Killed", None, "the sandbox broke on this program, and on no other", 0.0)


def _checked_report(report: bytes, *, compiled: bool) -> dict[str, Any] | None:
    """A report whose parts all have the right type and size; None otherwise.

    No line of a program runs before it is compiled, so that earlier reports cannot be forged.
    """
    try:
        given = json.loads(report)
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict) or given.get("status") not in (AFTER if compiled else BEFORE):
        return None
    status, error = given["status"], _error_parts(given)
    if status == "ended":
        return {"status": status, "value": given.get("value"), **error} if _shallow(given.get("value")) else None
    return {"status": status, **error} if error else None


def _error_parts(report: Mapping[str, Any]) -> dict[str, Any]:
    """The error in a report, cut to size; empty without one."""
    error, message, line = (report.get(key) for key in ("error", "message", "line"))
    if not (isinstance(error, str) and isinstance(message, str)):
        return {}
    kept = line if type(line) is int and 0 < line <= MOST_LINES else None
    return {"error": _text(error), "message": _text(message), "line": kept}


def _shallow(value: Any, depth: int = 0) -> bool:
    """Whether it is nested no deeper than a function's value may be."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth <= DEEPEST and all(_shallow(each, depth + 1) for each in inner)


def _text(given: str) -> str:
    """Cut to the length of messages, and encodable as UTF-8."""
    return given[:MESSAGE].encode("utf-8", "backslashreplace").decode()[:MESSAGE]


def _without_report(header: Mapping[str, Any], limits: Limits) -> tuple[Status, str, str]:
    code: int = header["code"]
    status: Status = "runtime_error" if header["compiled"] else "compile_error"
    if header["crossed"] == "OutputLimit":
        return "runtime_error", "OutputLimit", f"more than {limits.output_kb} KiB of output"
    if header["crossed"] == "WallTime":
        return "time_out", "WallTime", f"longer than {limits.wall_seconds:g} s"
    if header["cpu"] >= limits.cpu_seconds or header["crossed"] == "CpuTime" or code == -signal.SIGXCPU:
        return "time_out", "CpuTime", f"more than {limits.cpu_seconds:g} s of computing"
    if code == -signal.SIGKILL:
        return status, "Killed", "the process was killed"
    if code < 0:
        return status, _signal_name(-code), "the process was ended by a signal"
    return status, "NoEvidence", f"the process ended with code {code} before the program's end"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
