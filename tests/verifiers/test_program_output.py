"""The rule by which what a program printed or returned is right; every line of the tables is worked by hand."""

import time
from typing import Any

import pytest

from rrl.verifiers.program_output import same_output, same_value, wraps_each

OUTPUTS = [
    # printed, expected, the same?
    ("3\n", "3", True),
    ("3", "3\n\n", True),
    ("3 \r\n4\r\n", "3\n4\n", True),
    ("1  2\t3\n", "1 2 3", True),
    ("1\n2\n3\n", "1 2 3\n", True),
    ("\n1\n\n2\n", "1\n2", True),
    ("", "\n", True),
    ("", "0", False),
    ("0", "", False),
    ("1 2", "2 1", False),
    ("1 1 2", "1 2", False),  # equal as sets of tokens, which APPS' own script compares in the end
    ("1 2", "1 2 2", False),
    ("12", "1 2", False),
    ("YES", "Yes", False),
    ("a b", "a c", False),
    # fractions
    ("0.3333333333", "0.3333333", True),
    ("0.333", "0.3333333", False),
    ("3.0", "3", True),
    ("2.9999999999", "3", True),
    ("3", "3.0000000", True),
    ("-0.0", "0", True),
    ("1e-07", "0.0", True),
    ("1000000.5", "1000000.0", True),  # half a millionth
    ("1000002.0", "1000000.0", False),
    ("500000.5", "500000", False),  # a whole number was asked for
    ("0.000001", "0.000003", False),
    (".5", "0.5", True),
    ("5e-1", "0.5", True),
    ("1.5.2", "1.5", False),
    ("nan", "0.5", False),
    ("0.5", "nan", False),
    ("nan", "nan", True),
    ("1e999", "1.0", False),
    ("1.0", "1e+999", False),
    ("1.0", "1_0.0", False),
    # whole numbers and names are compared as text
    ("7", "07", False),
    ("+7", "7", False),
    ("1e5", "100000", False),
    ("12345678901234567891", "12345678901234567890", False),
    ("1" * 5000, "1" * 5000, True),
    ("1" * 5000 + ".5", "1" * 5000, False),
    ("0.1", "0.1a", False),
]


@pytest.mark.parametrize(("printed", "expected", "same"), OUTPUTS)
def test_outputs_are_compared_token_by_token(printed: str, expected: str, same: bool) -> None:
    assert same_output(printed, expected, 1e-6) is same


VALUES: list[tuple[Any, Any, bool]] = [
    # returned, expected, the same?
    (3, 3, True),
    (3, 4, False),
    (3.0, 3, True),
    (3, 3.0, True),
    (0.1 + 0.2, 0.3, True),
    (2.9999999999, 3, True),
    (3, 3.0000000001, True),
    (0.3001, 0.3, False),
    (500000.5, 500000, False),
    (500000.4, 500000.0, True),
    (2**70 + 1, 2**70, False),
    (float("nan"), 1.0, False),
    (float("inf"), 1.0, False),
    (10**400, 1.5, False),
    (1.5, 10**400, False),
    (True, True, True),
    (True, False, False),
    (1, True, True),
    (0, False, True),
    (2, True, False),
    ("3", 3, False),
    (3, "3", False),
    ("3.0", 3.0, False),
    (None, None, True),
    (None, 0, False),
    (0, None, False),
    (None, 0.0, False),
    ("a ", "a", False),
    ([1, 2], [1, 2], True),
    ([1, 2], [2, 1], False),
    ([1], [1, 1], False),
    ((1, 2), [1, 2], True),
    ([(1, "a")], [[1, "a"]], True),
    ([[1], [0.1 + 0.2]], [[1], [0.3]], True),
    ([], None, False),
    ("", [], False),
    ({"a": 1, "b": [2]}, {"b": [2], "a": 1.0}, True),
    ({"a": 1}, {"a": 2}, False),
    ({"a": 1}, {"a": 1, "b": 2}, False),
    ({"a": 1, "b": 2}, {"a": 1}, False),
    ({"1": 1}, {"2": 1}, False),
    ([1], 1, False),
    (5, float("inf"), False),
    (float("inf"), float("inf"), True),
]


@pytest.mark.parametrize(("returned", "expected", "same"), VALUES)
def test_values_are_compared_as_json_data(returned: Any, expected: Any, same: bool) -> None:
    assert same_value(returned, expected, 1e-6) is same


@pytest.mark.parametrize(
    ("outputs", "wrapped"), [([[False], [True]], True), ([[1], [1, 2]], False), ([[1], 2], False), ([[[1]]], True)]
)
def test_only_where_every_expected_value_is_a_list_of_one_may_it_wrap_the_value(
    outputs: list[Any], wrapped: bool
) -> None:
    assert wraps_each(outputs) is wrapped


@pytest.mark.parametrize("printed", ["1" * 10**6 + "x", "1" * 10**6 + ".x", "." * 10**6, "1e" * 10**6, "1" * 10**6])
def test_long_tokens_take_no_long_time(printed: str) -> None:
    begin = time.perf_counter()
    assert not same_output(printed, "0.5", 1e-6)
    assert time.perf_counter() - begin < 5


def test_without_tolerance_numbers_have_to_be_equal() -> None:
    assert same_output("3.0", "3", 0)
    assert not same_output("3.0000001", "3", 0)
    assert not same_value(0.1 + 0.2, 0.3, 0)
