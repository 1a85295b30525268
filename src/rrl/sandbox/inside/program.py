"""Compiles and runs one program, in a process that is there for nothing else, and tells what came of it."""

import atexit
import builtins
import gc
import io
import json
import os
import sys
import threading
import types
from collections.abc import Callable, Mapping
from types import CodeType, TracebackType
from typing import Any

from rrl.sandbox.inside import plain

NAME = "<program>"
MESSAGE = 400
"""Characters of an exception's message that are kept."""
Told = dict[str, Any]
_name_of = type.__dict__["__name__"].__get__


def run(request: Mapping[str, Any], compiled: Callable[[], object]) -> Told:
    """Compile a program and run it on one input; ``compiled`` is called in between."""
    function = request["function"]
    try:
        code = compile(request["source"], NAME, "exec", dont_inherit=True)
    except BaseException as error:
        return _failure("compile_error", error)
    compiled()
    try:
        if function is None:
            return _script(code)
        return {"status": "ended", "value": plain.data(_call(code, function, request["input"]))}
    except BaseException as error:
        return _failure("runtime_error", error)


def _script(code: CodeType) -> Told:
    """As ``python program.py`` does: threads, exit hooks and what is written at the very end are part of it.

    An error in a thread is one of the program, which an interpreter would only print.
    """
    broken: list[Told] = []
    threading.excepthook = lambda args: _note(broken, args)
    space = _module("__main__")
    try:
        exec(code, space)
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    _flush()
    space.clear()
    gc.collect()
    _flush()
    return broken[0] if broken else {"status": "ended"}


def _flush() -> None:
    for stream in (sys.stdout, sys.__stdout__):
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()


def _call(code: CodeType, function: str, arguments: list[Any]) -> Any:
    space = _module("program")
    exec(code, space)
    name = function.removeprefix("Solution.")
    solution = space.get("Solution")
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)(*arguments)
    if name not in space:
        raise NameError(f"name {name!r} is not defined")
    return space[name](*arguments)


def _module(name: str) -> dict[str, Any]:
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    return module.__dict__


def _note(broken: list[Told], args: Any) -> None:
    if args.exc_type is not SystemExit and args.exc_value is not None:
        broken.append(_failure("runtime_error", args.exc_value))


def _failure(status: str, error: BaseException) -> Told:
    line = error.lineno if status == "compile_error" and isinstance(error, SyntaxError) else _line(error.__traceback__)
    error.__traceback__ = error.__context__ = error.__cause__ = None  # what they hold is memory to report with
    name = str.__getitem__(_name_of(type(error)), slice(MESSAGE))
    return {"status": status, "error": name, "line": line, "message": _message(error)}


def _message(error: BaseException) -> str:
    try:
        return str.__getitem__(str(error), slice(MESSAGE))
    except BaseException:  # the exception is the program's own, and so may be what it says
        return ""


def _line(trace: TracebackType | None) -> int | None:
    """The deepest line of the program."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def open_streams() -> None:
    """New standard streams on the descriptors 0, 1 and 2, as an interpreter opens them."""
    given = io.BufferedReader(io.FileIO(0, closefd=False))
    output, errors = (io.BufferedWriter(io.FileIO(number, "wb", closefd=False)) for number in (1, 2))
    for name, stream in (
        ("stdin", io.TextIOWrapper(given, encoding="utf-8")),
        ("stdout", io.TextIOWrapper(output, encoding="utf-8")),
        ("stderr", io.TextIOWrapper(errors, encoding="utf-8", errors="backslashreplace", line_buffering=True)),
    ):
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def as_text(told: Told, most: int) -> bytes:
    """A report as JSON, with an error in place of a value that is too long."""
    text = json.dumps(told).encode()
    if len(text) <= most:
        return text
    long = {
        "status": "runtime_error",
        "error": "OutputLimit",
        "line": None,
        "message": "a very long value was returned",
    }
    return json.dumps(long).encode()


def write(text: bytes, descriptor: int) -> None:
    """All of it."""
    left = memoryview(text)
    while left:
        left = left[os.write(descriptor, left) :]
