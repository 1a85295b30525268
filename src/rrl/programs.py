"""Programs in responses: where one stands in the text, and what came of running it on a task's tests."""

import ast
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, NamedTuple

_FENCE = re.compile(r"^[ \t]*(?P<mark>`{3,}|~{3,})(?P<info>(?![`~])[^`\n]*)$", re.MULTILINE)
_PYTHON = re.compile(r"(py|python)[0-9.]*", re.IGNORECASE)


MAX_CHARACTERS = 32_768
"""A longer program is not parsed: nothing shorter overflows the C stack of CPython 3.10 to 3.13 (2 MB were enough)."""


class Outcome(str, Enum):
    """What came of a program: of one test, or of all of them together."""

    PASSED = "passed"
    WRONG_ANSWER = "wrong_answer"
    RUNTIME_ERROR = "runtime_error"
    COMPILE_ERROR = "compile_error"
    TIME_OUT = "time_out"
    NO_PROGRAM = "no_program"
    SANDBOX_FAILURE = "sandbox_failure"
    """The sandbox's own fault: counted, and neither rewarded nor punished."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program found in a response; ``start`` is the index of its first character there."""

    source: str
    start: int


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test: its outcome and, where there was an error, its type, 1-based line of the program and message."""

    outcome: Outcome
    error: str | None = None
    line: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProgramEvidence:
    """All that a verifier of programs tells of one response, as the ``evidence`` of its feedback.

    ``outcome`` is that of the first test that is not passed, or PASSED; ``error`` and ``line`` belong to it.
    ``program`` is None when the response has none; ``start`` is where it begins in the response.
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
        """Back from plain data."""
        tests = tuple(TestResult(**{**test, "outcome": Outcome(test["outcome"])}) for test in evidence["tests"])
        return ProgramEvidence(**{**evidence, "outcome": Outcome(evidence["outcome"]), "tests": tests})


def find_program(response: str) -> Program | None:
    """The program in a response; None when there is none.

    It is the last fenced block that is marked as Python and not blank; failing that, the last one without a mark;
    where nothing is fenced, all of the text. A block that is still open at the end
    (a response cut off by the length limit) counts.
    """
    blocks = list(_blocks(response))
    filled = [block for block in blocks if response[block.start : block.stop].strip()]
    python = [block for block in filled if _PYTHON.fullmatch(block.language)]
    unmarked = [block for block in filled if not block.language]
    chosen = [(block.start, block.stop) for block in (python or unmarked)[-1:]] or _bare(response, blocks)
    return Program(response[slice(*chosen[0])], chosen[0][0]) if chosen else None


class _Block(NamedTuple):
    language: str
    start: int
    stop: int


def _blocks(response: str) -> Iterator[_Block]:
    """Every fenced block. A fence with a language opens one, wherever it stands."""
    opened = None
    for fence in _FENCE.finditer(response):
        info = fence["info"].strip()
        if opened is not None and (info or fence["mark"].startswith(opened["mark"])):
            yield _block(response, opened, fence.start())
            opened = fence if info else None
        elif opened is None:
            opened = fence
    if opened is not None:
        yield _block(response, opened, len(response))


def _block(response: str, opened: re.Match[str], stop: int) -> _Block:
    language = opened["info"].strip("{} \t\r").lstrip(".").partition(" ")[0]
    return _Block(language, min(opened.end() + 1, len(response)), stop)


def _bare(response: str, blocks: Sequence[_Block]) -> list[tuple[int, int]]:
    """Where plain code stands that has no fence, or a closing one only, as where the prompt has opened the block."""
    stop = len(response)
    if blocks:
        fence = _FENCE.search(response)
        stray = fence is not None and not fence["info"].strip() and not response[fence.end() :].strip()
        stop = fence.start() if fence is not None and stray else 0
    return [(0, stop)] if response[:stop].strip() else []


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
