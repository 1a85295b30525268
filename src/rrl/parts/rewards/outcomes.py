"""What came of a program over all of its tests, and what that is worth."""

from dataclasses import dataclass

from rrl.verifiers.programs import Outcome, ProgramEvidence, TestResult

_GRAVITY = {
    Outcome.PASSED: 0,
    Outcome.WRONG_ANSWER: 1,
    Outcome.RUNTIME_ERROR: 2,
    Outcome.TIME_OUT: 2,
    Outcome.COMPILE_ERROR: 3,
    Outcome.NO_PROGRAM: 3,
}


def gravest(evidence: ProgramEvidence) -> TestResult:
    """The gravest result of all tests, the first of its class: a crash in any test outweighs a wrong answer in another.

    Raises ValueError for evidence of a sandbox failure, which is no result of the program.
    """
    if evidence.outcome is Outcome.SANDBOX_FAILURE:
        raise ValueError("evidence: the sandbox failed; expected the verdict 'error', which is left out of training")
    first = TestResult(evidence.outcome, evidence.error, evidence.line, evidence.message)
    judged = [test for test in evidence.tests if test.outcome is not Outcome.SANDBOX_FAILURE]
    return max((first, *judged), key=lambda result: _GRAVITY[result.outcome])


@dataclass(frozen=True, kw_only=True)
class Pay:
    """What each class of outcome earns.

    ``runtime_error`` is for time-outs too, ``compile_error`` for a response without a program too.
    """

    passed: float
    wrong_answer: float
    runtime_error: float
    compile_error: float

    def of(self, outcome: Outcome) -> float:
        """The pay for an outcome."""
        return (self.passed, self.wrong_answer, self.runtime_error, self.compile_error)[_GRAVITY[outcome]]
