"""Prompts and states compete by one estimate of success: the estimate by hand, who is taken, and what is saved."""

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from fixtures.replay import THROUGH, plain
from fixtures.samplers import EASY, HARD, P, Q, retrospective, teach, wrote
from rrl.config.check import load
from rrl.parts.samplers.allocation import Allocation
from rrl.types import State


class Means(Random):
    """Draws the mean of every Beta distribution."""

    def betavariate(self, alpha: float, beta: float) -> float:
        return alpha / (alpha + beta)


def allocation(means: bool = True, share: float = 1.0, **changes: Any) -> Any:
    settings = {"candidates": 4, "fade": 1.0, "prior": 2.0, "expects": "prompt"}
    sampler = retrospective(3, kind=Allocation, **settings | changes)
    object.__setattr__(sampler.schedule, "share", share)
    if means:
        sampler._rng = Means(0)
    return sampler


def replayed(states: Sequence[State]) -> list[str]:
    return [state.replayed_from for state in states if state.replayed_from is not None]


# --- the estimate -----------------------------------------------------------------------------------------------------


def test_before_anything_is_known_each_prompt_is_expected_to_succeed_half_of_the_time() -> None:
    assert allocation()._of_prompt(P) == (1.0, 1.0)


def test_a_prompt_is_expected_to_do_as_its_level_until_it_is_visited() -> None:
    sampler = allocation()
    teach(sampler, (wrote(P, 5, 2), 1.0), (wrote(P, 5, 2), 0.0), (wrote(Q, 5, 2), 0.0), (wrote(EASY[0], 5, 2), 1.0))
    # hard: (1 + 1/2) / (3 + 1) = 3/8, two prior visits of which are 3/4 and 5/4; easy: 3/4, so 3/2 and 1/2.
    assert sampler._of_prompt(HARD[2]) == (0.75, 1.25)
    assert sampler._of_prompt(P) == (1.75, 2.25) and sampler._of_prompt(Q) == (0.75, 2.25)
    assert sampler._of_prompt(EASY[1]) == (1.5, 0.5) and sampler._of_prompt(EASY[0]) == (2.5, 0.5)


def test_visits_fade_with_every_step() -> None:
    sampler = allocation(fade=0.5, prior=1.0)
    teach(sampler, (wrote(P, 5, 2), 1.0), (wrote(P, 5, 2), 1.0))
    teach(sampler, (wrote(Q, 5, 2), 0.0))
    teach(sampler, (wrote(P, 5, 2), 0.0))
    # P: 2 of 2, faded twice to 1/2 of 1/2, and a failure. The level: 2 of 2, then 1 of 2, then 1/2 of 2.
    a, b = sampler._of_prompt(P)
    assert (a, b) == (pytest.approx(1 / 3 + 0.5), pytest.approx(2 / 3 + 1.0))


def test_a_state_is_expected_to_do_as_its_prompt_or_as_the_critic_said_until_it_is_visited() -> None:
    for expects in ("prompt", "critic"):
        sampler = allocation(expects=expects)
        teach(sampler, (wrote(P, 5, 6, 2), 0.0), values=[[0.1, 0.9, 0.3]])
        first, _ = sampler.buffer  # (5,), of value 0.9; the prompt: level 1/4, so 1/2 and 3/2 + 1
        prompt = 0.5 / 3
        expected = 0.9 if expects == "critic" else prompt
        assert sampler._of_state(first) == (pytest.approx(2 * expected), pytest.approx(2 - 2 * expected))
        teach(sampler, (wrote(State(P, first.prefix, first.key), 6), 1.0))
        assert sampler._of_state(first) == (pytest.approx(2 * expected + 1), pytest.approx(2 - 2 * expected))
        assert sampler._of_prompt(P) == (0.5, 2.5)  # a visit to a state changes neither its prompt nor its level


# --- who is taken -----------------------------------------------------------------------------------------------------


def test_the_starts_that_are_least_decided_are_taken_and_their_mean_expectation_is_a_metric() -> None:
    sampler = allocation(candidates=8)
    teach(sampler, *((wrote(problem, 5, 2), 1.0) for problem in EASY for _ in range(6)))
    teach(sampler, *((wrote(problem, 5, 2), 0.0) for problem in HARD[2:] for _ in range(6)))
    teach(sampler, *((wrote(problem, 5, 2), score) for problem in (P, Q) for score in (1.0, 0.0)))
    for problem in HARD:
        sampler.buffer.forget_problem(problem.id)
    chosen = sampler.sample(2, 0.5)
    assert {state.problem.id for state in chosen} == {"hard0", "hard1"} and not replayed(chosen)
    # the level: 2.5 / 23, so a = 5/23 + 1 of 4.
    metrics = teach(sampler, (wrote(P, 5, 2), 1.0))
    assert metrics["explore/expected_success/mean"] == pytest.approx((5 / 23 + 1) / 4)


def even(sampler: Any) -> Any:
    """States of P and Q that succeeded once in two visits, beside prompts that always fail."""
    teach(sampler, *((wrote(problem, 5, 6, 2), 0.0) for problem in HARD for _ in range(4)))
    states = {
        stored.key: State(sampler._problems[stored.problem_id], stored.prefix, stored.key) for stored in sampler.buffer
    }
    tried = [state for state in states.values() if state.problem.id in ("hard0", "hard1") for _ in range(2)]
    teach(sampler, *((wrote(state, 6), float(number % 2)) for number, state in enumerate(tried)))
    return sampler


def test_states_are_taken_before_prompts_that_fail_no_two_of_one_line_of_descent() -> None:
    sampler = even(allocation(level_weights={"hard": 1.0}))
    chosen = sampler.sample(4, 0.5)
    assert len(chosen) == 4 and len(replayed(chosen)) >= 2
    assert max(Counter(state.problem.id for state in chosen).values()) == 1
    two = [state.problem.id for state in chosen[:2]]
    assert sorted(two) == ["hard0", "hard1"]


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 1), (0.5, 2)])
def test_no_more_states_are_taken_than_the_schedule_allows(share: float, count: int) -> None:
    sampler = even(allocation(share=share, level_weights={"hard": 1.0}))
    assert len(replayed(sampler.sample(4, 0.5))) == count


def test_where_there_are_fewer_problems_than_starts_some_come_twice() -> None:
    chosen = allocation(candidates=2).sample(20, 0.5)
    assert len(chosen) == 20 and len({state.problem.id for state in chosen}) == 8


def test_uncertain_estimates_are_explored() -> None:
    counts = Counter(state.problem.level for _ in range(50) for state in allocation(means=False).sample(4, 0.5))
    assert counts["easy"] > 20 and counts["hard"] > 20


@THROUGH
def test_a_resumed_sampler_goes_on_as_if_nothing_had_happened(through: Any) -> None:
    sampler, resumed = even(allocation(means=False, fade=0.9)), allocation(means=False, fade=0.9)
    sampler.sample(4, 0.2)
    resumed.load_state_dict(through(sampler.state_dict()))
    for _ in range(3):
        assert sampler.sample(4, 0.5) == resumed.sample(4, 0.5)
        assert teach(sampler, (wrote(Q, 5, 7, 2), 0.0)) == teach(resumed, (wrote(Q, 5, 7, 2), 0.0))
    assert plain(resumed.state_dict()) == plain(sampler.state_dict())


def test_what_came_of_forgotten_states_is_forgotten() -> None:
    sampler = even(allocation())
    assert len(sampler._states) == 4
    sampler.buffer.forget_problem("hard0")
    teach(sampler, (wrote(EASY[0], 5), 1.0))
    assert len(sampler._states) == 2


@pytest.mark.parametrize(
    ("changes", "message"), [({"fade": 1.1}, "fade"), ({"prior": 0.0}, "prior"), ({"candidates": 0}, "candidates")]
)
def test_an_impossible_setting_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        allocation(**changes)


def test_it_needs_a_critic_where_it_expects_what_the_critic_said() -> None:
    assert not load("train", ["sampler=allocation"])[1].sampler.needs_critic
    assert load("train", ["sampler=allocation", "sampler.expects=critic"])[1].sampler.needs_critic
