import math
from dataclasses import dataclass
from typing import Any

import pytest

from rrl.ranges import OutOfRange, Range, at_least_one, below_one, between, check_ranges, not_negative, positive, refuse


@dataclass(frozen=True, kw_only=True)
class Part:
    first: float
    second: float | None = None


@pytest.mark.parametrize(
    ("wanted", "inside", "outside"),
    [
        (at_least_one("first"), [1, math.inf], [0, 0.99, -1, math.nan]),
        (not_negative("first"), [0, -0.0, 1e300], [-5e-324, -1, math.nan]),
        (positive("first"), [5e-324, 1, math.inf], [0, -0.0, -1, math.nan]),
        (below_one("first"), [0, 0.9999999999999999], [1, -1e-9, math.nan]),
        (between(0.5, 2, "first"), [0.5, 1, 2], [0.49, 2.01, math.inf, math.nan]),
    ],
)
def test_where_a_range_ends(wanted: Range, inside: list[float], outside: list[float]) -> None:
    for value in inside:
        check_ranges(Part(first=value), wanted)
    for value in outside:
        with pytest.raises(OutOfRange, match=f"^first: expected .*, got {value}$"):
            check_ranges(Part(first=value), wanted)


def test_all_numbers_out_of_range_are_reported_in_one_error_and_null_is_in_range() -> None:
    check_ranges(Part(first=1), at_least_one("second", "first"))
    with pytest.raises(ValueError, match=r"^first: expected at least 1, got 0$"):
        check_ranges(Part(first=0), at_least_one("second", "first"))
    with pytest.raises(OutOfRange) as caught:
        check_ranges(Part(first=-1, second=-2), between(0, 2.5, "first"), not_negative("second"))
    assert caught.value.faults == (
        "first: expected a number from 0 to 2.5, got -1",
        "second: expected a number >= 0 or null, got -2",
    )
    assert (str(caught.value).count("\n"), caught.value.names) == (1, {"first", "second"})


@pytest.mark.parametrize("part", [Part(first=1), object.__new__(Part)])
def test_a_range_of_a_field_that_there_is_not_is_a_mistake_of_the_part(part: Any) -> None:
    with pytest.raises(KeyError, match="frist"):
        check_ranges(part, at_least_one("frist"))


def test_of_a_half_made_part_the_fields_that_it_has_are_checked() -> None:
    part = object.__new__(Part)
    vars(part)["second"] = 0
    with pytest.raises(OutOfRange) as caught:
        check_ranges(part, at_least_one("first", "second"))
    assert caught.value.names == {"second"}


def test_what_is_refused_is_reported_in_order() -> None:
    refuse({"a": False})
    with pytest.raises(OutOfRange) as caught:
        refuse({"a: wrong": True, "b: wrong": False, "c: wrong": True})
    assert (caught.value.faults, caught.value.names) == (("a: wrong", "c: wrong"), frozenset())
