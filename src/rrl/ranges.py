"""What a part's constructor says of hyper-parameters out of range: all of them in one ValueError. None is in range."""

import math
from collections.abc import Collection, Iterable, Mapping
from types import NoneType
from typing import NamedTuple, get_args, get_type_hints


class OutOfRange(ValueError):
    """All that is wrong with a part; ``names`` are the fields that are out of range, whatever the others are."""

    def __init__(self, faults: Iterable[str], names: Collection[str] = ()) -> None:
        self.faults, self.names = tuple(faults), frozenset(names)
        super().__init__("\n".join(self.faults))


class Range(NamedTuple):
    """Where these fields have to lie, both ends included."""

    names: tuple[str, ...]
    low: float
    high: float
    expected: str


def at_least_one(*names: str) -> Range:
    """Each of these fields has to be 1 or more."""
    return Range(names, 1, math.inf, "at least 1")


def not_negative(*names: str) -> Range:
    """Each of these fields has to be 0 or more."""
    return Range(names, 0, math.inf, "a number >= 0")


def positive(*names: str) -> Range:
    """Each of these fields has to be more than 0."""
    return Range(names, math.ulp(0.0), math.inf, "a number > 0")


def below_one(*names: str) -> Range:
    """Each of these fields has to be from 0 to below 1."""
    return Range(names, 0, math.nextafter(1, 0), "a number from 0 to below 1")


def between(low: float, high: float, *names: str) -> Range:
    """Each of these fields has to be from ``low`` to ``high``."""
    return Range(names, low, high, f"a number from {low:g} to {high:g}")


def check_ranges(part: object, *ranges: Range) -> None:
    """Raise OutOfRange with a line for each field of ``part`` that is not where it has to be."""
    present = dict.fromkeys(getattr(part, "__dataclass_fields__", ())) | vars(
        part
    )  # what a half-made one lacks is None
    given = {name: (present[name], each) for each in ranges for name in each.names}
    wrong = {name: it for name, it in given.items() if it[0] is not None and not it[1].low <= it[0] <= it[1].high}
    if wrong:
        hints = get_type_hints(type(part))
        null = {name: " or null" if NoneType in get_args(hints.get(name)) else "" for name in wrong}
        told = [f"{name}: expected {each.expected}{null[name]}, got {value}" for name, (value, each) in wrong.items()]
        raise OutOfRange(told, wrong)


def refuse(faults: Mapping[str, bool]) -> None:
    """Raise OutOfRange with those of the ``faults`` that are so."""
    told = [fault for fault, holds in faults.items() if holds]
    if told:
        raise OutOfRange(told)
