"""Programs judged by tests that call them and assert, so that no program can forge its pass.

A test and the values that it expects stay out of the program's process: the calls that the test makes are recorded from
the reference solution (``rehearsal.py``), the program makes the same calls, and the test runs on what came back, in
another process, where it has to reach its end.
"""

import ast
import inspect
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from rrl.sandbox.runs import Job, ProgramRun
from rrl.sandbox.sandbox import Sandbox
from rrl.types import Feedback, Rollout
from rrl.verifiers import rehearsal
from rrl.verifiers.program_verifier import OUTCOMES, evidence_of, feedback_of
from rrl.verifiers.programs import Outcome, Program, ProgramEvidence, TestResult, find_program, parsed

log = logging.getLogger(__name__)
UNCOMPILED = ("SyntaxError", "IndentationError", "TabError")
Rehearsed = Sequence[ProgramRun] | str
"""For each test the run that recorded its calls and the reference's values; or why they cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The tests of a problem: programs that call ``functions``, which a ``reference`` program defines.

    ``opening`` is the code that a response may go on with: it counts before a program that does not define the
    functions, and up to the first of them (imports, helpers) before one that does.
    """

    opening: str
    reference: str
    functions: tuple[str, ...]
    tests: tuple[str, ...]

    def as_text(self) -> str:
        """JSON, for the answer of an example."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def of(text: str) -> "Trial":
        """Back from ``as_text``. Raises ValueError, KeyError or TypeError for any other text."""
        parts = json.loads(text)
        return Trial(**{**parts, "functions": tuple(parts["functions"]), "tests": tuple(parts["tests"])})

    def known(self, test: str) -> list[Any]:
        """What a test is run with."""
        return [self.reference, list(self.functions), test]

    def split(self, program: Program) -> tuple[str, str, int]:
        """What runs before the program, the program, and the number of lines before its own."""
        if self.opening and not set(self.functions) & _defined(program.source):
            return "", f"{self.opening}{program.source}", self.opening.count("\n")
        return self.opening.partition(f"def {self.functions[0]}(")[0], program.source, 0


@dataclass(kw_only=True)
class AssertVerifier:
    """Judges responses by running their programs, and the tests on what they return."""

    sandbox: Sandbox
    _rehearsed: dict[str, Rehearsed] = field(init=False, default_factory=dict, repr=False)

    def start(self) -> None:
        """Check that programs can be run. Raises DataError."""
        self.sandbox.start()

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """One feedback per rollout, in order; each different program is run once.

        RIGHT (score 1) when every test came to its end on the program's own values; UNPARSEABLE when there is no
        program; ERROR when the sandbox failed, or where the reference itself does not pass; else WRONG. The evidence is
        a ``ProgramEvidence``.
        """
        asked = [(each.state.problem.example.answer, find_program(each.response)) for each in rollouts]
        self._rehearse(list(dict.fromkeys(answer for answer, _ in asked if answer not in self._rehearsed)))
        attempts = {pair: Attempt(Trial.of(pair[0]), pair[1], self._rehearsed[pair[0]]) for pair in asked}
        self._try([attempt for attempt in attempts.values() if attempt.fit])
        self._forget()
        return [feedback_of(attempts[pair].evidence()) for pair in asked]

    def _rehearse(self, answers: Sequence[str]) -> None:
        """Record the calls of problems from their references, and see that the references pass."""
        trials = [Trial.of(answer) for answer in answers]
        recorded = self._runs([_job("record", [trial.known(test) for test in trial.tests]) for trial in trials])
        replayed = self._runs(
            [
                _replay(trial, runs, [_value(run, "values") for run in runs])
                for trial, runs in zip(trials, recorded, strict=True)
            ]
        )
        for answer, trial, *runs in zip(answers, trials, recorded, replayed, strict=True):
            failed = next((run for run in (*runs[0], *runs[1]) if run.status != "ended"), None)
            self._rehearsed[answer] = runs[0] if failed is None else f"{failed.error}: {failed.message}"
            if failed is not None:
                log.warning("tests of %s: the reference does not pass: %s", trial.functions[0], self._rehearsed[answer])

    def _try(self, attempts: Sequence["Attempt"]) -> None:
        """Have the programs make their calls, and the tests of those that did run."""
        for attempt, runs in zip(attempts, self._runs([each.performance() for each in attempts]), strict=True):
            attempt.performed = runs
        for attempt, runs in zip(attempts, self._runs([each.replay() for each in attempts]), strict=True):
            attempt.replayed = runs

    def _runs(self, jobs: Sequence[Job]) -> list[list[ProgramRun]]:
        """The runs of these jobs, which run at the same time."""
        started = [self.sandbox.submit(job) for job in jobs]
        return [[each.result() for each in runs] for runs in started]

    def _forget(self) -> None:
        """What the sandbox failed on is rehearsed again."""
        for answer, calls in list(self._rehearsed.items()):
            if isinstance(calls, str) and calls.startswith("SandboxFailure"):
                del self._rehearsed[answer]


@dataclass(eq=False)
class Attempt:
    """A response's program (None: it has none) at a problem whose calls are recorded (or the reason why not).

    ``performed`` is the run of the calls of each test, ``replayed`` that of each test whose calls came to their end.
    """

    trial: Trial
    program: Program | None
    recorded: Rehearsed
    performed: Sequence[ProgramRun] = ()
    replayed: Sequence[ProgramRun] = ()

    @property
    def fit(self) -> bool:
        """Whether there is something to run."""
        return self.program is not None and not isinstance(self.recorded, str)

    def performance(self) -> Job:
        """The program and the calls of each test; the job's own lines lie behind those of the program."""
        assert self.program is not None and not isinstance(self.recorded, str), "the caller checks"
        before, source, _ = self.trial.split(self.program)
        inputs = tuple([before, source, run.value["calls"]] for run in self.recorded)
        return Job("\n" * (source.count("\n") + 1) + _source(), "perform", inputs)

    def replay(self) -> Job:
        """The tests, on the values of the program."""
        assert not isinstance(self.recorded, str), "the caller checks"
        return _replay(self.trial, self.recorded, [_value(run) for run in self.performed])

    def evidence(self) -> ProgramEvidence:
        """What came of it."""
        total = len(self.trial.tests)
        if self.program is None:
            return ProgramEvidence(Outcome.NO_PROGRAM, None, 0, 0, total, None, None, "", ())
        source, start = self.program.source, self.program.start
        if isinstance(self.recorded, str):
            message = f"the reference does not pass: {self.recorded}"
            return ProgramEvidence(Outcome.SANDBOX_FAILURE, source, start, 0, total, None, None, message, ())
        ends = iter(self.replayed)
        tests = [_verdict(next(ends)) if run.status == "ended" else self._failure(run) for run in self.performed]
        return evidence_of(source, start, tuple(tests), len(tests))

    def _failure(self, run: ProgramRun) -> TestResult:
        """The result of a test whose calls have failed, with the line of the program."""
        assert self.program is not None, "the caller checks"
        outcome = Outcome.COMPILE_ERROR if run.error in UNCOMPILED else OUTCOMES[run.status]
        line = (run.line or 0) - self.trial.split(self.program)[2]
        inside = 1 <= line <= self.program.source.count("\n") + 1
        return TestResult(outcome, run.error, line if inside else None, run.message)


@cache
def _source() -> str:
    return inspect.getsource(rehearsal)


def _job(function: str, inputs: Sequence[Any]) -> Job:
    return Job(_source(), function, tuple(inputs))


def _value(run: ProgramRun, part: str | None = None) -> Any:
    """The value of a run, or a part of it; None where it did not end."""
    return None if run.status != "ended" else run.value if part is None else run.value[part]


def _replay(trial: Trial, recorded: Sequence[ProgramRun], values: Sequence[Any]) -> Job:
    """Each test on these values of its recorded calls; tests without values are left out."""
    rows = zip(trial.tests, recorded, values, strict=True)
    return _job("replay", [[*trial.known(test), run.value["calls"], own] for test, run, own in rows if own is not None])


def _verdict(end: ProgramRun) -> TestResult:
    """The result of a test that was run on the program's values."""
    if end.status == "ended" and end.value == "passed":
        return TestResult(Outcome.PASSED)
    outcome = Outcome.SANDBOX_FAILURE if end.status == "sandbox_failure" else Outcome.WRONG_ANSWER
    return TestResult(outcome, None, None, end.message)


def _defined(source: str) -> set[str]:
    """The names that a program defines at its outermost level."""
    tree = parsed(source)
    body = [] if tree is None else tree.body
    names = {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    return names.union(*(_targets(node) for node in body))


def _targets(node: ast.stmt) -> set[str]:
    """The names that a statement assigns."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
