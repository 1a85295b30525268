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
Rehearsed = list[dict[str, Any]] | str
"""For each test its calls and the reference's values; or why they cannot be had."""


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
        """One feedback per rollout, in order.

        RIGHT (score 1) when every test came to its end on the program's own values; UNPARSEABLE when there is no
        program; ERROR when the sandbox failed, or where the reference itself does not pass; else WRONG. The evidence is
        a ``ProgramEvidence``.
        """
        programs = [find_program(rollout.response) for rollout in rollouts]
        answers = [rollout.state.problem.example.answer for rollout in rollouts]
        self._rehearse(dict.fromkeys(answers))
        pairs = dict.fromkeys((a, p) for a, p in zip(answers, programs, strict=True) if p is not None)
        judged = self._tried(list(pairs))
        none = {answer: len(Trial.of(answer).tests) for answer in answers}
        self._forget()
        return [
            feedback_of(judged[answer, program] if program is not None else _without_program(none[answer]))
            for answer, program in zip(answers, programs, strict=True)
        ]

    def _rehearse(self, answers: "dict[str, None]") -> None:
        """Record the calls of new problems from their references, and see that the references pass."""
        new = {answer: Trial.of(answer) for answer in answers if answer not in self._rehearsed}
        started = {
            answer: self.sandbox.submit(_job("record", [_known(trial, test) for test in trial.tests]))
            for answer, trial in new.items()
        }
        recorded = {answer: [each.result() for each in runs] for answer, runs in started.items()}
        replays = {
            answer: self._replay(new[answer], [run.value for run in runs], [run.value["values"] for run in runs])
            for answer, runs in recorded.items()
            if all(run.status == "ended" for run in runs)
        }
        for answer, runs in recorded.items():
            all_runs = [*runs, *(each.result() for each in replays.get(answer, []))]
            failed = next((run for run in all_runs if run.status != "ended"), None)
            self._rehearsed[answer] = [run.value for run in runs] if failed is None else _reason(failed)
            if failed is not None:
                log.warning("tests of %s: the reference does not pass: %s", new[answer].functions[0], _reason(failed))

    def _forget(self) -> None:
        """What the sandbox failed on is rehearsed again."""
        for answer, calls in list(self._rehearsed.items()):
            if isinstance(calls, str) and calls.startswith("SandboxFailure"):
                del self._rehearsed[answer]

    def _tried(self, pairs: Sequence[tuple[str, Program]]) -> dict[tuple[str, Program], ProgramEvidence]:
        """The evidence about each program: the calls of all first, then the tests of those that made them."""
        trials = {answer: Trial.of(answer) for answer, _ in pairs}
        fit = [(a, p, calls) for a, p in pairs if not isinstance(calls := self._rehearsed[a], str)]
        started = [self.sandbox.submit(_performance(trials[a], p, calls)) for a, p, calls in fit]
        performed = [[each.result() for each in runs] for runs in started]
        replays = [
            self._replay(trials[a], calls, [run.value if run.status == "ended" else None for run in runs])
            for (a, _, calls), runs in zip(fit, performed, strict=True)
        ]
        found = {
            (a, p): evidence_of(
                p.source,
                p.start,
                tuple(_result(trials[a].split(p)[2], p, *each) for each in zip(runs, tests, strict=True)),
            )
            for (a, p, _), runs, tests in zip(fit, performed, replays, strict=True)
        }
        return {pair: found.get(pair) or self._unfit(*pair) for pair in pairs}

    def _replay(self, trial: Trial, recorded: Sequence[dict[str, Any]], values: Sequence[Any]) -> list[Any]:
        """A future run of each test on these values; None where there are none."""
        inputs = [
            [*_known(trial, test), known["calls"], own]
            for test, known, own in zip(trial.tests, recorded, values, strict=True)
            if own is not None
        ]
        runs = iter(self.sandbox.submit(_job("replay", inputs)))
        return [None if own is None else next(runs) for own in values]

    def _unfit(self, answer: str, program: Program) -> ProgramEvidence:
        """The evidence where the tests could not be rehearsed."""
        total, why = len(Trial.of(answer).tests), str(self._rehearsed[answer])
        message = f"the reference does not pass: {why}"
        return ProgramEvidence(
            Outcome.SANDBOX_FAILURE, program.source, program.start, 0, total, None, None, message, ()
        )  # fmt: skip


@cache
def _source() -> str:
    return inspect.getsource(rehearsal)


def _job(function: str, inputs: Sequence[Any]) -> Job:
    return Job(_source(), function, tuple(inputs))


def _known(trial: Trial, test: str) -> list[Any]:
    return [trial.reference, list(trial.functions), test]


def _performance(trial: Trial, program: Program, recorded: Sequence[dict[str, Any]]) -> Job:
    """The job that makes the calls of each test; its own lines lie behind those of the program."""
    before, source, _ = trial.split(program)
    inputs = tuple([before, source, known["calls"]] for known in recorded)
    return Job("\n" * (source.count("\n") + 1) + _source(), "perform", inputs)


def _result(shift: int, program: Program, run: ProgramRun, test: Any) -> TestResult:
    """The result of a test: of the program's calls where they failed, else of the test on their values."""
    if run.status != "ended":
        outcome = Outcome.COMPILE_ERROR if run.error in UNCOMPILED else OUTCOMES[run.status]
        line = (run.line or 0) - shift
        inside = 1 <= line <= program.source.count("\n") + 1
        return TestResult(outcome, run.error, line if inside else None, run.message)
    end: ProgramRun = test.result()
    if end.status == "sandbox_failure":
        return TestResult(Outcome.SANDBOX_FAILURE, end.error, None, end.message)
    passed = end.status == "ended" and end.value == "passed"
    return TestResult(Outcome.PASSED) if passed else TestResult(Outcome.WRONG_ANSWER, None, None, end.message)


def _reason(run: ProgramRun) -> str:
    return f"{run.error}: {run.message}"


def _without_program(total: int) -> ProgramEvidence:
    return ProgramEvidence(Outcome.NO_PROGRAM, None, 0, 0, total, None, None, "", ())


def _defined(source: str) -> set[str]:
    """The names that a program defines at its outermost level."""
    tree = parsed(source)
    body = [] if tree is None else tree.body
    names = {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    return names.union(*(_targets(node) for node in body))


def _targets(node: ast.stmt) -> set[str]:
    """The names that a statement assigns."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
