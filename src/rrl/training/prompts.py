"""From text to tokens: the template of a question, and the treatment of prompts that are too long."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol

from rrl.errors import DataError
from rrl.ranges import at_least_one, check_ranges
from rrl.training.templates import rendered, this_moment
from rrl.types import Example, Problem

log = logging.getLogger(__name__)


class Template(Protocol):
    """Puts a question into the form that a model expects.

    ``converses`` says that this is a turn of a conversation, so that anything can be asked.
    """

    converses: ClassVar[bool] = False

    def render(self, examples: Sequence[Example], tokenizer: Any) -> list[tuple[int, ...]]:
        """Each prompt's token ids."""

    def continuation(self, reference: str) -> str:
        """The reference as it follows the prompt."""
        return reference

    def describe(self, tokenizer: Any) -> str:
        """The text around a question, which is recorded with every result."""

    def stand(self, moment: datetime) -> None:
        """Set the clock of the template to this moment."""


@dataclass(frozen=True, kw_only=True)
class Plain(Template):
    """A plain text with ``{question}`` in it; special tokens as the tokenizer adds them to a text."""

    plain_template: str

    def __post_init__(self) -> None:
        if self.plain_template.count("{question}") != 1:
            raise ValueError(f"plain_template: expected {{question}} exactly once, got {self.plain_template!r}")

    def render(self, examples: Sequence[Example], tokenizer: Any) -> list[tuple[int, ...]]:
        """The filled texts' token ids, without an end token."""
        texts = [self.plain_template.replace("{question}", example.question) for example in examples]
        return [_without_end(row, tokenizer.eos_token_id) for row in tokenizer(texts).input_ids]

    def describe(self, tokenizer: Any) -> str:
        """The text itself, with its special tokens."""
        specials = tokenizer.decode(_without_end(tokenizer("").input_ids, tokenizer.eos_token_id))
        return f"{specials}{self.plain_template}"


@dataclass(kw_only=True)
class Chat(Template):
    """The tokenizer's chat template: an optional system message, then the question as the user's turn, or its turns.

    A template that writes the date always writes that of the run's beginning.
    """

    converses = True

    system: str | None
    _moment: datetime = field(init=False, default_factory=this_moment, repr=False, compare=False)

    def render(self, examples: Sequence[Example], tokenizer: Any) -> list[tuple[int, ...]]:
        """The conversations' token ids up to where the assistant begins."""
        texts = [self._text(example.turns or _only(example.question), tokenizer) for example in examples]
        return [tuple(row) for row in tokenizer(texts, add_special_tokens=False).input_ids]

    def continuation(self, reference: str) -> str:
        """Without a blank before it: the template itself separates."""
        return reference.lstrip()

    def describe(self, tokenizer: Any) -> str:
        """The conversation around ``{question}``."""
        return self._text(_only("{question}"), tokenizer)

    def stand(self, moment: datetime) -> None:
        self._moment = moment

    def _text(self, conversation: Sequence[Mapping[str, str]], tokenizer: Any) -> str:
        from jinja2 import TemplateError

        if not tokenizer.chat_template:
            raise DataError("template: the tokenizer has no chat template; use template=plain or another model")
        turns = [{"role": "system", "content": self.system}] if self.system else []
        turns += map(dict, conversation)
        try:
            return rendered(tokenizer, turns, self._moment, add_generation_prompt=True)
        except TemplateError as error:
            raise DataError(
                f"template: the tokenizer's chat template cannot take this conversation ({error}); set "
                "template.system=null or use template=plain"
            ) from error


def _only(question: str) -> tuple[Mapping[str, str], ...]:
    return ({"role": "user", "content": question},)


def _without_end(tokens: Sequence[int], end: int) -> tuple[int, ...]:
    kept = list(tokens)
    while kept and kept[-1] == end:
        kept.pop()
    return tuple(kept)


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Turns examples into problems; those with a prompt of more than ``max_prompt_length`` tokens are dropped."""

    template: Template
    max_prompt_length: int

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("max_prompt_length"))

    def encode(self, examples: Sequence[Example], tokenizer: Any, *, context: int, response: int) -> list[Problem]:
        """Problems whose prompt fits in ``max_prompt_length`` and, with ``response`` new tokens, in ``context``."""
        limit = min(self.max_prompt_length, context - response)
        if limit < 1:
            raise DataError(
                f"data.max_response_length: {response} leaves no room for a prompt in the model's context of {context} "
                "tokens; lower it, or take a model with a longer context"
            )
        if not examples:
            raise DataError("data: no problem at all; expected at least one; give another data set or split")
        problems = self._problems(examples, tokenizer)
        kept = [problem for problem in problems if len(problem.prompt) <= limit]
        if len(kept) < len(problems):
            self._report(len(problems) - len(kept), problems, limit)
        return kept

    def _problems(self, examples: Sequence[Example], tokenizer: Any) -> list[Problem]:
        prompts = self.template.render(examples, tokenizer)
        texts = [self.template.continuation(example.reference) for example in examples]
        references = tokenizer(texts, add_special_tokens=False).input_ids
        return [
            Problem(example, prompt, (*ids, tokenizer.eos_token_id) if example.reference else ())
            for example, prompt, ids in zip(examples, prompts, references, strict=True)
        ]

    def _report(self, dropped: int, problems: Sequence[Problem], limit: int) -> None:
        worst = max(problems, key=lambda problem: len(problem.prompt))
        message = (
            f"data.max_prompt_length: {dropped} of {len(problems)} prompts are longer than {limit} tokens (longest: "
            f"{worst.id} with {len(worst.prompt)}); the limit is the smaller of max_prompt_length and the model's "
            "context less data.max_response_length"
        )
        if dropped == len(problems):
            raise DataError(f"{message}; raise the limit: no problem is left")
        log.warning("%s; dropped", message)
