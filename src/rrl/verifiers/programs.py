"""Programs in responses: their places in the text, and the outcomes of running them on a task's tests."""

import ast
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from functools import lru_cache
from itertools import pairwise
from typing import Any

from rrl.verifiers.blocks import INVISIBLE, Span, blocks, dedented, lines_of, typed
from rrl.verifiers.conclusions import END_OF_REASONING

_REASONED = re.compile(rf"^[^\S\n]*{END_OF_REASONING}|{END_OF_REASONING}[^\S\n]*$", re.MULTILINE)
"""The end of reasoning, at an end of a line: within a line it may be a program's text."""
_SPAN = re.compile(r"(?<!`)```(?:py|python)[0-9.]*[ \t]+(?P<code>[^`\n]+)```(?!`)", re.IGNORECASE)
"""A program of one line with its fences."""
MAX_CHARACTERS = 32_768
"""A longer program is not parsed: nothing shorter overflows the C stack of CPython 3.10 to 3.13 (2 MB were enough)."""


class Outcome(str, Enum):
    """The outcome of a program: on one test, or on all of them together."""

    PASSED = "passed"
    WRONG_ANSWER = "wrong_answer"
    RUNTIME_ERROR = "runtime_error"
    COMPILE_ERROR = "compile_error"
    TIME_OUT = "time_out"
    NO_PROGRAM = "no_program"
    SANDBOX_FAILURE = "sandbox_failure"
    """A fault of the sandbox: counted, and neither rewarded nor punished."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program found in a response; ``starts`` are the indices there at which its lines begin."""

    source: str
    starts: tuple[int, ...]

    @property
    def start(self) -> int:
        """The index of its first character in the response."""
        return self.starts[0]

    def lines(self) -> list[tuple[str, int]]:
        """Each line, with the index in the response at which it begins."""
        texts = [self.source[slice(*line)] for line in lines_of(self.source, 0, len(self.source))]
        return list(zip(texts, self.starts, strict=True))


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test: its outcome and, where there was an error, its type, 1-based line of the program and message."""

    outcome: Outcome
    error: str | None = None
    line: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProgramEvidence:
    """The ``evidence`` of a verifier of programs about one response.

    ``outcome`` is that of the first test that is not passed, or PASSED; ``error`` and ``line`` belong to it.
    ``program`` is None when the response has none; ``start`` is where it begins in the response. ``tests`` are those
    of the ``total`` that ran.
    """

    outcome: Outcome
    program: str | None
    start: int
    passed: int
    total: int
    error: str | None
    line: int | None
    message: str
    tests: tuple[TestResult, ...]

    def as_mapping(self) -> dict[str, Any]:
        """Plain data."""
        tests = [{**asdict(test), "outcome": test.outcome.value} for test in self.tests]
        return {**asdict(self), "outcome": self.outcome.value, "tests": tests}

    @staticmethod
    def of(evidence: Mapping[str, Any]) -> "ProgramEvidence":
        """Back from plain data, in which a task may have more."""
        tests = tuple(TestResult(**{**test, "outcome": Outcome(test["outcome"])}) for test in evidence["tests"])
        own = {name: evidence[name] for name in ProgramEvidence.__dataclass_fields__}
        return ProgramEvidence(**{**own, "outcome": Outcome(evidence["outcome"]), "tests": tests})


@lru_cache(maxsize=1024)  # the judge, rewards and each of their regions need it for one response
def find_program(response: str) -> Program | None:
    """The program in a response; None when there is none.

    It is the last fenced block that is marked as Python and not blank; failing that, the last one without a mark;
    where nothing is fenced, all of the text. A block that is still open at the end (a response cut off by the length
    limit) counts. A program after the end of reasoning (``</think>`` and similar) takes precedence over one in it.
    Marks of quotes, shared indentation and the prompts of a session are no part of a program.
    """
    concluded = max((found.end() for found in _REASONED.finditer(response)), default=0)
    return (concluded and _stated(response, concluded)) or _fenced(response, 0) or _bare(response, 0)


def _stated(response: str, start: int) -> Program | None:
    """A program behind reasoning; text that cannot be parsed does not count there."""
    bare = _bare(response, start)
    return _fenced(response, start) or (bare if bare is not None and parsed(bare.source) is not None else None)


def _fenced(response: str, start: int) -> Program | None:
    found = blocks(response, start)
    programs = [(block.fence, _program(response, dedented(response, block.lines))) for block in found]
    python = [program for fence, program in programs if program is not None and fence.python]
    unmarked = [program for fence, program in programs if program is not None and not fence.language]
    spans = [Span(*span.span("code")) for span in _SPAN.finditer(response, start)] if not found else []
    return next(reversed(python or unmarked), None) or _program(response, spans[-1:])


def _bare(response: str, start: int) -> Program | None:
    """Plain code that has no fence, or a closing one only, as where the prompt has opened the block."""
    stop = len(response)
    for block in blocks(response, start)[:1]:
        stray = not block.fence.language and not response[block.fence.stop :].strip()
        stop = block.fence.start if stray else start
    return _program(response, lines_of(response, start, stop))


def _program(response: str, lines: Sequence[Span]) -> Program | None:
    """The program in these lines; None when they are blank."""
    kept = typed(response, lines)
    texts = [response[slice(*line)] for line in kept]
    # The end of a line and the next line, empty without its marks, must not become one end of a line.
    ends = [f"{text[:-1]}\n" if text[-1:] + after[:1] == "\r\n" else text for text, after in pairwise([*texts, ""])]
    source = "".join(ends)
    if all(letter.isspace() or letter in INVISIBLE for letter in source):
        return None
    invisible = len(source) - len(source.lstrip(INVISIBLE))
    return Program(source[invisible:], (kept[0].start + invisible, *(line.start for line in kept[1:])))


def parsed(source: str) -> ast.Module | None:
    """A program's syntax tree; None when it is no Python or too large. Never raises, whatever the text is."""
    if len(source) > MAX_CHARACTERS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes and the like in code that is not ours
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
