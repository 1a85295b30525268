"""Programs judged by unit tests: run in the sandbox, compared outside of it, reported as evidence.

Expected outputs never enter the sandbox, so that no program can read them. Programs start to run as soon as a batch of
responses is written (``begin``); ``verify`` collects their results.
"""

import ast
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rrl.ranges import check_ranges, not_negative
from rrl.sandbox.runs import Job, ProgramRun
from rrl.sandbox.sandbox import Sandbox
from rrl.types import Feedback, Rollout, Verdict
from rrl.verifiers.program_output import same_output, same_value, wraps_each
from rrl.verifiers.programs import Outcome, ProgramEvidence, TestResult, find_program, parsed

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
OUTCOMES = {
    "ended": Outcome.RUNTIME_ERROR,  # with an error in a thread, and not with the right output
    "runtime_error": Outcome.RUNTIME_ERROR,
    "compile_error": Outcome.COMPILE_ERROR,
    "time_out": Outcome.TIME_OUT,
    "sandbox_failure": Outcome.SANDBOX_FAILURE,
}
"""Of runs that have not passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The tests of a problem.

    ``function`` None: the program is a script, and ``inputs`` and ``outputs`` are texts that it reads and prints. Else
    that function, or method of a class ``Solution``, is called with a list of arguments for each test and returns the
    output. ``entry`` is a function that a script defines and that has to be called for it to run (APPS+).
    """

    function: str | None
    entry: str | None
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    def as_text(self) -> str:
        """JSON, for the answer of an example."""
        entry = {"entry": self.entry} if self.entry else {}
        parts = {"function": self.function, **entry, "inputs": self.inputs, "outputs": self.outputs}
        return json.dumps(parts, ensure_ascii=False)

    @staticmethod
    def of(text: str) -> "Suite":
        """Back from ``as_text``. Raises ValueError, KeyError or TypeError for any other text."""
        parts = json.loads(text)
        inputs, outputs = tuple(parts["inputs"]), tuple(parts["outputs"])
        return Suite(function=parts["function"], entry=parts.get("entry"), inputs=inputs, outputs=outputs)

    def job(self, source: str) -> Job:
        """The job that runs a program on all tests."""
        return Job(source + self._call(source), self.function, self.inputs)

    def _call(self, source: str) -> str:
        """A call of ``entry`` at the end, where there is such a function and the program does not use it itself."""
        if self.entry is None or (tree := parsed(source)) is None:
            return ""
        outer = [node for node in tree.body if not isinstance(node, _DEFINITIONS)]
        used = {node.id for part in outer for node in ast.walk(part) if isinstance(node, ast.Name)}
        defined = {node.name for node in tree.body if isinstance(node, _DEFINITIONS)}
        call = self.entry in defined and not used & {self.entry, "__name__"}
        return f"\n\n{self.entry}()\n" if call else ""

    def passed(self, number: int, value: Any, tolerance: float) -> bool:
        """Whether test ``number`` expects this value."""
        expected = self.outputs[number]
        if self.function is None:
            return isinstance(value, str) and same_output(value, expected, tolerance)
        wrapped = wraps_each(self.outputs) and same_value(value, expected[0], tolerance)
        return wrapped or same_value(value, expected, tolerance)


@dataclass(kw_only=True)
class ProgramVerifier:
    """Judges responses by running their programs.

    ``tolerance`` is the absolute or relative error that fractions may have (see ``program_output.py``). Some rewards
    depend on the share of tests that is passed; for others ``stop_at_failure`` saves the tests after the first failure.
    """

    sandbox: Sandbox
    tolerance: float
    stop_at_failure: bool
    _pending: dict[tuple[str, str], tuple[Suite, Callable[[], list[ProgramRun]]]] = field(
        init=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        check_ranges(self, not_negative("tolerance"))

    def start(self) -> None:
        """Check that programs can be run. Raises DataError."""
        self.sandbox.start()

    def begin(self, rollouts: Sequence[Rollout]) -> None:
        """Submit the programs of these responses, each different one once."""
        for rollout in rollouts:
            self._submit(rollout)

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """One feedback per rollout, in order; waits for what still runs.

        RIGHT (score 1) when all tests are passed; UNPARSEABLE when there is no program; ERROR when the sandbox failed
        on any test; else WRONG. The evidence is a ``ProgramEvidence``.
        """
        self.begin(rollouts)
        feedback = [self._judge(rollout) for rollout in rollouts]
        self._pending.clear()  # the rest was begun here and is verified by another rank
        return feedback

    def _submit(self, rollout: Rollout) -> None:
        program = find_program(rollout.response)
        if program is not None:
            key = (rollout.state.problem.example.answer, program.source)
            if key not in self._pending:
                suite = Suite.of(key[0])
                self._pending[key] = suite, self._started(suite, program.source)

    def _started(self, suite: Suite, source: str) -> Callable[[], list[ProgramRun]]:
        """Have a program run; what is returned waits for its runs."""
        job = suite.job(source)
        if self.stop_at_failure:
            return self.sandbox.submit_in_turn(job, partial(self._is_passed, suite, source)).result
        futures = self.sandbox.submit(job)
        return lambda: [future.result() for future in futures]

    def _is_passed(self, suite: Suite, source: str, number: int, run: ProgramRun) -> bool:
        return self._result(suite, source, number, run).outcome is Outcome.PASSED

    def _judge(self, rollout: Rollout) -> Feedback:
        program = find_program(rollout.response)
        answer = rollout.state.problem.example.answer
        if program is None:
            total = len(Suite.of(answer).inputs)
            return feedback_of(ProgramEvidence(Outcome.NO_PROGRAM, None, 0, 0, total, None, None, "", ()))
        suite, runs = self._pending[answer, program.source]
        tests = tuple(self._result(suite, program.source, i, run) for i, run in enumerate(runs()))
        return feedback_of(evidence_of(program.source, program.start, tests, len(suite.inputs)))

    def _result(self, suite: Suite, source: str, number: int, run: ProgramRun) -> TestResult:
        if run.status == "ended":
            if suite.passed(number, run.value, self.tolerance):
                return TestResult(Outcome.PASSED)
            if run.error is None:
                return TestResult(Outcome.WRONG_ANSWER)
        inside = run.line is not None and run.line <= source.count("\n") + 1
        return TestResult(OUTCOMES[run.status], run.error, run.line if inside else None, run.message)


def evidence_of(source: str, start: int, tests: tuple[TestResult, ...], total: int) -> ProgramEvidence:
    """The outcome is that of the first test that is not passed, or of a failure of the sandbox, if there is one.

    ``tests`` are those of the ``total`` that ran.
    """
    passed = sum(test.outcome is Outcome.PASSED for test in tests)
    failed = [test for test in tests if test.outcome is Outcome.SANDBOX_FAILURE] + [
        test for test in tests if test.outcome is not Outcome.PASSED
    ]
    first = failed[0] if failed else TestResult(Outcome.PASSED)
    return ProgramEvidence(
        first.outcome, source, start, passed, total, first.error, first.line, first.message, tests
    )  # fmt: skip


def feedback_of(evidence: ProgramEvidence) -> Feedback:
    verdicts = {
        Outcome.PASSED: Verdict.RIGHT,
        Outcome.NO_PROGRAM: Verdict.UNPARSEABLE,
        Outcome.SANDBOX_FAILURE: Verdict.ERROR,
    }
    verdict = verdicts.get(evidence.outcome, Verdict.WRONG)
    return Feedback(float(verdict is Verdict.RIGHT), verdict, evidence.as_mapping())
