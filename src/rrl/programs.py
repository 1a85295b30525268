"""Programs in responses: where one stands in the text, and what came of running it on a task's tests."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

_FENCE = re.compile(r"^[ \t]*```[ \t]*(?:python|py)?[0-9]*[ \t]*\r?\n", re.MULTILINE | re.IGNORECASE)
_FENCE_END = re.compile(r"^[ \t]*```", re.MULTILINE)


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
    """The program in a response: the last fenced block or, where there is none, all of the text; None for a blank.

    A block that is still open at the end (a response cut off by the length limit) counts.
    """
    fences = []
    position = 0
    while fence := _FENCE.search(response, position):
        end = _FENCE_END.search(response, fence.end())
        fences.append((fence.end(), end.start() if end else len(response)))
        position = end.end() if end else len(response)
    start, stop = fences[-1] if fences else (0, len(response))
    source = response[start:stop]
    return Program(source, start) if source.strip() else None
