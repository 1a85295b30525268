"""Ranges of hyper-parameters, checked by constructors: one ValueError with all faults. None is always in range."""

import math
from collections.abc import Collection, Iterable, Mapping
from types import NoneType
from typing import NamedTuple, get_args, get_type_hints


class OutOfRange(ValueError):
    """All faults of a part; ``names`` are the fields that are out of range whatever the others are."""

    def __init__(self, faults: Iterable[str], names: Collection[str] = ()) -> None:
        self.faults, self.names = tuple(faults), frozenset(names)
        super().__init__("\n".join(self.faults))


class Range(NamedTuple):
    """A range of these fields, both ends included; ``expected`` states it in words."""

    names: tuple[str, ...]
    low: float
    high: float
    expected: str


def at_least_one(*names: str) -> Range:
    return Range(names, 1, math.inf, "at least 1")


def not_negative(*names: str) -> Range:
    return Range(names, 0, math.inf, "a number >= 0")


def positive(*names: str) -> Range:
    return Range(names, math.ulp(0.0), math.inf, "a number > 0")


def below_one(*names: str) -> Range:
    return Range(names, 0, math.nextafter(1, 0), "a number from 0 to below 1")


def between(low: float, high: float, *names: str) -> Range:
    return Range(names, low, high, f"a number from {low:g} to {high:g}")


def check_ranges(part: object, *ranges: Range) -> None:
    """Raise OutOfRange with a line for each field of ``part`` that is out of its range."""
    # A field that an incomplete part lacks counts as None.
    present = dict.fromkeys(getattr(part, "__dataclass_fields__", ())) | vars(part)
    given = {name: (present[name], each) for each in ranges for name in each.names}
    wrong = {name: it for name, it in given.items() if it[0] is not None and not it[1].low <= it[0] <= it[1].high}
    if wrong:
        hints = get_type_hints(type(part))
        null = {name: " or null" if NoneType in get_args(hints.get(name)) else "" for name in wrong}
        faults = [f"{name}: expected {each.expected}{null[name]}, got {value}" for name, (value, each) in wrong.items()]
        raise OutOfRange(faults, wrong)


def refuse(faults: Mapping[str, bool]) -> None:
    """Raise OutOfRange with the ``faults`` that are true, if any."""
    found = [fault for fault, holds in faults.items() if holds]
    if found:
        raise OutOfRange(found)
