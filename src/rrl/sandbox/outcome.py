"""From what a server tells of a process to a run: nothing counts as ended without its report.

The report was written in the program's own process, so that a program can write it itself. What stands in it may be of
any shape, and none of it is believed before it has been looked at.
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
"""What a report may say of a program that has not been compiled, and of one that has."""
MOST_LINES = 10**7
"""A line beyond that stands in no program."""


def run_of(header: Mapping[str, Any], output: bytes, report: bytes, limits: Limits, *, prints: bool) -> ProgramRun:
    """What came of a process; ``header`` is what its watcher saw, ``report`` what it said itself.

    What ``prints`` has ended when its process ended with 0, as a shell sees it; its report tells an error in a thread.
    """
    seconds, code, compiled = float(header["seconds"]), header["code"], header["compiled"]
    stopped = header["crossed"] or code not in (0, 1) or header["cpu"] >= limits.cpu_seconds
    told = None if stopped else _read(report, compiled=compiled)
    if prints and code == 0 and compiled and not stopped:
        return ProgramRun("ended", output.decode("utf-8", "replace"), *_error(told or {}), seconds)
    if told is None or (told["status"] == "ended" and (prints or code != 0)):
        status, error, message = _without(header, limits)
        return ProgramRun(status, None, error, None, message, seconds)
    return ProgramRun(told["status"], told.get("value"), *_error(told), seconds)


def _error(told: Mapping[str, Any]) -> tuple[str | None, int | None, str]:
    return told.get("error"), told.get("line"), told.get("message", "")


def failure(why: str) -> ProgramRun:
    """The sandbox's own fault."""
    return ProgramRun("sandbox_failure", None, "SandboxFailure", None, why, 0.0)


def destroyer() -> ProgramRun:
    """Of a program on which servers break that are sound."""
    return ProgramRun("runtime_error", None, "Killed", None, "the sandbox broke on this program, and on no other", 0.0)


def _read(report: bytes, *, compiled: bool) -> dict[str, Any] | None:
    """A report in which all is of its kind and size; None where something is not.

    No line of a program runs before it is compiled, so that by then nothing is forged; after that, it has compiled.
    """
    try:
        told = json.loads(report)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("status") not in (AFTER if compiled else BEFORE):
        return None
    status, error = told["status"], _words(told)
    if status == "ended":
        return {"status": status, "value": told.get("value"), **error} if _shallow(told.get("value")) else None
    return {"status": status, **error} if error else None


def _words(told: Mapping[str, Any]) -> dict[str, Any]:
    """The error that a report tells, cut to size; empty without one."""
    error, message, line = (told.get(key) for key in ("error", "message", "line"))
    if not (isinstance(error, str) and isinstance(message, str)):
        return {}
    kept = line if type(line) is int and 0 < line <= MOST_LINES else None
    return {"error": _text(error), "message": _text(message), "line": kept}


def _shallow(value: Any, depth: int = 0) -> bool:
    """Whether it is nested no deeper than what a function may return."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth <= DEEPEST and all(_shallow(each, depth + 1) for each in inner)


def _text(given: str) -> str:
    """Cut to the length that messages have, and such that it can be written anywhere."""
    return given[:MESSAGE].encode("utf-8", "backslashreplace").decode()[:MESSAGE]


def _without(header: Mapping[str, Any], limits: Limits) -> tuple[Status, str, str]:
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
        return status, _name(-code), "the process was ended by a signal"
    return status, "NoEvidence", f"the process ended with code {code} before the program's end"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
