"""Which part of a response is responsible for a program's failure, in characters."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from rrl.parts.rewards.outcomes import gravest
from rrl.verifiers.programs import Outcome, ProgramEvidence, find_program

_Line = tuple[str, int]
"""Text of a line, and where it begins in the response."""


class Region(NamedTuple):
    """Characters ``start`` to ``stop`` of a response: a line of the program, or the whole of it."""

    kind: Literal["line", "whole"]
    start: int
    stop: int


def responsible(evidence: ProgramEvidence, response: str) -> Region | None:
    """The responsible region; None when nothing is to blame, or the cause is unknown (RLTF, arXiv 2307.04349).

    Runtime error: its line, the deepest one in the program. Compile error: its line. A time-out, too deep recursion,
    and a compile error on the last line, as of a program that was cut off: the whole program. A wrong answer, a pass,
    an error without a line in the program: nothing.
    """
    result = gravest(evidence)
    program = find_program(response)
    if program is None or (program.source, program.start) != (evidence.program, evidence.start):
        return None
    lines = program.lines()
    if _blames_all(result.outcome, result.error, result.line, lines):
        return _of("whole", lines)
    if result.outcome not in (Outcome.RUNTIME_ERROR, Outcome.COMPILE_ERROR) or result.line is None:
        return None
    return _of("line", lines[result.line - 1 : result.line] if result.line >= 1 else [])


def _blames_all(outcome: Outcome, error: str | None, line: int | None, lines: Sequence[_Line]) -> bool:
    if outcome is Outcome.COMPILE_ERROR and line is not None:
        written = [number for number, (text, _) in enumerate(lines, start=1) if text.strip()]
        return line >= written[-1]
    return outcome is Outcome.TIME_OUT or (outcome is Outcome.RUNTIME_ERROR and error == "RecursionError")


def _of(kind: Literal["line", "whole"], lines: Sequence[_Line]) -> Region | None:
    """From the first to the last character that is not blank; None when all are."""
    written = [(text, start) for text, start in lines if text.strip()]
    if not written:
        return None
    (first, start), (last, stop) = written[0], written[-1]
    return Region(kind, start + len(first) - len(first.lstrip()), stop + len(last.rstrip()))
