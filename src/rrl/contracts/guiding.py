"""The contract of guidance, and calls of it with checked results."""

from typing import Any, Protocol

from rrl.contracts.breaches import StateLimits, refuse_result, state_faults, typed_repr
from rrl.contracts.calling import calling
from rrl.interfaces import DependsOnTask, Render
from rrl.types import Problem, State


class Guidance(DependsOnTask, Protocol):
    """Start states that help the policy where it seldom succeeds."""

    def start(self, tokenizer: Any, render: Render, longest_prompt: int, longest_response: int) -> None:
        """Begin with this tokenizer, this function to make prompts, and these limits in tokens."""

    def state(self, problem: Problem, attempt: int) -> State | None:
        """The start of guided attempt ``attempt``, from 0, or None; the state's ``help`` names its kind."""


def guided_state(guidance: Guidance, problem: Problem, attempt: int, limits: StateLimits) -> State | None:
    """The start state of a guided attempt; None without help."""
    with calling("guidance", guidance, "state"):
        found = guidance.state(problem, attempt)
    if found is None:
        return None
    same = isinstance(found, State) and isinstance(found.problem, Problem) and found.problem.id == problem.id
    wrong = state_faults([found], limits) if same and isinstance(found.help, str) else [typed_repr(found)]
    refuse_result(guidance, "state", wrong, f"a State of problem {problem.id!r} with a help, or None")
    return found
