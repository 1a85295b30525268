"""The memory of states: bounded, deduplicated, forgetting the dead and the mastered, drawn by priority, resumable."""

import math
from collections import Counter
from random import Random
from typing import Any

import pytest

from fixtures.replay import THROUGH
from rrl.parts.samplers.buffer import StateBuffer


def buffer(**changes: Any) -> StateBuffer:
    """A roomy memory that forgets nothing, but for the changes."""
    settings = {
        "capacity": 100, "states_per_problem": 100, "priority": "uniform", "keep_between": (0.0, 1.0),
    }  # fmt: skip
    return StateBuffer(**settings | changes)


def add(memory: StateBuffer, problem_id: str, *prefix: int, score: float = 0.0) -> bool:
    return memory.add(problem_id, prefix, source="self", score=score, step=3)


def fill(memory: StateBuffer, *names: str) -> None:
    """Add one state per name, such as "p1": prefix (1,) of problem p."""
    for name in names:
        add(memory, name[0], int(name[1:]))


def held(memory: StateBuffer) -> list[tuple[str, tuple[int, ...]]]:
    return [(state.problem_id, state.prefix) for state in memory]


def visit(memory: StateBuffer, key: str, outcomes: str) -> None:
    """Record one visit per letter: y for a success."""
    for outcome in outcomes:
        memory.record(key, outcome == "y")


def test_a_new_state_is_stored_with_its_birth():
    memory = buffer()
    assert add(memory, "p", 4, 5, score=0.5)
    (state,) = memory
    assert (state.key, state.problem_id, state.prefix) == ("p@1", "p", (4, 5))
    assert (state.source, state.born_step, state.score_at_insert, state.score_now) == ("self", 3, 0.5, 0.5)
    assert (state.visits, state.successes, state.success_rate) == (0, 0, 0.5)


def test_a_known_prefix_of_a_problem_is_not_stored_twice_but_its_score_is_updated():
    memory = buffer()
    assert add(memory, "p", 4, 5, score=0.5) and not add(memory, "p", 4, 5, score=0.75)
    (state,) = memory
    assert (state.score_at_insert, state.score_now, memory.evictions) == (0.5, 0.75, 0)


def test_the_same_prefix_of_another_problem_is_another_state():
    memory = buffer()
    fill(memory, "p4", "q4")
    assert (len(memory), memory.problems) == (2, 2)


def test_a_full_problem_gives_up_the_one_of_its_own_states_with_the_lowest_score():
    memory = buffer(states_per_problem=2)
    add(memory, "other", 9, score=-9.0)
    for prefix, score in ((1, 0.5), (2, 0.25), (3, 0.75)):
        assert add(memory, "p", prefix, score=score)
    assert held(memory) == [("other", (9,)), ("p", (1,)), ("p", (3,))]
    assert memory.evictions == 1


def test_a_full_memory_gives_up_the_state_of_the_lowest_score_of_any_problem():
    memory = buffer(capacity=2)
    for name, score in (("a", 0.5), ("b", 0.25), ("c", 0.75)):
        assert add(memory, name, 1, score=score)
    assert [name for name, _ in held(memory)] == ["a", "c"]
    assert (memory.problems, memory.evictions) == (2, 1)


def test_of_states_with_the_same_score_the_oldest_is_given_up():
    memory = buffer(states_per_problem=2)
    fill(memory, "p1", "p2", "p3")
    assert held(memory) == [("p", (2,)), ("p", (3,))]


@pytest.mark.parametrize("limit", ["capacity", "states_per_problem"])
def test_a_newcomer_of_the_lowest_score_is_not_kept(limit):
    memory = buffer(**{limit: 1})
    add(memory, "p", 1, score=0.5)
    assert not add(memory, "p", 2, score=0.25)
    assert held(memory) == [("p", (1,))]


def test_overflow_goes_by_the_score_of_now_not_of_insertion():
    memory = buffer(states_per_problem=2)
    for prefix, score in ((1, 0.1), (2, 0.5), (1, 0.9), (3, 0.7)):
        add(memory, "p", prefix, score=score)
    assert held(memory) == [("p", (1,)), ("p", (3,))]


def left(outcomes: str, *bounds: float) -> int:
    """How many of one state, visited with these outcomes, are left."""
    memory = buffer(keep_between=bounds)
    add(memory, "p", 1)
    visit(memory, "p@1", outcomes)
    assert (memory.problems, memory.evictions) == (len(memory), 1 - len(memory))
    return len(memory)


# Estimates by hand: 1/9 after seven failures, 1/10 after eight; 2/19 after one success in seventeen, 2/20 in eighteen.
@pytest.mark.parametrize(
    ("outcomes", "count"),
    [("nnnnnnn", 1), ("nnnnnnnn", 0), ("nnnnnnny", 1), ("y" + "n" * 16, 1), ("y" + "n" * 17, 0)],
)
def test_a_state_is_dead_when_its_estimated_success_has_come_down_to_the_lower_bound(outcomes, count):
    assert left(outcomes, 0.1, 1.0) == count


# By hand: 4/5 after three successes, 5/6 after four; with a failure 8/10 after seven, 9/11 after eight; with two 13/16.
@pytest.mark.parametrize(
    ("outcomes", "count"),
    [("yyy", 1), ("yyyy", 0), ("nyyyyyyy", 1), ("nyyyyyyyy", 0), ("nnyyyyyyyyyyy", 1), ("nnyyyyyyyyyyyy", 0)],
)
def test_a_state_is_mastered_when_its_estimated_success_is_above_the_upper_bound(outcomes, count):
    assert left(outcomes, 0.0, 0.8) == count


@pytest.mark.parametrize("outcome", ["y", "n"])
def test_between_0_and_1_no_state_is_dead_or_mastered(outcome):
    assert left(outcome * 50, 0.0, 1.0) == 1


def test_an_outcome_is_booked_on_the_state_it_came_from():
    memory = buffer()
    fill(memory, "p1", "p2")
    visit(memory, "p@2", "yn")
    assert [(s.visits, s.successes, s.success_rate) for s in memory] == [(0, 0, 0.5), (2, 1, 0.5)]


def test_an_outcome_of_a_forgotten_state_is_ignored_even_if_its_prefix_is_back():
    memory = buffer()
    add(memory, "p", 1)
    memory.forget_problem("p")
    add(memory, "p", 1)
    visit(memory, "p@1", "y")
    assert [(s.key, s.visits) for s in memory] == [("p@2", 0)]


def test_forgetting_a_problem_forgets_all_of_its_states_and_no_others():
    memory = buffer()
    fill(memory, "p1", "q1", "p2")
    memory.forget_problem("p")
    memory.forget_problem("unknown")
    assert held(memory) == [("q", (1,))]
    assert (memory.problems, memory.evictions) == (1, 2)


def test_nothing_is_drawn_from_an_empty_memory():
    assert buffer().draw(5, Random(0)) == []


# Weights 1:1:1; p(1-p) of the estimates 1/2, 1/4, 3/4, that is 4:3:3; and exp(score) of ln 1, ln 2, ln 5.
@pytest.mark.parametrize(
    ("priority", "shares"),
    [("uniform", (1 / 3, 1 / 3, 1 / 3)), ("success_variance", (0.4, 0.3, 0.3)), ("score", (0.125, 0.25, 0.625))],
)
def test_states_are_drawn_with_replacement_by_priority(priority, shares):
    memory = buffer(priority=priority)
    for prefix, score, outcomes in ((1, 0.0, ""), (2, math.log(2), "nn"), (3, math.log(5), "yy")):
        add(memory, "p", prefix, score=score)
        visit(memory, f"p@{prefix}", outcomes)
    counts = Counter(state.prefix[0] for state in memory.draw(40_000, Random(0)))
    assert [counts[prefix] / 40_000 for prefix in (1, 2, 3)] == pytest.approx(shares, abs=0.01)


def test_equal_seeds_draw_equal_states():
    memory = buffer()
    fill(memory, *(f"p{prefix}" for prefix in range(20)))
    first, again, other = ([s.key for s in memory.draw(30, Random(seed))] for seed in (1, 1, 2))
    assert first == again != other


@THROUGH
def test_a_restored_memory_draws_evicts_and_names_as_the_saved_one_would(through):
    saved, restored = (buffer(capacity=3, priority="success_variance", keep_between=(0.25, 1.0)) for _ in range(2))
    for prefix in range(5):
        add(saved, "pq"[prefix % 2], prefix, score=-prefix)
    visit(saved, next(iter(saved)).key, "n")
    restored.load_state_dict(through(saved.state_dict()))
    for memory in (saved, restored):
        fill(memory, "r1", "p7")
        visit(memory, "r@6", "nn")
    assert restored.draw(50, Random(0)) == saved.draw(50, Random(0))
    assert restored.state_dict() == saved.state_dict()


def test_a_saved_memory_does_not_change_with_the_living_one():
    memory, restored = buffer(), buffer()
    add(memory, "p", 1, 2)
    saved = memory.state_dict()
    visit(memory, "p@1", "y")
    fill(memory, "p3")
    fill(restored, "q4")
    restored.load_state_dict(saved)
    assert [(s.key, s.prefix, s.visits) for s in restored] == [("p@1", (1, 2), 0)] and restored.problems == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("capacity", 0), ("states_per_problem", 0), ("keep_between", (-0.1, 0.8)), ("keep_between", (0.1, 1.1)),
     ("keep_between", (0.8, 0.1)), ("keep_between", (0.5, 0.5))],
)  # fmt: skip
def test_an_impossible_setting_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=key):
        buffer(**{key: value})
