"""Whether two expressions have the same value: rational numbers exactly, all else to many digits, letters at points."""

import random
import re
from collections.abc import Iterator
from typing import Any

import sympy

DIGITS = 60
"""Decimal digits to which irrational values are computed."""
TOLERANCE = sympy.Float(10) ** -40
"""The largest relative difference of two equal values."""
POINTS = 24
"""Points that are tried; ENOUGH of them decide if the formulas are real there."""
ENOUGH = 6
PLACES = 6
"""Digits that a rounded decimal must have, behind its point and in all."""


def same_value(one: Any, two: Any) -> bool:
    """Whether two expressions have the same value, wherever one of them is real, or else where both are complex."""
    if one == two:
        return True
    if (one.is_Rational and two.is_Rational) or one.is_infinite or two.is_infinite:
        return False
    if one.free_symbols != two.free_symbols:
        return False
    return bool((one + two).equals(0)) if 0 in (one, two) else _agree(one, two)


def _agree(one: Any, two: Any) -> bool:
    real, complex_ = 0, list[bool]()
    for left, right in at_points(one, two):
        agree = _close(left, right)
        if not (left.is_real or right.is_real):
            complex_.append(agree)
            continue
        if not agree:
            return False
        real += 1
        if real == ENOUGH:
            break
    return real > 0 or (bool(complex_) and all(complex_))


def proportional(one: Any, two: Any) -> bool:
    """Whether two expressions in the same letters are a constant multiple of each other, and not zero."""
    if one.free_symbols != two.free_symbols or not one.free_symbols:
        return False
    ratios = [left / right for left, right in at_points(one, two) if left != 0 and right != 0]
    return len(ratios) >= ENOUGH and all(_close(ratio, ratios[0]) for ratio in ratios)


def rounded(written: str, value: Any, exact: Any) -> bool:
    """Whether a long decimal, ``value`` as it is ``written``, is a value without end as a decimal, rounded."""
    decimals = re.fullmatch(r"-?(\d*)\.(\d+)", written)
    if decimals is None or exact.free_symbols or not exact.is_real or _ends(exact):
        return False
    if len(decimals[2]) < PLACES or len((decimals[1] + decimals[2]).lstrip("0")) < PLACES:
        return False
    unit = abs(value / sympy.Rational(written)) / 10 ** len(decimals[2])
    return bool(abs(sympy.N(value - exact, DIGITS)) <= unit / 2)


def _ends(value: Any) -> bool:
    """Whether a value has finitely many decimals: its denominator divides a power of ten."""
    return bool(value.is_Rational) and pow(10, int(value.q).bit_length(), int(value.q)) == 0


def at_points(one: Any, two: Any) -> Iterator[tuple[Any, Any]]:
    """The finite values of two expressions at random points, or once where they have no letters."""
    letters = sorted(one.free_symbols | two.free_symbols, key=str)
    draw = random.Random(0)
    for count in range(POINTS if letters else 1):
        size = (99_991, 1_299_709)[count % 2]  # points within 10 of zero, and within 1
        point = {letter: sympy.Rational(draw.randint(-(10**6), 10**6), size) for letter in letters}
        exact = [side.subs(point) for side in (one, two)]
        values = [value if value.is_Rational else sympy.N(value, DIGITS) for value in exact]
        if all(value.is_number and value.is_finite for value in values):
            yield values[0], values[1]


def _close(one: Any, two: Any) -> bool:
    if one.is_Rational and two.is_Rational:
        return bool(one == two)
    size = max(abs(sympy.N(one, DIGITS)), abs(sympy.N(two, DIGITS)))
    return bool(abs(sympy.N(one - two, DIGITS)) <= size * TOLERANCE)
