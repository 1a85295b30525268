r"""Final answers as text: the place where a response states its own, and texts that differ only in typesetting.

Nothing here computes: ``math_equality.py`` compares the values of different texts.
"""

import re
from typing import Literal

from rrl.verifiers.conclusions import before_open_box, conclusion, last_box, tagged
from rrl.verifiers.mathematics.notation import tidy, tokens

AnswerFormat = Literal["boxed", "flexible"]

TAIL = 4000
"""Characters at the end of a response that are searched for an answer without a box."""


def final_answer(response: str, answer_format: AnswerFormat) -> str | None:
    r"""The final answer that the conclusion of a response states, as text; None when it states none.

    ``boxed`` takes the content of the last complete ``\boxed{...}`` or ``\fbox{...}``. ``flexible`` looks into the last
    ``<answer>...</answer>`` only, where there is one. Without a box it takes the text after the last "answer is" or
    "answer:", else the last formula, else the whole of the tag or the last number.
    """
    text = conclusion(response)
    content = tagged(text) if answer_format == "flexible" else None
    text = text if content is None else content
    found = last_box(text)
    if found is None and answer_format == "flexible":
        text = before_open_box(text)[-TAIL:]
        formulas, numbers = list(_FORMULA.finditer(text)), _NUMBER.findall(text)
        formula = _content(formulas[-1]) if formulas else None
        number = numbers[-1] if numbers else None
        found = _after_answer_is(text) or formula or (number if content is None else text)
    return (found or "").strip() or None


def same_text(answer: str, expected: str) -> bool:
    """Whether two answers, neither of them empty, are the same but for their setting; words in letters of any case."""
    if is_words(expected):
        one, other = words(answer), words(expected)
        if _CHOICES.fullmatch(other):
            return _choices(one) == _choices(other)
        return one == other or one == _without_half(other) != other or _without_half(one) == other != one
    letters = [_plain(text) for text in (answer, expected)]
    if all(_CHOICE.fullmatch(letter) for letter in letters):
        return letters[0].strip("()") == letters[1].strip("()")
    return tokens(tidy(answer)) == tokens(tidy(expected)) != []


def form(answer: str) -> str:
    """The text under which answers count as the same in a vote: words or signs without their setting."""
    return words(answer) if is_words(answer) else " ".join(tokens(tidy(answer)))


def is_copied(answer: str, expected: str, question: str) -> bool:
    """Whether an answer, or the right side of its equation, is a formula of the question that has yet to be computed.

    An answer that equals the reference but not its text leaves the work undone: ``95^2`` for its value.
    """
    tidied = [tidy(part) for part in (answer, answer.rpartition("=")[2])]
    to_do = [tokens(text) for text in tidied if _TO_DO.search(text) and _plain(text) != _plain(expected)]
    asked = {" ".join(tokens(tidy(_content(formula)))) for formula in _FORMULA.finditer(question)} if to_do else set()
    return any(" ".join(words) in asked for words in to_do)


def is_words(answer: str) -> bool:
    r"""Whether an answer is words, letters of choices or a time, ``\text{odd}`` or ``CBAD``, and not mathematics.

    Such answers are compared as text: a formula would read ``CBAD`` as a product.
    """
    bare = _plain(answer)
    if _TIME.fullmatch(bare):
        return True
    marked = _MARKED.sub("", answer).strip("() ,.{}") == ""
    return _WORDS.fullmatch(bare) is not None and (marked or (bare.isupper() and len(bare) > 1))


def words(answer: str) -> str:
    """Words as they are compared: small letters, digits and signs, without the zero before an hour."""
    return re.sub(r"[^a-z0-9,:=<>^/*+-]", "", _plain(answer).lower()).strip(",").removeprefix("0")


def _choices(listed: str) -> list[str]:
    """Letters of choices, in their order in the alphabet."""
    return sorted(re.split(",?and|,", listed))


def _plain(text: str) -> str:
    """Words without typesetting."""
    return re.sub(r"[{}\s]", "", _TEXT.sub(r"\1", tidy(text))).rstrip(".")


def _without_half(time: str) -> str:
    """A time without the half of the day; ``8:34`` stands for ``8:34 p.m.`` as 5 does for 5 cm."""
    return re.sub(r"(?<=\d)[ap]m$", "", time)


_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_CHOICE = re.compile(r"[A-Z]|\(?[A-Z]\)")
_CHOICES = re.compile(r"[a-z](?:(?:,?and|,)[a-z])+")
_MARKED = re.compile(r"\\(?:text\w*|mbox|math(?:rm|bf|it))\s*\{[^{}]*\}|\\[,;:! ]")
_WORDS = re.compile(r"\(?[A-Za-z][A-Za-z0-9,.'-]*\)?")
_TIME = re.compile(r"\d{1,2}:[0-5]\d(?::[0-5]\d)?(?:[ap]\.?m\.?)?|\d{1,2}[ap]\.?m\.?", re.IGNORECASE)

_TO_DO = re.compile(r"\\(?:frac|sqrt|overline)|(?<=\S)\s*[-+*/^!]")

_ANSWER_IS = re.compile(r"\banswers?(?:\s*(?:is|are|=|:|\*\*))+[ \t]*", re.IGNORECASE)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$((?:\\.|[^$\n\\])+)\$", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+)?\s?\\?%?")


def _after_answer_is(text: str) -> str | None:
    """What follows the last "answer is", up to the end of its sentence: a formula, else a number, else words."""
    places = list(_ANSWER_IS.finditer(text))
    if not places:
        return None
    stated = text[places[-1].end() :].split("\n")[0]
    formula = _FORMULA.search(stated)
    number = _NUMBER.match(stated.lstrip(" *$"))
    if formula is not None and not (number and formula.start() > 0):
        return _content(formula)
    return number[0] if number else re.split(r"[.;]\s|[.;]?$", stated)[0].strip(" *") or None


def _content(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None)
