r"""GSM8K: grade-school word problems, judged by the exact final number of a response.

Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems" (arXiv:2110.14168). A solution's last line is
``#### <number>``; its steps carry calculator annotations such as ``<<48/2=24>>``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from rrl.conclusions import conclusion, tagged
from rrl.data import Row, load_split, refuse, shuffled_epochs
from rrl.interfaces import Task
from rrl.types import Example, Feedback, Rollout, Verdict

AnswerFormat = Literal["strict", "flexible"]


@dataclass(frozen=True, kw_only=True)
class GSM8K(Task):
    """The data set and its verifier.

    ``path`` is a folder with ``train.jsonl`` and ``test.jsonl`` (or ``.jsonl.gz``); None loads ``hub_id`` with
    ``hub_config`` from the hub. ``calculator_annotations`` keeps ``<<...>>`` in the references. ``answer_format``
    says where a response may state its answer, see ``read_answer``.

    An example's level is its number of solution steps: ``steps1-2``, ``steps3-4`` or ``steps5+``. Steps are
    calculator annotations; a solution without any (95 in train, 18 in test) counts its lines instead.
    """

    path: str | None
    hub_id: str
    hub_config: str | None
    calculator_annotations: bool
    answer_format: AnswerFormat

    gives = frozenset({"references", "answers"})

    def __post_init__(self) -> None:
        if self.answer_format not in get_args(AnswerFormat):
            raise ValueError(f"answer_format={self.answer_format!r}: expected one of {get_args(AnswerFormat)}")

    def examples(self, split: str) -> list[Example]:
        """Every problem of ``train`` (7,473 in the official data) or ``test`` (1,319), in the data set's order."""
        rows = load_split(
            self.path, hub_id=self.hub_id, hub_config=self.hub_config, split=split, fields=("question", "answer")
        )
        faults = [
            f"{split}, row {index}: field 'answer' ends in {row['answer'][-40:]!r}, expected '#### <number>'"
            for index, row in enumerate(rows)
            if not _ends_in_number(row["answer"])
        ]
        refuse(faults, "check that data.path or hub_id is GSM8K, and mend these rows")
        return [self._example(f"gsm8k/{split}/{index}", row) for index, row in enumerate(rows)]

    def demonstrations(self, count: int, seed: int) -> list[Example]:
        """``count`` training problems, shuffled; none is repeated before all have been drawn."""
        return shuffled_epochs(self.examples("train"), count, seed)

    def vocabulary(self) -> None:
        """None: free text."""

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """Score 1 for a response whose final number equals the answer exactly, else 0; cut-off text is judged as it is.

        Evidence: ``parsed`` (the number read, or None), ``expected``, and ``error`` under Verdict.ERROR.
        """
        return [self._judge(rollout.response, rollout.state.problem.example.answer) for rollout in rollouts]

    def _example(self, name: str, row: Row) -> Example:
        solution = row["answer"]
        return Example(
            id=name,
            level=_level(solution),
            question=row["question"],
            reference=solution if self.calculator_annotations else re.sub(r"<<.*?>>", "", solution),
            answer=_final_line(solution),
        )

    def _judge(self, response: str, answer: str) -> Feedback:
        try:
            expected = read_number(answer)
            if expected is None:
                raise ValueError(f"answer={answer!r}: expected a number")
            parsed = read_answer(response, self.answer_format)
        except Exception as failure:  # one bad item must neither stop the batch nor count against the policy
            error = f"{type(failure).__name__}: {failure}"
            return Feedback(0.0, Verdict.ERROR, {"parsed": None, "expected": answer, "error": error})
        if parsed is None:
            return Feedback(0.0, Verdict.UNPARSEABLE, {"parsed": None, "expected": answer})
        right = parsed == expected
        evidence = {"parsed": str(parsed), "expected": answer}
        return Feedback(float(right), Verdict.RIGHT if right else Verdict.WRONG, evidence)


def read_answer(text: str, answer_format: AnswerFormat) -> Fraction | None:
    r"""The final number that a response states, exactly; None when it states none that can be read.

    ``strict`` takes the last ``#### x``. ``flexible`` goes on, when there is none, to the last ``\boxed{x}``, then the
    last "answer is x" or "answer: x", then the last number of the text. Such a place counts only when a number follows
    it directly (currency signs, brackets, bold and ``\text{`` may stand between) and is no part of a longer expression
    (``5 + 3``) or, after ``####``, of a heading (``#### 1. Count``). Units after the number are ignored: 25% is 25.
    Only the conclusion of a response counts, see ``conclusions.py``; ``flexible`` looks into its last
    ``<answer>...</answer>`` only, where there is one.
    """
    text = _without_markup(conclusion(text))
    if answer_format == "flexible" and (content := tagged(text)) is not None:
        text = content
    for marker, going_on in _MARKERS[answer_format]:
        for place in reversed(list(marker.finditer(text))):
            number = _NUMBER.match(text, place.end())
            value = _value(number) if number and not going_on.match(text, number.end()) else None
            if value is not None:
                return value
    return _last_number(text) if answer_format == "flexible" else None


def read_number(text: str) -> Fraction | None:
    """The value of a text that is one number and nothing else; None when it is not."""
    number = _NUMBER.fullmatch(_without_markup(text).strip())
    return _value(number) if number else None


_LONGEST = 64  # characters of a number; longer ones, which could take minutes to convert, are unparseable
_DIGITS = r"(?:(?<![\w.])\.)?\d(?:[\d.,]*\d)?(?:[eE][-+]?\d+)?"  # any script's digits, so that none is cut off
_NUMBER = re.compile(rf"((?<![\w)\]}}])[-+])?[$£€¥₹]?({_DIGITS})(?: ?/ ?({_DIGITS}))?")
_GROUPED = r"[1-9][0-9]{0,2}(?:,[0-9]{3})+"
_WELL_FORMED = re.compile(rf"(?:{_GROUPED}|[0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{{1,2}})?")
_LEAD = r"(?:[\s$£€¥₹*_`\"'({\[:=~≈]|\\(?:boxed|(?:text|math)[a-z]*|[(\[,;]))*"
_EXPRESSION = r"[ \t]*(?:[-+*/^:x×÷]{1,2}[ \t]*[($]*)?\d|\\[dt]?frac|[^\n.,;(}=]{0,80}="
_HEADING = r"[.):][ \t]+[A-Za-z*]"

_HASHES = re.compile(rf"####{_LEAD}"), re.compile(rf"{_EXPRESSION}|{_HEADING}")
_BOX = re.compile(rf"\\boxed{_LEAD}"), re.compile(_EXPRESSION)
_SENTENCE = re.compile(rf"\banswer(?:\s*(?:is|=|:))+{_LEAD}", re.IGNORECASE), re.compile(_EXPRESSION)
_MARKERS = {"strict": (_HASHES,), "flexible": (_HASHES, _BOX, _SENTENCE)}


def _without_markup(text: str) -> str:
    text = text.translate({0x2212: "-", 0x2013: "-"})  # the minus sign and the en dash
    for markup, plain in (("{,}", ","), (r"\!", ""), (r"\$", "$")):
        text = text.replace(markup, plain)
    text = re.sub(r"(?<=[0-9])\\,(?=[0-9]{3})", ",", text)
    return re.sub(r"(?<![0-9])\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", text)


def _last_number(text: str) -> Fraction | None:
    numbers = list(_NUMBER.finditer(text))
    return _value(numbers[-1]) if numbers else None


def _value(number: re.Match[str]) -> Fraction | None:
    sign, top, bottom = number.groups(default="")
    parts = [top, bottom or "1"]
    if len(number[0]) > _LONGEST or not all(_WELL_FORMED.fullmatch(part) for part in parts):
        return None
    numerator, denominator = (Fraction(part.replace(",", "")) for part in parts)
    if denominator == 0:
        return None
    return (-numerator if sign == "-" else numerator) / denominator


def _final_line(solution: str) -> str:
    return solution.rpartition("####")[2].strip()


def _ends_in_number(solution: str) -> bool:
    number = read_number(_final_line(solution))
    return number is not None and number == read_answer(solution, "strict")


def _level(solution: str) -> str:
    steps = solution.count("<<") or solution.count("\n")
    return "steps1-2" if steps <= 2 else "steps3-4" if steps <= 4 else "steps5+"
