"""Binding a mapping to a dataclass: types, missing and unknown arguments, parts within parts."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from rrl.config.check import check
from rrl.errors import ConfigError
from rrl.interfaces import Selection
from rrl.ranges import check_ranges, not_negative, refuse


@dataclass(kw_only=True)
class Toy:
    """Takes one argument of each kind."""

    amount: float
    count: int
    name: str | None
    on: bool
    kind: Literal["a", "b", 3]
    pair: tuple[float, float]
    several: tuple[str, ...]
    points: tuple[tuple[float, float], ...]
    weights: dict[str, float]
    anything: Any
    rule: Selection

    def __post_init__(self) -> None:
        check_ranges(self, not_negative("amount", "count"))
        refuse({"weights: expected a weight": not self.weights, "several: expected at most 1": len(self.several) > 1})
        if self.amount > self.count:
            raise ValueError(f"amount: expected at most count = {self.count}, got {self.amount}")


RULE = {"_target_": "rrl.parts.selections.critic.CriticTopK", "k": 1, "min_explained_variance": None}
GOOD: dict[str, Any] = {
    "_target_": f"{Toy.__module__}.Toy", "amount": 1, "count": 2, "name": None, "on": True, "kind": 3,
    "pair": [1, 2.5], "several": [], "points": [[0, 1]], "weights": {"x": 1}, "anything": {"y": [1]},
    "rule": RULE,
}  # fmt: skip


def reported(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check({"run": {**GOOD, **changes}})
    return list(caught.value.faults)


def test_a_mapping_with_a_target_becomes_an_object_and_lists_become_tuples() -> None:
    toy = check({"run": GOOD}).run
    assert isinstance(toy, Toy)
    assert (toy.pair, toy.several, toy.anything, toy.rule.k) == ((1, 2.5), (), {"y": (1,)}, 1)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("amount", "1", "float, got '1'; write 1, without quotes"),
        ("amount", True, "float, got True"),
        ("amount", float("nan"), "a finite float, got nan"),
        ("count", 1.5, "int, got 1.5"),
        ("count", False, "int, got False"),
        ("name", 5, "str or null, got 5"),
        ("on", 1, "bool, got 1"),
        ("on", "yes", "bool, got 'yes'; write true, without quotes"),
        ("kind", "c", "'a' | 'b' | 3, got 'c'"),
        ("kind", 3.5, "'a' | 'b' | 3, got 3.5"),
        ("pair", [1], "a list of 2 float, got [1]"),
        ("pair", [1, "x"], "a list of 2 float, got [1, 'x']"),
        ("several", "abc", "a list of str, got 'abc'"),
        ("several", [1], "a list of str, got [1]"),
        ("points", [[1]], "a list of lists of 2 float, got [(1,)]"),
        ("weights", [1], "a mapping of names to float, got [1]"),
        ("weights", {"x": None}, "a mapping of names to float, got {'x': None}"),
        ("weights", {3: 1.0}, "a mapping of names to float, got {3: 1.0}"),
        ("rule", "top_k", "Selection, got 'top_k'"),
        ("rule", None, "Selection, got null"),
    ],
)
def test_a_value_of_another_type_is_reported(key: str, value: Any, expected: str) -> None:
    assert reported(**{key: value}) == [f"run.{key}: expected {expected}"]


def test_missing_and_unknown_arguments_are_reported() -> None:
    bad = {key: value for key, value in GOOD.items() if key != "count"} | {"cuont": 2}
    with pytest.raises(ConfigError) as caught:
        check({"run": bad})
    assert caught.value.faults == (
        "run.count: missing; Toy needs it",
        "run.cuont: Toy takes no such argument; did you mean 'count'?",
    )


def test_a_part_within_a_part_is_reported_once() -> None:
    assert reported(rule=RULE | {"k": 0}) == ["run.rule.k: expected at least 1, got 0"]
    bare = {key: value for key, value in RULE.items() if key != "k"}
    assert reported(rule=bare) == ["run.rule.k: missing; CriticTopK needs it"]


NAME, AMOUNT = "run.name: expected str or null, got 5", "run.amount: expected a number >= 0, got -1"
COUNT, WEIGHTS = "run.count: expected a number >= 0, got -2", "run.weights: expected a weight"
SEVERAL = "run.several: expected at most 1"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"amount": -1, "count": -2}, [AMOUNT, COUNT]),
        ({"amount": -1, "count": -2, "name": 5}, [NAME, AMOUNT, COUNT]),
        ({"amount": -1, "count": -2, "name": 5, "weights": {}, "several": ["a", "b"]},
         [NAME, AMOUNT, COUNT, WEIGHTS, SEVERAL]),
        ({"amount": -1, "weights": {}}, [AMOUNT, WEIGHTS]),
        ({"amount": 9, "count": -2}, [COUNT]),
        ({"amount": 9, "count": "x"}, ["run.count: expected int, got 'x'"]),
        ({"amount": 9, "weights": {}}, [WEIGHTS]),
        ({"amount": 9, "name": 5}, [NAME, "run.amount: expected at most count = 2, got 9"]),
        ({"amount": -1, "more": 1}, ["run.more: Toy takes no such argument; valid: amount, anything, count, kind, "
                                     "name, on, pair, points, rule, several, weights", AMOUNT]),
        ({"amount": -1, "rule": RULE | {"k": 0}},
         ["run.rule.k: expected at least 1, got 0", AMOUNT]),
    ],
)  # fmt: skip
def test_all_faults_of_a_part_are_reported_but_none_that_hangs_on_a_faulty_argument(
    changes: dict[str, Any], expected: list[str]
) -> None:
    assert reported(**changes) == expected


class Plain:
    """A class that is no dataclass, and refuses with an error of its own."""

    def __init__(self, *, boldness: int, name: str) -> None:
        if boldness < 1:
            raise ValueError(f"boldness: expected at least 1, got {boldness}")


def test_a_class_that_is_no_dataclass_refuses_once_its_arguments_bind() -> None:
    plain = {"_target_": f"{__name__}.Plain", "boldness": 0, "name": "x"}
    with pytest.raises(ConfigError) as caught:
        check({"run": plain})
    assert caught.value.faults == ("run.boldness: expected at least 1, got 0",)
    with pytest.raises(ConfigError) as caught:
        check({"run": plain | {"name": 5}})
    assert caught.value.faults == ("run.name: expected str, got 5",)


def test_the_message_has_a_heading_and_a_line_for_each_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        check({"run": {**GOOD, "count": "x", "on": 1}})
    assert str(caught.value) == (
        "ConfigError: config does not fit the code:\n  run.count: expected int, got 'x'\n  run.on: expected bool, got 1"
    )
