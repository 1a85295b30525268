r"""Final answers as text: where a response states its own, and which two are the same but for the way they are set.

Nothing here computes: what two different texts are worth is ``equality.py``'s business.
"""

import re
from collections.abc import Iterator
from typing import Literal

AnswerFormat = Literal["boxed", "flexible"]

TAIL = 4000
"""Characters at the end of a response in which an answer without a box is looked for."""


def final_answer(response: str, answer_format: AnswerFormat) -> str | None:
    r"""The final answer that a response states, as text; None when it states none.

    ``boxed`` takes the content of the last complete ``\boxed{...}`` or ``\fbox{...}``. ``flexible`` goes on, when there
    is no box, to what follows the last "answer is" or "answer:", then the last formula, then the last number.
    """
    box = last_box(response)
    if box is None and answer_format == "flexible":
        tail = response[-TAIL:]
        box = _after_answer_is(tail) or _last_formula(tail) or _last_number(tail)
    return box.strip() or None if box is not None else None


def last_box(text: str) -> str | None:
    r"""The content of the box that begins last, among those that are complete; ``\boxed 9$`` is one too."""
    boxes = [*_braced_boxes(text), *((found.end(), found[1]) for found in _BARE_BOX.finditer(text))]
    return max(boxes)[1] if boxes else None


def plain(text: str) -> str:
    """The text without what only sets it: spacing, sizes of brackets and fractions, text styles, a full stop."""
    for markup, replacement in _MARKUP:
        text = markup.sub(replacement, text)
    return text.rstrip(".,;:")


def same_text(answer: str, expected: str) -> bool:
    """Whether two answers, neither of them empty, are the same but for their setting; words in letters of any case."""
    if is_words(expected):
        one, other = words(answer), words(expected)
        return one == other or one == _without_half(other) != other or _without_half(one) == other != one
    return plain(answer) == plain(expected) != ""


def is_words(answer: str) -> bool:
    r"""Whether an answer is words, letters of choices or a time, ``\text{odd}`` or ``CBAD``, and not mathematics.

    Only its text can tell whether another answer is the same: a formula would take ``CBAD`` for a product.
    """
    bare = plain(answer)
    if _TIME.fullmatch(bare):
        return True
    marked = _TEXT.sub("", answer).strip("() ,.") == ""
    return _WORDS.fullmatch(bare) is not None and (marked or (bare.isupper() and len(bare) > 1))


def words(answer: str) -> str:
    """Words as they are compared: small letters, digits, commas and colons, without the zero before an hour."""
    return re.sub(r"[^a-z0-9,:]", "", plain(answer).lower()).strip(",").removeprefix("0")


def _without_half(time: str) -> str:
    """A time without the half of the day; ``8:34`` stands for ``8:34 p.m.`` as 5 does for 5 cm."""
    return re.sub(r"(?<=\d)[ap]m$", "", time)


_SPACING = re.compile(r"\\[!,;: ]|\\q?quad\b|\\displaystyle\b|~|\\?\$|\s+|(?:\\left|\\right)(?![a-zA-Z])")
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|mbox|math(?:rm|bf|it))\s*\{([^{}]*)\}")
_MARKUP = (
    (re.compile(r"\{,\}"), ","),
    (_TEXT, r"\1"),
    (_SPACING, ""),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\%"), "%"),
)
_WORDS = re.compile(r"\(?[A-Za-z][A-Za-z0-9,.'-]*\)?")
_TIME = re.compile(r"\d{1,2}:[0-5]\d(?::[0-5]\d)?(?:[ap]\.?m\.?)?", re.IGNORECASE)

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*([^\s{}$]+)")
_ANSWER_IS = re.compile(r"\banswers?(?:\s*(?:is|are|=|:|\*\*))+[ \t]*", re.IGNORECASE)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$((?:\\.|[^$\n\\])+)\$", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+)?\s?\\?%?")


def _braced_boxes(text: str) -> Iterator[tuple[int, str]]:
    """Where the content of each complete box begins, and the content; one pass, however deep the braces are."""
    open_braces: list[tuple[int, bool]] = []
    for found in _BRACES.finditer(text):
        if found[0].endswith("{") and found[0] != r"\{":
            open_braces.append((found.end(), len(found[0]) > 1))
        elif found[0] == "}" and open_braces:
            start, is_box = open_braces.pop()
            if is_box:
                yield start, text[start : found.start()]


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


def _last_formula(text: str) -> str | None:
    formulas = list(_FORMULA.finditer(text))
    return _content(formulas[-1]) if formulas else None


def _content(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None)


def _last_number(text: str) -> str | None:
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None
