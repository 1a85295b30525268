"""Go back to before the step that the policy itself calls its first wrong one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from rrl.cuts import CutPoints
from rrl.interfaces import Author, Found, Selection
from rrl.parts.selections.examining import chosen, costs, share
from rrl.ranges import at_least_one, between, check_ranges, refuse
from rrl.training.prompts import Template
from rrl.types import Metrics, Rollout, State, TokenScores

FIELDS = re.compile(r"\{(question|steps|count)\}")


@dataclass(kw_only=True)
class SelfLocalized(Selection):
    """Asks the policy for the first wrong step of a failed response, and cuts before it (SRPO, arXiv 2605.25507).

    At most ``failures`` responses of a step are asked about, in the run's chat template: ``question`` with the
    problem for {question}, the numbered steps for {steps} and their number for {count}. A step leads from one legal
    point to the next; blank ones are part of the next. A reply has at most ``reply_tokens`` tokens, drawn at
    ``temperature`` (0: greedy). It counts where it came to its end and its last line holds the number of one step;
    otherwise there is no cut, and neither where that step is the first: only the prompt is before it. Replies count as
    generated, and are not learnt from.
    """

    question: str
    reply_tokens: int
    temperature: float
    failures: int
    cut_points: CutPoints
    template: Template
    _author: Author | None = field(init=False, default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("reply_tokens", "failures"), between(0, 2, "temperature"))
        missing = [name for name in ("{question}", "{steps}") if name not in self.question]
        other = "or another rule, as selection=largest_fall or selection=random_cut"
        refuse(
            {
                f"question: expected a text with {' and '.join(missing)}": bool(missing),
                f"cut_points: token, but the policy is asked for a wrong step; expected line or sentence, {other}": (
                    self.cut_points == "token"
                ),
                "template: plain, but the policy is asked a question; expected template=chat with a model for "
                f"instructions, {other}": not self.template.converses,
            }
        )

    def start(self, author: Author) -> None:
        self._author = author

    def expense(self, longest: int) -> int:
        return self.failures * self.reply_tokens

    def examine(
        self, responses: Sequence[State], legal: Sequence[Sequence[int]], rng: Random
    ) -> tuple[list[Found], Metrics]:
        """1 for the cut before the step that the policy names."""
        author = self._author
        assert author is not None, "the rule has started"
        steps = {number: self._steps(responses[number], legal[number]) for number in chosen(legal, self.failures, rng)}
        questions = [self._asked(responses[number], found) for number, found in steps.items()]
        replies = author.replies(questions, self.reply_tokens, self.temperature, rng.getrandbits(62))
        found: list[Found] = [{} for _ in responses]
        named = 0
        for number, reply in zip(steps, replies, strict=True):
            step = named_step(reply, len(steps[number])) if reply is not None else None
            named += step is not None
            if step is not None and step > 1:
                found[number][steps[number][step - 1][0]] = 1.0
        written = [reply for reply in replies if reply is not None]
        return found, {**costs(len(steps), written), "replay/localized_frac": share(named, len(steps))}

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none."""
        return sorted(response.found)

    def score(self, response: TokenScores, cut: int) -> float:
        """No state is better than another."""
        return 0.0

    def _steps(self, response: State, legal: Sequence[int]) -> list[tuple[int, str]]:
        """Where each step begins, and its text; the last one ends with the response."""
        assert self._author is not None, "the rule has started"
        decode, tokens = self._author.tokenizer.decode, response.prefix
        steps, begin = list[tuple[int, str]](), 0
        for _, end in pairwise([0, *legal, len(tokens)]):
            text = decode(tokens[begin:end], skip_special_tokens=True).strip()
            if text:
                steps.append((begin, text))
                begin = end
        return steps

    def _asked(self, response: State, steps: Sequence[tuple[int, str]]) -> str:
        listed = "\n".join(f"Step {number}: {text}" for number, (_, text) in enumerate(steps, start=1))
        texts = {"question": response.problem.example.question, "steps": listed, "count": str(len(steps))}
        return FIELDS.sub(lambda field: texts[field[1]], self.question)


def named_step(reply: Rollout, count: int) -> int | None:
    """The step from 1 to ``count`` that a reply names: the only number in its last line; None where it names none."""
    lines = reply.response.strip().splitlines()
    numbers = re.findall(r"-?[0-9]+", lines[-1]) if lines and reply.finished else []
    steps = {str(step): step for step in range(1, count + 1)}
    return steps.get(numbers[0]) if len(numbers) == 1 else None
