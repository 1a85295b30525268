"""Which part of a response is responsible for a program's failure, in characters."""

import re
from typing import Literal, NamedTuple

from rrl.programs import Outcome, ProgramEvidence
from rrl.rewards.outcomes import gravest

_NEWLINE = re.compile(r"\r\n|\r|\n")
"""Where Python begins a new line; ``str.splitlines`` knows more kinds, at which Python counts none."""


class Region(NamedTuple):
    """Characters ``start`` to ``stop`` of a response: a line of the program, or the whole of it."""

    kind: Literal["line", "whole"]
    start: int
    stop: int


def responsible(evidence: ProgramEvidence, response: str) -> Region | None:
    """The responsible region; None when nothing is to blame, or nobody knows what (RLTF, arXiv 2307.04349).

    Runtime error: its line, the deepest one in the program. Compile error: its line. A time-out, too deep recursion,
    and a compile error on the last line, as of a program that was cut off: the whole program. A wrong answer, a pass,
    an error without a line in the program: nothing.
    """
    result = gravest(evidence)
    source = evidence.program or ""
    if not source or response[evidence.start : evidence.start + len(source)] != source:
        return None
    if _blames_all(result.outcome, result.error, result.line, source):
        return _trimmed("whole", source, 0, len(source), evidence.start)
    if result.outcome not in (Outcome.RUNTIME_ERROR, Outcome.COMPILE_ERROR) or result.line is None:
        return None
    lines = _lines(source)
    if not 1 <= result.line <= len(lines):
        return None
    return _trimmed("line", source, *lines[result.line - 1], evidence.start)


def _blames_all(outcome: Outcome, error: str | None, line: int | None, source: str) -> bool:
    if outcome is Outcome.COMPILE_ERROR and line is not None:
        written = [number for number, (start, stop) in enumerate(_lines(source), start=1) if source[start:stop].strip()]
        return line >= written[-1]
    return outcome is Outcome.TIME_OUT or (outcome is Outcome.RUNTIME_ERROR and error == "RecursionError")


def _lines(source: str) -> list[tuple[int, int]]:
    """Where each line begins and ends, its newline left out."""
    ends = [(found.start(), found.end()) for found in _NEWLINE.finditer(source)]
    starts = [0, *(following for _, following in ends)]
    return list(zip(starts, [*(end for end, _ in ends), len(source)], strict=True))


def _trimmed(kind: Literal["line", "whole"], source: str, start: int, stop: int, offset: int) -> Region | None:
    """The region without blanks around it; None when it is all blank."""
    text = source[start:stop]
    begin = start + len(text) - len(text.lstrip())
    return Region(kind, offset + begin, offset + begin + len(text.strip())) if text.strip() else None
