"""Runs one program within a process that is there for nothing else, and reports what came of it."""

import atexit
import builtins
import io
import json
import os
import sys
import threading
import types
from collections.abc import Callable, Mapping
from types import CodeType, TracebackType
from typing import Any

NAME = "<program>"
MESSAGE = 400
"""Characters of an exception's message that are kept."""
Report = dict[str, Any]


def run(source: str, function: str | None, given: Any, compiled: Callable[[], None]) -> Report:
    """Compile a program and run it; ``compiled`` is called in between."""
    try:
        code = compile(source, NAME, "exec", dont_inherit=True)
    except BaseException as error:
        return _failure("compile_error", error)
    compiled()
    threads: list[Report] = []
    threading.excepthook = lambda args: threads.append(_failure("runtime_error", args.exc_value or args.exc_type()))
    try:
        value = _call(code, function, given) if function is not None else _main(code)
        ended = {"status": "ended", "value": _plain(value, 0)}
    except BaseException as error:
        return _failure("runtime_error", error)
    return threads[0] if threads else ended


def _main(code: CodeType) -> None:
    """As ``python program.py`` does: threads and exit hooks are part of the program."""
    try:
        exec(code, _module())
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in {id(stream): stream for stream in (sys.stdout, sys.__stdout__)}.values():
        if stream is not None:
            stream.flush()


def _module() -> dict[str, Any]:
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    return module.__dict__


def _call(code: CodeType, function: str, arguments: list[Any]) -> Any:
    space = _module()
    exec(code, space)
    name = function.removeprefix("Solution.")
    solution = space.get("Solution")
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)(*arguments)
    if name not in space:
        raise NameError(f"name {name!r} is not defined")
    return space[name](*arguments)


def _plain(value: Any, depth: int) -> Any:
    """JSON data without classes of the program; tuples become lists."""
    if depth > 100:
        raise RecursionError("the returned value is nested more than 100 deep")
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind.__add__(kind(), value) if kind is str else kind.__add__(value, 0)
    if isinstance(value, list | tuple):
        kind = list if isinstance(value, list) else tuple
        return [_plain(each, depth + 1) for each in kind.__iter__(value)]
    if isinstance(value, dict):
        return {_key(key): _plain(each, depth + 1) for key, each in dict.items(value)}
    raise TypeError(f"a {type(value).__name__} was returned, which is not JSON data")


def _key(key: Any) -> str:
    return key if type(key) is str else json.dumps(_plain(key, 100))


def _failure(status: str, error: BaseException) -> Report:
    line = error.lineno if isinstance(error, SyntaxError) and status == "compile_error" else _line(error.__traceback__)
    try:
        message = str(error)[:MESSAGE]
    except BaseException:
        message = ""
    return {"status": status, "error": type(error).__name__[:MESSAGE], "line": line, "message": message}


def _line(trace: TracebackType | None) -> int | None:
    """The deepest line of the program."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def streams() -> None:
    """New standard streams on the descriptors 0, 1 and 2, as an interpreter opens them."""
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(open(0, "rb", closefd=False), encoding="utf-8")
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8")
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(
        open(2, "wb", closefd=False), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )


def written(report: Mapping[str, Any], nonce: bytes, descriptor: int) -> None:
    """Send a report, which counts with this run's nonce only."""
    left = memoryview(nonce + json.dumps(report).encode() + nonce)
    while left:
        left = left[os.write(descriptor, left) :]
