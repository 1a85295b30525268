r"""Whether two mathematical answers are equal, in a worker process: ``python -m rrl.verifiers.math_equality``.

``statements.py`` reads them. Numbers are compared exactly, formulas by their values at points; a pair that is not shown
to be equal is different. ``compare`` lists the departures from mathematics.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import sympy

from rrl.verifiers.final_answers import is_words
from rrl.verifiers.mathematics.formula import read_formula
from rrl.verifiers.mathematics.notation import tidy, tokens
from rrl.verifiers.mathematics.numerals import Unreadable
from rrl.verifiers.mathematics.regions import as_region, letters, may_be_point, turned
from rrl.verifiers.mathematics.statements import Based, Collection, Named, Relation, Scalar, Statement, readings
from rrl.verifiers.mathematics.values import proportional, rounded, same_value
from rrl.verifiers.worker_process import ReportPhase, Work, serve

Finding = Literal["equal", "different", "unreadable", "unreadable_reference"]
WARM_UP = (
    r"\left\{ 1, \frac{\sqrt{2}}{2} \right\}",
    r"[0.5, x^2]",
    r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
    "x + y = 1",
)


def compare(answer: str, expected: str, report: ReportPhase) -> Finding:
    """Compare ``answer`` with the reference's ``expected``; ``report`` gets the name of the one that is read next.

    Beyond mathematics: words are never formulas; numbers in different bases differ; a percentage is its number or its
    hundredth; an equation counts as its right side only when its left side is a name or a number; units do not matter,
    unless both state one and they differ; and an answer that leaves work to be done, as ``2+3`` for 5, differs from
    the reference, unless that leaves it too.
    """
    if is_words(expected) or is_words(answer):
        return "different"  # equal words are found before, without mathematics
    report("expected")
    golds = _read(expected, False, True)
    if not golds:
        return "unreadable_reference"
    report("answer")
    found = _read(answer, not _has_letters(expected), False)
    if not found:
        return "unreadable"
    return "equal" if any(_equal(gold, other) for gold in golds for other in found) else "different"


@lru_cache(maxsize=4096)
def _read(text: str, bare_units: bool, reference: bool) -> list[Statement]:
    return readings(text, bare_units, reference)


def _has_letters(text: str) -> bool:
    """Whether a text has letters that may be variables."""
    words = tokens(tidy(text))
    named = words[: len(words) - words[::-1].index("=")] if "=" in words else []
    return any(word[0].isalpha() and word not in "ie" for word in words[len(named) :])


# --- statements -------------------------------------------------------------------------------------------------------


def _equal(gold: Statement, other: Statement) -> bool:
    return _same(gold, other) or _same_region(gold, other)


def _same_region(gold: Statement, other: Statement) -> bool:
    """Whether they are the same set of numbers in different notations, of the same letter if both have one."""
    names = {letters(gold), letters(other)} - {frozenset()}
    if may_be_point(gold) or len(names) > 1:
        return False
    one, two = as_region(gold), as_region(other)
    return (one is not gold or two is not other) and _same(one, two)


def _same(gold: Statement, other: Statement) -> bool:
    if isinstance(gold, Named | Relation) or isinstance(other, Named | Relation):
        return _same_relation(gold, other)
    if isinstance(gold, Collection) and isinstance(other, Collection):
        return _same_collection(gold, other)
    gold, other = _alone(gold), _alone(other)
    if isinstance(gold, Scalar) and isinstance(other, Scalar):
        return _same_scalar(gold, other)
    return _same_digits(gold, other)


def _alone(statement: Statement) -> Statement:
    """The element of a set of one."""
    if isinstance(statement, Collection) and statement.kind == r"\{\}" and len(statement.items) == 1:
        return statement.items[0]
    return statement


def _same_digits(gold: Statement, other: Statement) -> bool:
    """Whether the digits are those of the reference, in its base or without one, which means base ten."""
    if isinstance(gold, Based):
        return gold == other or (isinstance(other, Scalar) and other.text == gold.digits and not other.units)
    return isinstance(other, Based) and other.base == "10" and isinstance(gold, Scalar) and other.digits == gold.text


def _same_relation(gold: Statement, other: Statement) -> bool:
    """Names: the same, or absent on one side. Equations: multiples of each other. Inequalities: side by side."""
    if isinstance(gold, Named) and isinstance(other, Named):
        return gold.name == other.name and _equal(gold.value, other.value)
    if isinstance(gold, Relation) and isinstance(other, Relation):
        return _same_sides(gold, other)
    if isinstance(gold, Relation) or isinstance(other, Relation):
        return _same_equation(gold, other)
    return _equal(*(side.value if isinstance(side, Named) else side for side in (gold, other)))


def _same_sides(gold: Relation, other: Relation) -> bool:
    if _same_equation(gold, other):
        return True
    orders = (other, turned(other))
    return any(gold.signs == order.signs and _all_equal(gold.sides, order.sides) for order in orders)


def _same_equation(gold: Statement, other: Statement) -> bool:
    """Whether two equations in the same letters are equivalent: their differences are multiples of each other.

    A reference that states the value of a name equals no other equation, because solving it was the work.
    """
    if isinstance(gold, Named) and isinstance(gold.value, Scalar) and not gold.value.value.free_symbols:
        return False
    one, two = _difference(gold), _difference(other)
    return one is not None and two is not None and proportional(one, two)


def _difference(statement: Statement) -> Any:
    """Left side minus right side of an equation; None for anything else."""
    try:
        if isinstance(statement, Named) and isinstance(statement.value, Scalar):
            return read_formula(tokens(statement.name)) - statement.value.value
        if isinstance(statement, Relation) and statement.signs == ("=",):
            left, right = statement.sides
            return left.value - right.value if isinstance(left, Scalar) and isinstance(right, Scalar) else None
    except Unreadable:
        pass
    return None


_UNORDERED = (",", r"\{\}", r"\cup")


def _same_collection(gold: Collection, other: Collection) -> bool:
    """Lists and sets in any order, everything else in its own; a list may stand for a point, in the same order."""
    if len(gold.items) != len(other.items):
        return False
    kinds = {gold.kind, other.kind}
    if gold.kind != other.kind and kinds not in ({",", "()"}, {",", r"\{\}"}):
        return False
    one, two, ordered = gold.items, other.items, not kinds <= set(_UNORDERED)
    if not all(isinstance(item, Named) for item in (*one, *two)):
        ordered = ordered or _distinct_names(one) or _distinct_names(two)
        one, two = _values(one), _values(two)
    return _all_equal(one, two) if ordered else _all_matched(one, two)


def _distinct_names(items: Sequence[Statement]) -> bool:
    """Whether names distinguish the items; ``x_1`` and ``x_2`` do not."""
    names = {item.name.split("_")[0] for item in items if isinstance(item, Named)}
    return len(names) > 1


def _values(items: Sequence[Statement]) -> tuple[Statement, ...]:
    return tuple(item.value if isinstance(item, Named) else item for item in items)


def _all_equal(golds: Sequence[Statement], others: Sequence[Statement]) -> bool:
    return len(golds) == len(others) and all(_equal(*pair) for pair in zip(golds, others, strict=True))


def _all_matched(golds: Sequence[Statement], others: Sequence[Statement]) -> bool:
    left = list(others)
    for gold in golds:
        match = next((other for other in left if _equal(gold, other)), None)
        if match is None:
            return False
        left.remove(match)
    return True


# --- values -----------------------------------------------------------------------------------------------------------


def _same_scalar(gold: Scalar, other: Scalar) -> bool:
    if (_leaves_work(other.text) or _does_more(other, gold)) and not _leaves_work(gold.text):
        return False  # otherwise a formula copied from the question would be its answer
    if gold.units and other.units and gold.units != other.units:  # of the known ones
        return False
    if len(gold.text) == 1 and gold.text.isalpha() and gold.text.lower() == other.text.lower():
        return True
    factors = (1, sympy.Rational(1, 100)) if ("%" in gold.units) != ("%" in other.units) else (1,)
    hundredth = other if "%" in other.units else gold
    for factor in factors:
        one, two = (side.value * factor if side is hundredth else side.value for side in (gold, other))
        if same_value(one, two) or rounded(gold.text, one, two) or rounded(other.text, two, one):
            return True
    return False


# --- work left to be done ---------------------------------------------------------------------------------------------

_WORK = re.compile(
    r"\\(?:[dt]?binom|choose|sum|prod|i?int|lim|gcd|lcm|max|min|[bp]?mod|det|a?r?c?(?:sin|cos|tan)|cot|sec|csc|log|ln)"
    r"(?![a-zA-Z])|\d\s*!|vmatrix|\\l(?:floor|ceil)|\|(?:\\[a-z]+|[^a-zA-Z|]|i)+\|"
)
_NUMBERS = re.compile(r"\\frac\s*(?:\{[-\d.]+\}\s*\{[-\d.]+\}|\d\s*\d)")
_SUM = re.compile(r"(?=.*[\d)}][-+*]+[\d({])[-+*/^().{}\d]+")


def _leaves_work(text: str) -> bool:
    """Whether a text leaves something to be computed: a named operation, or numbers with signs between them."""
    if _WORK.search(text):
        return True
    plain = re.sub(r"\s", "", _NUMBERS.sub("1", tidy(text)))
    return _SUM.fullmatch(re.sub(r"\*10\^\{?-?(\d+)\}?", "e", plain)) is not None


_TIMES_TEN = re.compile(r"\*10\^(?:\{-?\d+\}|-?\d)")
_OPERATION = re.compile(r"(?<=[\w)}\]!°])[-+]|(?<!\\sqrt\d)(?<=\d)\*(?=\d)|(?<=[\d)])\((?=-?[\d.]+\))|-(?=\(?-)")
_IMAGINARY = re.compile(r"\\[a-zA-Z]+|(\(-?i\)\^|i\}*\^|i)")


def _does_more(other: Scalar, gold: Scalar) -> bool:
    """Whether a number is written with more sums and products than the reference's, as ``(1+i)^4`` for -4.

    So are powers of i, and any i in a real number: ``i^{10}`` for -1.
    """
    if other.value.free_symbols:
        return False
    counts = [len(_OPERATION.findall(_TIMES_TEN.sub("", side.text.replace(" ", "")))) for side in (other, gold)]
    return counts[0] > counts[1] or _imaginary(other) > _imaginary(gold)


def _imaginary(side: Scalar) -> int:
    found = [sign for sign in _IMAGINARY.findall(side.text) if sign]
    return sum(bool(side.value.is_real) or sign.endswith("^") for sign in found)


def load() -> Work:
    """Use each part of sympy once, so that the first item takes no longer than any other."""
    for text in WARM_UP:
        compare(text, text, lambda phase: None)
    return lambda item, report: compare(item[0], item[1], report)


if __name__ == "__main__":
    serve(load)
