"""Compares the output or value of a program with the expected one. Pure; both are plain data outside the sandbox.

The rule is that of the sites that the problems are from: strict about order and number of tokens, tolerant about white
space and the last digits of fractions. (APPS' own ``testing_util.py`` compares sets of tokens in the end, so that it
accepts repeated or reordered output.)
"""

import math
import re
from collections.abc import Sequence
from typing import Any

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_FRACTIONAL = re.compile(r"\.|[eE][+-]")


def same_output(printed: str, expected: str, tolerance: float) -> bool:
    """Whether two texts have the same tokens in the same order, however white space and line ends separate them.

    Tokens are the same as text, or as numbers when one of them is written with a point or an exponent (``1e-07``):
    see ``close``. So 3.0 and 2.9999999 are 3, but 07 is not 7, and a long integer is compared digit by digit.
    """
    mine, theirs = printed.split(), expected.split()
    return len(mine) == len(theirs) and all(_same_token(a, b, tolerance) for a, b in zip(mine, theirs, strict=True))


def same_value(returned: Any, expected: Any, tolerance: float) -> bool:
    """Whether two values are equal as JSON data: lists item by item, mappings key by key, floats as ``close`` says.

    True is 1 and False is 0, as for the judges that the problems stem from; a string is never a number.
    """
    if isinstance(returned, dict) and isinstance(expected, dict):
        return returned.keys() == expected.keys() and same_value(
            [returned[key] for key in expected], list(expected.values()), tolerance
        )
    if isinstance(returned, list | tuple) and isinstance(expected, list | tuple):
        pairs = zip(returned, expected, strict=False)
        return len(returned) == len(expected) and all(same_value(a, b, tolerance) for a, b in pairs)
    if isinstance(returned, float) or isinstance(expected, float):
        numbers = isinstance(returned, int | float) and isinstance(expected, int | float)
        return numbers and close(returned, expected, tolerance)
    return bool(returned == expected)


def wraps_each(outputs: Sequence[Any]) -> bool:
    """Whether every expected value is a list of one item, as in APPS rows that wrap the value itself."""
    return all(isinstance(output, list) and len(output) == 1 for output in outputs)


def close(value: float, expected: float, tolerance: float) -> bool:
    """|value - expected| <= tolerance * max(1, |expected|); for a whole ``expected`` of type int without the factor.

    Judges of fractions allow an absolute or relative error; for whole numbers, a relative one would accept 500000.5 for
    500000.
    """
    try:
        if not math.isfinite(expected):
            return value == expected
        scale = 1.0 if isinstance(expected, int) else max(1.0, abs(expected))
        return value == expected or abs(value - expected) <= tolerance * scale
    except OverflowError:  # an integer beyond all floats
        return False


def _same_token(printed: str, expected: str, tolerance: float) -> bool:
    if printed == expected:
        return True
    if not (_FRACTIONAL.search(printed) or _FRACTIONAL.search(expected)):
        return False
    if not (_NUMBER.fullmatch(printed) and _NUMBER.fullmatch(expected)):
        return False
    value, wanted = _number(printed), _number(expected)
    return math.isfinite(wanted) and close(value, wanted, tolerance)


def _number(token: str) -> float:
    """The token's value: an int where it is written as one and a float can hold it exactly, else a float."""
    return int(token) if re.fullmatch(r"[+-]?[0-9]{1,15}", token) else float(token)
