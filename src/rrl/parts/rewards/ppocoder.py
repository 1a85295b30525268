"""PPOCoder's reward: what became of the program, and how much of the reference's structure it has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rrl.interfaces import Reward
from rrl.parts.rewards.code_match import Match, Structure, match, structure
from rrl.parts.rewards.outcomes import Pay, gravest
from rrl.ranges import check_ranges, not_negative
from rrl.types import Judged, Metrics
from rrl.verifiers.programs import Outcome, ProgramEvidence, find_program

_NOTHING = Match(0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class PPOCoder(Reward):
    """PPOCoder (Shojaee et al., arXiv 2301.13816): pays on the last token

        signal_weight signal + syntax_weight syntactic match + semantics_weight semantic match

    ``signal: tests`` is what ``pay`` gives for the outcome of the tests; ``signal: compile`` gives its ``passed`` to
    whatever compiles and its ``compile_error`` to the rest. The matches, in [0, 1], compare the program with that of
    the problem's reference (``code_match.py``); they are 0 where either of them cannot be parsed.
    """

    signal: Literal["compile", "tests"]
    pay: Pay
    signal_weight: float
    syntax_weight: float
    semantics_weight: float

    needs = frozenset({"programs", "references"})

    def __post_init__(self) -> None:
        check_ranges(self, not_negative("signal_weight", "syntax_weight", "semantics_weight"))

    def observe(self, judged: Sequence[Judged]) -> Metrics:
        """The parts of the pay, and how many programs and references could not be compared."""
        matches = [_match(each) for each in judged]
        found = [pair or _NOTHING for pair in matches]
        values: dict[str, list[float]] = {
            "ppocoder/signal/mean": [self._signal(each) for each in judged],
            "ppocoder/syntax/mean": [pair.syntax for pair in found],
            "ppocoder/semantics/mean": [pair.semantics for pair in found],
            "ppocoder/unmatched_frac": [pair is None for pair in matches],
            "ppocoder/bad_reference_frac": [_structure_of_reference(each) is None for each in judged],
        }
        return {name: sum(numbers) / len(numbers) for name, numbers in values.items()}

    def __call__(self, judged: Judged) -> list[float]:
        found = _match(judged) or _NOTHING
        last = (
            self.signal_weight * self._signal(judged)
            + self.syntax_weight * found.syntax
            + self.semantics_weight * found.semantics
        )
        return [0.0] * (len(judged.rollout.actions) - 1) + [last]

    def _signal(self, judged: Judged) -> float:
        outcome = gravest(ProgramEvidence.of(judged.feedback.evidence)).outcome
        if self.signal == "tests":
            return self.pay.of(outcome)
        compiled = outcome not in (Outcome.COMPILE_ERROR, Outcome.NO_PROGRAM)
        return self.pay.of(Outcome.PASSED if compiled else Outcome.COMPILE_ERROR)


def _match(judged: Judged) -> Match | None:
    """How the program compares with the reference's; None when either is not to be parsed."""
    program = ProgramEvidence.of(judged.feedback.evidence).program
    candidate, reference = structure(program or ""), _structure_of_reference(judged)
    return match(candidate, reference) if program and candidate and reference else None


def _structure_of_reference(judged: Judged) -> Structure | None:
    program = find_program(judged.rollout.state.problem.example.reference)
    return None if program is None else structure(program.source)
