"""The memory where states take turns: by doubt, and least recently drawn problem, then state, first."""

from random import Random

import pytest

from fixtures.samplers import memory
from rrl.parts.samplers.buffer import StateBuffer
from rrl.parts.samplers.rows import Candidate


def store(states: StateBuffer, *names: str, doubt: float = 0.5) -> None:
    """A state for each name, such as "p1": prefix (1,) of problem p, of a response of eight tokens."""
    for name in names:
        states.add(Candidate(name[0], (int(name[1:]),), "self", 0.0, whole=8, doubt=doubt, value=0.0), 3)


def drawn(states: StateBuffer, count: int) -> list[str]:
    return [f"{state.problem_id}{state.prefix[0]}" for state in states.draw(count, Random(0))]


def test_by_doubt_the_states_after_which_the_policy_was_least_sure_come_first_and_again_when_all_have() -> None:
    states = memory(priority="doubt")
    for name, doubt in (("p1", 0.25), ("q1", 0.75), ("p2", 0.5)):
        store(states, name, doubt=doubt)
    assert drawn(states, 2) == ["q1", "p2"] and drawn(states, 1) == ["p1"] and drawn(states, 3) == ["q1", "p2", "p1"]
    assert drawn(states, 7) == ["q1", "p2", "p1"] * 2 + ["q1"]
    states.record([("q@2", 0, 1)])
    assert drawn(states, 1) == ["p2"]


def test_by_doubt_a_new_state_joins_the_round_and_a_forgotten_one_leaves_it() -> None:
    states = memory(priority="doubt")
    for name, doubt in (("p1", 0.25), ("q1", 0.75), ("p2", 0.5)):
        store(states, name, doubt=doubt)
    assert drawn(states, 7) == ["q1", "p2", "p1"] * 2 + ["q1"]  # the third round has begun
    store(states, "r1", doubt=0.3)
    assert drawn(states, 2) == ["p2", "r1"]
    states.forget_problem("p")
    store(states, "s1", doubt=0.6)
    assert drawn(states, 5) == ["s1", "q1", "r1", "s1", "q1"]


def test_in_the_forest_the_problem_least_recently_drawn_comes_next_with_its_state_least_recently_drawn() -> None:
    states = memory(priority="lru_forest")
    store(states, "p1", "p2", "q1", "r1")
    assert drawn(states, 1) == ["r1"]  # of those never drawn the newest first, and of its states likewise
    assert drawn(states, 6) == ["q1", "p2", "r1", "q1", "p1", "r1"]
    store(states, "s1", "q2")
    states.forget_problem("r")
    assert drawn(states, 4) == ["s1", "q2", "p2", "s1"]
    states.forget_problem("p")
    store(states, "p3")  # as if new
    assert drawn(states, 2) == ["p3", "q1"]


@pytest.mark.parametrize("priority", ["doubt", "lru_forest"])
def test_nothing_takes_a_turn_in_an_empty_memory(priority: str) -> None:
    states = memory(priority=priority)
    store(states, "p1")
    states.forget_problem("p")
    assert drawn(states, 3) == []


@pytest.mark.parametrize("priority", ["uniform", "success_variance", "score", "doubt", "lru_forest"])
def test_nothing_is_drawn_while_the_schedule_wants_nothing(priority: str) -> None:
    states = memory(priority=priority)
    store(states, "p1")
    assert drawn(states, 0) == []


def test_the_length_of_a_states_response_is_known_until_it_is_forgotten() -> None:
    states = memory()
    states.add(Candidate("p", (1, 2), "self", 0.0, whole=8, doubt=0.5, value=0.0), 3)
    store(states, "q1")
    states.forget_problem("q")
    assert states.wholes(["p@1", "q@2"]).tolist() == [8, 0]
