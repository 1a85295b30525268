r"""Whether two mathematical answers are equal, by math-verify, in a worker process: ``python -m rrl.equality``.

math-verify guards its own time by SIGALRM, which works in no thread and not inside compiled code; here it is told to
guard nothing, for the process itself can be ended. What it would take for equal although it is not is kept from it:
see ``compare``.
"""

import re
from functools import lru_cache
from typing import Any, Literal

from rrl.answers import is_words
from rrl.serving import Tell, Work, serve

Finding = Literal["equal", "different", "unreadable", "unreadable_reference"]
WARM_UP = (r"\left\{ 1, \frac{\sqrt{2}}{2} \right\}", r"[0.5, x^2]", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}")


def compare(answer: str, expected: str, tell: Tell) -> Finding:
    """What ``answer`` is worth against the reference's ``expected``; ``tell`` learns which of them is worked on.

    Departures from math-verify: words are never formulas; numbers in different bases differ; a percentage is its
    number or its hundredth; an equation counts as its right side only when its left side is a name or a number; a last
    letter is a unit only when the reference has none; text that cannot be read is equal to nothing; and an answer that
    leaves the work to be done, as ``2+3`` for 5, is not the reference's, unless that leaves it too.
    """
    if is_words(expected):
        return "different"  # the same words were seen to be so without any mathematics
    tell("expected")
    percents = _is_percentage(expected), _is_percentage(answer)
    letter = bool(_LAST_LETTER.search(_tidy(expected)))
    relation = _RELATION.search(expected) is not None and _RELATION.search(answer) is not None
    references = _values(expected, relation, percents[0] and not percents[1], letter)
    golds = _read_all(references)
    if references and not golds:
        return "unreadable_reference"
    tell("answer")
    if _leaves_work(answer) and not _leaves_work(expected):
        return "different"  # else the question's own formula, copied, would be its answer
    texts = _values(answer, relation, percents[1] and not percents[0], letter)
    if not golds or not texts or _base(answer) not in (None, _base(expected)):
        return "different"
    found = _read_all(texts)
    if not found:
        return "unreadable"
    return "equal" if any(_equal(gold, other) for gold in golds for other in found) else "different"


_RELATION = re.compile(r"[=<>]|\\(?:leq?|geq?|lt|gt|in|neq?)(?![a-zA-Z])")
_NAME = (
    r"(?:\\(?:alpha|beta|gamma|theta|phi|lambda|mu|omega)|m?\\angle\s*[A-Z]{1,3}|\\text\{[^{}]*\}|[A-Z]{2,4}"
    r"|[A-Za-z]'?(?:_\{?\w+\}?)?(?:\([^()=]*\))?|\(\s*[a-z](?:\s*,\s*[a-z])*\s*\))"
)
_NAMED = re.compile(rf"(^|,)\s*(?:{_NAME}\s*(?:=|\\in(?![a-zA-Z]))\s*)+")
_LAST_LETTER = re.compile(r"(?<=[\d}\s)])([A-Za-hj-z])$")
_BASE = re.compile(r"[\da-zA-Z}]_\{?(\d+)\}?$")
_THOUSANDS = re.compile(r"(?<=\{)\d{1,3}(?:,\d{3})+(?=\})")
_TIDIED = (
    (re.compile(r"\\!|\\phantom\s*(?:\{[^{}]*\}|\S)|^\s*(?:\\approx|=)"), ""),
    (re.compile(r"\\frac\s*\\pi\s*(\w)"), r"\\frac{\\pi}{\1}"),
    (re.compile(r",?\s*\\text\{\s*,?\s*(?:and|or)\s*\}"), ","),
    (re.compile(r"(?<=[\d)}])i(?![a-zA-Z])"), " i"),  # 6i is read as a symbol, 6 i as the imaginary unit
    (re.compile(r"[\s.,;:]+$"), ""),
)


_WORK = re.compile(
    r"\\(?:[dt]?binom|choose|sum|prod|i?int|lim|gcd|lcm|max|min|[bp]?mod|det|a?r?c?(?:sin|cos|tan)|cot|sec|csc|log|ln)"
    r"(?![a-zA-Z])|\d\s*!|vmatrix"
)
_NUMBERS = re.compile(r"\\[dt]?frac\s*(?:\{[-\d.]+\}\s*\{[-\d.]+\}|\d\s*\d)")
_SIGNS = re.compile(r"\\(?:cdot|times|div)(?![a-zA-Z])")
_BLANK = re.compile(r"\\(?:left|right)(?![a-zA-Z])|\\[,;:! ]|\s")
_SUM = re.compile(r"(?=.*[\d)}][-+*][\d({])[-+*/^().{}\d]+")


def _leaves_work(text: str) -> bool:
    """Whether a text asks for something to be computed: a named operation, or numbers with signs between them."""
    if _WORK.search(text):
        return True
    plain = _BLANK.sub("", _SIGNS.sub("*", _NUMBERS.sub("1", text)))
    return _SUM.fullmatch(plain.replace("*10^", "e")) is not None


def _values(text: str, relation: bool, hundredth: bool, letter: bool) -> list[str]:
    """The texts that an answer may stand for, any of which will do; none for an equation that states no value."""
    text = _tidy(text)
    if not relation:
        text = _NAMED.sub(r"\1", text)
        left, equals, right = text.rpartition("=")
        if equals and re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", left)):
            return []
        text = right if equals else text
    if text.endswith("%"):
        text = text.rstrip("%").rstrip("\\ ")
    if letter:
        text = _LAST_LETTER.sub(r"{\1}", text)
    return [text, rf"\frac{{{text}}}{{100}}"] if hundredth else [text]


def _tidy(text: str) -> str:
    """Without what math-verify cannot read, or reads as something else."""
    for pattern, replacement in _TIDIED:
        text = pattern.sub(replacement, text)
    return _THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)


def _is_percentage(text: str) -> bool:
    return _tidy(text).endswith("%")


def _base(text: str) -> str | None:
    """The base of a number like ``1011_2``."""
    found = _BASE.search(_tidy(text))
    return found[1] if found else None


def _read_all(texts: list[str]) -> list[Any]:
    return [value for value in map(_read, texts) if value is not None]


@lru_cache(maxsize=4096)
def _read(text: str) -> Any:
    """The text as a sympy object; None when math-verify cannot read it."""
    import math_verify

    parsed = math_verify.parse(
        rf"\boxed{{{text}}}",
        [math_verify.LatexExtractionConfig()],
        fallback_mode="no_fallback",  # its fallback is what is left of the text after units were cut off
        parsing_timeout=None,
    )
    return _with_imaginary_unit(parsed[0]) if parsed else None


def _with_imaginary_unit(value: Any) -> Any:
    """With i as a number: math-verify knows that it is not real, and leaves it a symbol."""
    import sympy

    symbol = sympy.Symbol("i", real=False)
    return value.subs(symbol, sympy.I) if symbol in value.free_symbols else value


def _equal(gold: Any, other: Any) -> bool:
    import math_verify

    return bool(math_verify.verify(gold, other, timeout_seconds=None)) and not _both_unsolvable(gold, other)


def _both_unsolvable(gold: Any, other: Any) -> bool:
    """Whether these are two equations that agree in nothing but having no solution, as x^2 = -1 and x^2 = -2 do."""
    import sympy

    if gold == other or not (isinstance(gold, sympy.Eq) and isinstance(other, sympy.Eq)):
        return False
    return all(isinstance(side, sympy.Expr) for side in gold.args) and not sympy.solve(gold)


def load() -> Work:
    """Import math-verify and use each part of it once, so that the first item costs no more than any other."""
    import logging

    import math_verify  # noqa: F401  # a worker that cannot import it must not start

    logging.disable(logging.CRITICAL)
    for text in WARM_UP:
        compare(text, text, lambda phase: None)
    return lambda item, tell: compare(item[0], item[1], tell)


if __name__ == "__main__":
    serve(load)
