"""A hint in the prompt: the reference solution or the final answer is shown while the policy writes its own."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

from rrl.contracts.guiding import Guidance
from rrl.interfaces import Render
from rrl.types import Problem, State


@dataclass(kw_only=True)
class Hint(Guidance):
    """Asks another question: ``text`` with ``{question}``, and ``{reference}`` or ``{answer}`` in it.

    The run's own template is put around it, as around any question. ``name`` is what the metrics call this help. A
    prompt that would leave no room for a response is not given.
    """

    name: str
    text: str
    _hinted: dict[str, Problem | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if "{question}" not in self.text or not ("{reference}" in self.text or "{answer}" in self.text):
            raise ValueError(f"text: expected {{question}}, and {{reference}} or {{answer}}, got {self.text!r}")

    @property
    def needs(self) -> frozenset[str]:
        """References and, where the text has them, final answers; other answers, such as tests, must stay hidden."""
        return frozenset({"references", "answers"} if "{answer}" in self.text else {"references"})

    def start(self, tokenizer: Any, render: Render, longest_prompt: int, longest_response: int) -> None:
        self._render, self._longest = render, longest_prompt
        self._hinted.clear()

    def state(self, problem: Problem, attempt: int) -> State | None:
        """The problem with a prompt that holds the hint."""
        if problem.id not in self._hinted:
            self._hinted[problem.id] = self._with_hint(problem)
        hinted = self._hinted[problem.id]
        return None if hinted is None else State(hinted, (), help=self.name)

    def _with_hint(self, problem: Problem) -> Problem | None:
        example = problem.example
        if not example.reference:
            return None
        parts = {"{reference}": example.reference, "{answer}": example.answer, "{question}": example.question}
        # In one pass, so that nothing is replaced in what takes a placeholder's place.
        text = re.sub("|".join(map(re.escape, parts)), lambda found: parts[found[0]], self.text)
        (prompt,) = self._render([text])
        return replace(problem, prompt=prompt) if len(prompt) <= self._longest else None
