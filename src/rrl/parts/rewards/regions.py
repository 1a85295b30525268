"""Which part of a response is responsible for a program's failure, in characters and in tokens of any tokenizer."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from rrl.parts.rewards.outcomes import gravest
from rrl.verifiers.programs import Outcome, ProgramEvidence, find_program

Span = tuple[int, int]
"""The first character and the one after the last."""
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


def token_spans(tokens: Sequence[int], text: str, decode: Callable[[Sequence[int]], str]) -> list[Span]:
    """The characters of ``text``, which is what ``tokens`` decode to, that each token stands for.

    A token ends where the tokens up to it, decoded, cease to agree with the text. If they go on, then with a character
    that later tokens complete, as do the bytes of an emoji: that one belongs to each of them. What decodes to more than
    the text has, such as an end token, lies at its end.

    The work grows with the number of tokens. Only where the pieces do not make up the text, as with bytes that are no
    UTF-8 under some tokenizers, every beginning is decoded whole.
    """
    spans, reached = _walk(tokens, text, decode, restart=True)
    return spans if reached == len(text) else _walk(tokens, text, decode, restart=False)[0]


def _walk(
    tokens: Sequence[int], text: str, decode: Callable[[Sequence[int]], str], *, restart: bool
) -> tuple[list[Span], int]:
    """The spans, and how far they reach.

    With ``restart`` decoding starts anew where all agreed, and one such place back, for some decoders drop a blank at
    the very beginning.
    """
    spans: list[Span] = []
    context = begin = 0  # tokens[context:begin] are decoded again, for what follows them
    lead = known = 0  # how many characters those give, and where in the text they end
    reached = 0
    for position in range(len(tokens)):
        tail = decode(tokens[context : position + 1])[lead:]
        agreed = _agreement(tail, text[known : known + len(tail)])
        whole = agreed == len(tail)
        end = max(reached, known + agreed)
        spans.append((reached, end if whole else min(end + 1, len(text))))
        reached = end
        if restart and whole and agreed:
            lead = len(decode(tokens[begin : position + 1]))
            context, begin, known = begin, position + 1, known + agreed
    return spans, reached


def _agreement(first: str, second: str) -> int:
    """How many characters two texts have in common from the beginning."""
    differing = (index for index, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    return next(differing, min(len(first), len(second)))


def tokens_over(spans: Sequence[Span], start: int, stop: int) -> list[int]:
    """The tokens that have a character of ``start`` to ``stop``."""
    return [index for index, (first, last) in enumerate(spans) if first < stop and last > start]
