"""The memory of states: bounded, deduplicated, forgetting the dead and the mastered, drawn by priority, resumable."""

import math
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from fixtures.replay import THROUGH, plain
from rrl.parts.samplers.buffer import StateBuffer
from rrl.parts.samplers.rows import Candidate, Rows
from rrl.types import Stored


def buffer(**changes: Any) -> StateBuffer:
    """A roomy memory that forgets nothing, but for the changes."""
    settings = {
        "capacity": 100, "states_per_problem": 100, "priority": "uniform", "keep_between": (0.0, 1.0),
    }  # fmt: skip
    return StateBuffer(**settings | changes)


def add(memory: StateBuffer, problem_id: str, *prefix: int, score: float = 0.0, doubt: float = 0.5) -> bool:
    return memory.add(Candidate(problem_id, prefix, "self", score, whole=8, doubt=doubt, value=0.0), 3)


def fill(memory: StateBuffer, *names: str) -> None:
    """Add one state per name, such as "p1": prefix (1,) of problem p."""
    for name in names:
        add(memory, name[0], int(name[1:]))


def held(memory: StateBuffer) -> list[tuple[str, tuple[int, ...]]]:
    return [(state.problem_id, state.prefix) for state in memory]


def visit(memory: StateBuffer, key: str, outcomes: str) -> None:
    """Record one visit per letter: y for a success."""
    for outcome in outcomes:
        memory.record([(key, outcome == "y", 1)])


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


# By hand: of 4 siblings one success leaves (1 + 1) / (4 + 2) = 1/3, two leave 1/2, three 2/3, whichever came first.
@pytest.mark.parametrize(("successes", "kept"), [(1, True), (2, True), (3, False)])
def test_the_rollouts_of_one_draw_count_together(successes: int, kept: bool) -> None:
    memory = buffer(keep_between=(0.0, 0.5))
    fill(memory, "p1")
    memory.record([("p@1", successes, 4)])
    assert [(s.visits, s.successes) for s in memory] == [(4, successes)] * kept


# By hand: 3/4 after two successes is above 0.7, so that the failures that follow count no more; 1/4 after two failures
# of the other is not.
def test_visits_to_a_state_count_in_their_order_until_it_is_forgotten():
    memory = buffer(keep_between=(0.2, 0.7))
    fill(memory, "p1", "q1")
    memory.record([("q@2", 0, 1), ("p@1", 1, 1), ("p@1", 1, 1), ("q@2", 0, 1), ("p@1", 0, 1), ("gone@9", 1, 1)])
    assert [(s.key, s.visits, s.successes) for s in memory] == [("q@2", 2, 0)]
    assert (memory.evictions, memory.sums()["visits"]) == (1, 2)


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


# The plain way to draw: a weight for each state, and the standard library's choice among all of them.
PLAIN = {
    "uniform": lambda state: 1.0,
    "success_variance": lambda state: state.success_rate * (1 - state.success_rate),
    "score": lambda state: math.exp(state.score_now),
}


@pytest.mark.parametrize("priority", PLAIN)
@pytest.mark.parametrize("count", [1, 16, 700])
def test_a_draw_is_what_the_standard_library_would_choose_among_all_states(priority, count):
    memory, rng = buffer(priority=priority, capacity=600, states_per_problem=7), Random(count)
    for number in range(count):
        add(memory, f"p{number % 90}", number, score=rng.gauss(0, 1))
    for problem in range(0, count // 9, 7):
        memory.forget_problem(f"p{problem}")  # leaves gaps
    for seed in range(3):
        states = list(memory)
        chosen = Random(seed).choices(states, [PLAIN[priority](state) for state in states], k=500)
        drawn = memory.draw(500, Random(seed))
        assert drawn == chosen
        memory.record([(state.key, rng.random() < 0.3, 1) for state in drawn])


class Fixed(Random):
    """Quarters in turn for random numbers."""

    quarters = 0

    def random(self) -> float:
        self.quarters += 1
        return (self.quarters - 1) % 4 / 4


def test_a_number_on_the_border_of_two_states_draws_the_later_one():
    memory = buffer()
    fill(memory, "p1", "p2", "q3", "p4")
    assert [state.prefix for state in memory.draw(5, Fixed())] == [(1,), (2,), (3,), (4,), (1,)]


class Reads:
    """Counts the blocks of rows that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, read = 0, Rows.blocks

        def counted(rows: Rows, name: str, blocks: Any) -> Any:
            self.count += len(blocks)
            return read(rows, name, blocks)

        monkeypatch.setattr(Rows, "blocks", counted)

    def of(self, work: Callable[[], Any]) -> int:
        self.count = 0
        work()
        return self.count


# Three columns are read for a weight, two for a score. Each of 5 states is read when drawn, and again after its visit;
# a newcomer changes its own block and that of the state it displaces, which takes one more to find.
@pytest.mark.parametrize("size", [100, 3000])
def test_a_step_reads_as_few_blocks_of_a_large_memory_as_of_a_small_one(size, monkeypatch):
    memory = buffer(priority="success_variance", capacity=size)
    for number in range(size):
        add(memory, f"p{number % 50}", number, score=float(number))
    memory.draw(1, Random(0))
    add(memory, "new", 1, score=0.5)
    memory.draw(1, Random(0))
    reads, rng = Reads(monkeypatch), Random(0)
    drawn = memory.draw(5, rng)
    assert reads.of(lambda: memory.draw(5, rng)) == 3 * 5
    assert reads.of(lambda: memory.record([(state.key, 1, 1) for state in drawn])) == 0
    assert reads.of(lambda: memory.draw(5, rng)) <= 3 * (5 + 5)
    assert reads.of(memory.sums) == 0
    assert reads.of(lambda: add(memory, "new", 2, score=0.75)) <= 2 * (5 + 2 + 1)
    assert len(memory) == size


def test_sums_are_those_of_the_states_and_come_back_without_rounding():
    memory = buffer(capacity=2)
    for prefix, score in ((1, 0.1), (2, 1e16), (3, 0.2), (3, 0.3)):
        add(memory, "p", *range(prefix), score=-score)
    visit(memory, "p@1", "yn")
    assert memory.sums() == {
        "held": 2, "born_step": 6, "score_at_insert": -0.1 - 0.2, "score_now": -0.1 - 0.3, "visits": 2, "successes": 1,
        "length": 4,
    }  # fmt: skip
    memory.forget_problem("p")
    assert set(memory.sums().values()) == {0}


def test_states_keep_their_keys_numbers_and_siblings_when_rows_move_together():
    memory = buffer(states_per_problem=3)
    for number in range(400):
        add(memory, f"p{number % 5}", number, score=float(number % 7))
    assert len(memory) == 15
    held = {state.key for state in memory}
    born = [f"p{number % 5}@{number + 1}" for number in range(400)]
    memory.record([(key, 1, 1) for key in born if key not in held])
    visit(memory, next(iter(memory)).key, "yyn")
    assert [(s.visits, s.successes) for s in memory] == [(3, 2)] + [(0, 0)] * 14
    memory.forget_problem("p3")
    assert [s.problem_id for s in memory].count("p3") == 0 and len(memory) == 12


def test_equal_seeds_draw_equal_states():
    memory = buffer()
    fill(memory, *(f"p{prefix}" for prefix in range(20)))
    first, again, other = ([s.key for s in memory.draw(30, Random(seed))] for seed in (1, 1, 2))
    assert first == again != other


@THROUGH
@pytest.mark.parametrize("priority", ["success_variance", "doubt", "lru_forest"])
def test_a_restored_memory_draws_evicts_and_names_as_the_saved_one_would(through, priority):
    saved, restored = (buffer(capacity=3, priority=priority, keep_between=(0.25, 1.0)) for _ in range(2))
    for prefix in range(5):
        add(saved, "pq"[prefix % 2], prefix, score=-prefix, doubt=prefix / 7)
    saved.draw(2, Random(0))
    visit(saved, next(iter(saved)).key, "n")
    restored.load_state_dict(through(saved.state_dict()))
    for memory in (saved, restored):
        fill(memory, "r1", "p7")
        visit(memory, "r@6", "nn")
    assert restored.draw(50, Random(0)) == saved.draw(50, Random(0))
    assert plain(restored.state_dict()) == plain(saved.state_dict())


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


# By hand: e^600 to e^0 is certainty; e^3 to 1 is .953 to .047.
@pytest.mark.parametrize(
    ("scores", "gone", "expected"),
    [((0.0, 800.0, 3.0), 1, {0: 48, 2: 952}), ((800.0, 0.0), 0, {1: 1000}), ((-800.0, -801.0), None, {0: 500, 1: 500})],
)
def test_scores_beyond_the_range_of_exp_leave_other_states_their_shares(scores, gone, expected):
    memory = buffer(priority="score")
    for number, score in enumerate(scores):
        add(memory, f"p{number}", number, score=score)
    if gone is not None:
        memory.forget_problem(f"p{gone}")
    counts = Counter(state.prefix[0] for state in memory.draw(1000, Random(0)))
    assert counts == pytest.approx(expected, abs=30)


def told(memory: StateBuffer) -> list[tuple[str, str]]:
    """What the journal has: each key, with where it was cut from and how long it is, or why it was forgotten."""
    events = [(each.key, each) for each in memory.journal]
    return [(key, f"{e.source} {e.cut} {e.score}" if isinstance(e, Stored) else e.reason) for key, e in events]


def test_the_journal_has_what_became_of_states_in_order():
    """Estimates by hand: after one failure 1/3, after one success 2/3."""
    memory = buffer(capacity=3, states_per_problem=2, keep_between=(0.35, 0.6))
    fill(memory, "p1", "p2", "p2", "p3", "q4", "r5")
    memory.record([("p@3", 0, 1), ("q@4", 1, 1)])
    memory.forget_problem("r")
    assert told(memory) == [
        ("p@1", "self 1 0.0"), ("p@2", "self 1 0.0"), ("p@3", "self 1 0.0"), ("p@1", "problem full"),
        ("q@4", "self 1 0.0"), ("r@5", "self 1 0.0"), ("p@2", "memory full"),
        ("p@3", "dead"), ("q@4", "mastered"), ("r@5", "problem mastered"),
    ]  # fmt: skip
    assert memory.evictions == 5
