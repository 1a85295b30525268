"""The input and output of the sandbox: plain data."""

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ended", "runtime_error", "compile_error", "time_out", "sandbox_failure"]


@dataclass(frozen=True, slots=True)
class Job:
    """A program and its inputs, each of which runs in a separate process.

    Without a ``function`` the program reads and prints, and each input is the text of its standard input. With one,
    each input is the list of that function's arguments, as JSON data. "Solution.name" and "name" mean the same: the
    method of class ``Solution`` where the program has one, else a plain function.
    """

    source: str
    function: str | None
    inputs: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """The result of one input.

    ``value`` is the output or the returned JSON data when the program ended, else None. ``error`` is the type of the
    exception, or the name of the limit or the signal; ``line`` the deepest line of the program in the traceback, from
    1. A program that reads and prints and has ended has an ``error`` where one of its threads failed.
    """

    status: Status
    value: Any
    error: str | None
    line: int | None
    message: str
    seconds: float
