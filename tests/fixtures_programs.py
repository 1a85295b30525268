"""Evidence of programs made by hand, and a task that gives it without running anything."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fixtures_training import make_trainer, tokenizer
from rrl.interfaces import Task
from rrl.objectives.rltf import RLTF
from rrl.programs import Outcome, ProgramEvidence, TestResult, find_program
from rrl.rewards.outcomes import Pay
from rrl.rewards.rltf import RLTF as RLTFReward
from rrl.trainer import Trainer
from rrl.types import Example, Feedback, Problem, Rollout, State, Verdict

PASSED, WRONG, RUNTIME, COMPILE, TIMED_OUT, NONE, BROKEN = Outcome

CODE = "a = int(input())\nb = a / 0\nprint(b)\n"
"""Lines begin at characters 0, 17 and 27; there are 36."""


def evidence(outcome: Outcome, program: str | None = CODE, start: int = 0, **facts: Any) -> ProgramEvidence:
    """Evidence of this outcome; of three tests none is passed, or all are."""
    passed = 3 if outcome is PASSED else 0
    shape = {"passed": passed, "total": 3, "error": None, "line": None, "message": "", "tests": ()}
    return ProgramEvidence(outcome=outcome, program=program, start=start, **shape | facts)


def feedback(outcome: Outcome, program: str | None = CODE, start: int = 0, **facts: Any) -> Feedback:
    """The same as a task gives it."""
    verdict = {PASSED: Verdict.RIGHT, BROKEN: Verdict.ERROR}.get(outcome, Verdict.WRONG)
    return Feedback(float(outcome is PASSED), verdict, evidence(outcome, program, start, **facts).as_mapping())


class Characters:
    """A tokenizer with a token per character: its code point."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The characters."""
        return "".join(map(chr, tokens))


def written(
    response: str, prefix: str = "", reference: str = CODE, *, end: bool = False, finished: bool = True, name: str = "p"
) -> Rollout:
    """A rollout that is ``response``, one token a character, the first ones of which are replayed."""
    problem = Problem(Example(name, "easy", "a question", reference, ""), (5, 6), tuple(map(ord, reference)))
    assert response.startswith(prefix)
    actions = tuple(map(ord, response[len(prefix) :])) + ((0,) if end else ())
    zeros = (0.0,) * len(actions)
    state = State(problem, tuple(map(ord, prefix)), "a state" if prefix else None)
    return Rollout(state, actions, zeros, zeros, finished, response, 0)


@dataclass(frozen=True, kw_only=True)
class FakePrograms(Task):
    """Twelve questions whose answers are judged by chance, but always alike: every class of outcome occurs."""

    gives = frozenset({"references", "programs"})

    def examples(self, split: str) -> list[Example]:
        """Print a number."""
        count = {"train": 12, "test": 4}[split]
        return [Example(f"{split}-{i}", "easy", f"print {i}", f"x = {i}\nprint(x)", str(i)) for i in range(count)]

    def demonstrations(self, count: int, seed: int) -> list[Example]:
        """The training examples, again and again."""
        return (self.examples("train") * count)[:count]

    def vocabulary(self) -> None:
        """Free text."""

    def begin(self, rollouts: Sequence[Rollout]) -> None:
        """Nothing to begin."""

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """An outcome that the text decides."""
        return [judge(rollout.response) for rollout in rollouts]


def judge(response: str) -> Feedback:
    """An outcome that depends on the text alone."""
    program, chance = find_program(response), zlib.crc32(response.encode())
    if program is None:
        return feedback(NONE, None)
    outcome = (PASSED, WRONG, RUNTIME, COMPILE, TIMED_OUT, BROKEN)[chance % 6]
    line = 1 if outcome in (RUNTIME, COMPILE) else None
    passed = 3 if outcome is PASSED else chance // 6 % 3 if outcome is WRONG else 0
    return feedback(outcome, program.source, program.start, line=line, passed=passed)


def result(outcome: Outcome, line: int | None = None, error: str | None = None) -> TestResult:
    """A test's result."""
    return TestResult(outcome, error, line)


def rltf_trainer() -> Trainer:
    """One that learns by RLTF's own loss from outcomes by chance; its buffer holds twelve."""
    pay = Pay(passed=1.0, wrong_answer=-0.3, runtime_error=-0.6, compile_error=-1.0)
    reward = RLTFReward(pay=pay, adaptive=True, relative=True, paid_on="every", penalty=0.3, penalty_on="token")
    objective = RLTF(capacity=12, max_reference_length=50, seed=0)
    trainer = make_trainer(
        objective=objective, reward=reward, task=FakePrograms(), ppo_epochs=1, aggregate="sequence"
    )  # fmt: skip
    reward.start(tokenizer(), trainer.decode)
    return trainer
