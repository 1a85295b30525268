"""Compiles and runs one program in a separate process, and reports the result."""

import atexit
import builtins
import contextlib
import gc
import json
import os
import sys
import threading
import types
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from types import CodeType, TracebackType
from typing import Any

from rrl.sandbox.inside import imports, plain, streams

MESSAGE = 400
"""Characters of an exception's message that are kept."""
Report = dict[str, Any]
ENDED: Report = {"status": "ended"}
"""The report of a program that reads and prints, and ended without an error."""
_write = os.write
"""The original, in case a program changes it."""
_name_of = type.__dict__["__name__"].__get__


def run(source: str, call: Any, path: str, compiled: Callable[[], object]) -> Report:
    """Compile a program, which sees ``path`` as its file, and run it; ``compiled`` is called in between.

    ``call`` is a function and its arguments, or None for a program that reads and prints.
    ``ended`` with an error means that it failed in a thread, which an interpreter would only print.
    """
    try:
        code = compile(source.encode(), path, "exec", dont_inherit=True)  # bytes, as in a file
    except BaseException as error:
        return _failure("compile_error", error, path)
    compiled()
    try:
        if call is None:
            return _script(code)
        return {"status": "ended", "value": plain.data(_call(code, *call))}
    except BaseException as error:
        return _failure("runtime_error", error, path)


def _script(code: CodeType) -> Report:
    """Run it as ``python program.py``: with threads, exit hooks and output at the very end."""
    report = dict(ENDED)
    threading.excepthook = threading.__excepthook__ = lambda args: _note(report, args, code.co_filename)
    try:
        exec(code, _module("__main__", code.co_filename))
    except SystemExit as end:
        if not _well(end.code):
            raise
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    streams.flush()
    streams.take_back()
    del sys.modules["__main__"]
    gc.collect()  # finalisers run with the program's names still there
    with contextlib.suppress(OSError, ValueError):  # as an interpreter: it is too late to report this
        streams.flush()
    return report


def _well(code: object) -> bool:
    """Whether this exit code is 0 in a shell."""
    return code is None or (isinstance(code, int) and code & 255 == 0)


def _call(code: CodeType, function: str, arguments: list[Any]) -> Any:
    space = _module("program", code.co_filename)
    space["__builtins__"] = imports.known()
    exec(code, space)
    name = function.removeprefix("Solution.")
    solution = space.get("Solution")
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)(*arguments)
    if name not in space:
        raise NameError(f"name {name!r} is not defined")
    return space[name](*arguments)


def _module(name: str, path: str) -> dict[str, Any]:
    """The names that a program finds, in CPython's order."""
    module = types.ModuleType(name)
    names: dict[str, Any] = {"__loader__": SourceFileLoader(name, path), "__spec__": None, "__annotations__": {}}
    module.__dict__.update(names, __builtins__=builtins, __file__=path, __cached__=None)
    sys.modules[name] = module
    return module.__dict__


def _note(report: Report, args: Any, path: str) -> None:
    if args.exc_type is not SystemExit and args.exc_value is not None:
        report.update(_failure("ended", args.exc_value, path))


def _failure(status: str, error: BaseException, path: str) -> Report:
    by_compiler = status == "compile_error" and isinstance(error, SyntaxError)
    line = error.lineno if by_compiler else _line(error.__traceback__, path)  # type: ignore[attr-defined]
    error.__traceback__ = error.__context__ = error.__cause__ = None  # frees memory for the report
    name = str.__getitem__(_name_of(type(error)), slice(MESSAGE))
    return {"status": status, "error": name, "line": line, "message": _message(error)}


def _message(error: BaseException) -> str:
    try:
        return str.__getitem__(str(error), slice(MESSAGE))
    except BaseException:  # a program's own exception may raise anything here
        return ""


def _line(trace: TracebackType | None, path: str) -> int | None:
    """The deepest line of the program."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def as_text(report: Report, most: int) -> bytes:
    """A report as JSON, with an error in place of a value that is too long."""
    text = json.dumps(report).encode()
    if len(text) <= most:
        return text
    error = {"error": "OutputLimit", "line": None, "message": "a very long value was returned"}
    return json.dumps({"status": "runtime_error", **error}).encode()


def write(text: bytes | memoryview, descriptor: int) -> None:
    """All of it."""
    left = memoryview(text)
    while left:
        left = left[_write(descriptor, left) :]
