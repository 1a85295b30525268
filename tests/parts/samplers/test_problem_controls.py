"""Controls that choose among problems and know no states: by the critic's value of the prompt, and by pass rates."""

from collections.abc import Sequence
from typing import Any

import pytest

from fixtures.replay import THROUGH
from fixtures.samplers import EASY, HARD, P, Q, problems, teach, wrote
from rrl.config.check import load
from rrl.interfaces import StateSampler
from rrl.parts.samplers.pcl import MiddlePrompts
from rrl.parts.samplers.prompt_replay import PromptReplay
from rrl.types import State, TokenScores

DATA = (*EASY, *HARD)
VALUES = {problem.id: value for problem, value in zip(DATA, (0.9, 0.8, 0.75, 0.1, 0.45, 0.0, 0.6, 0.3), strict=True)}


def valued(states: Sequence[State]) -> list[TokenScores]:
    """A critic that knows the problems; of a prefix it would say something else."""
    return [TokenScores((), (VALUES[state.problem.id] + 9 * bool(state.prefix),)) for state in states]


def begun(sampler: StateSampler) -> Any:
    sampler.start(DATA, 3, valued, None)
    return sampler


def middle(candidates: int = 4, value: float = 0.5) -> Any:
    return begun(MiddlePrompts(level_weights=None, candidates=candidates, middle=value))


def again(**changes: Any) -> Any:
    settings = {"share": 0.5, "window": (0.25, 0.75), "cool_down": 0, "reuses": 9, "momentum": 0.0, "siblings": None}
    return begun(PromptReplay(level_weights=None, **settings | changes))


def names(states: Sequence[State]) -> list[str]:
    return [state.problem.id for state in states]


def repeated(sampler: Any, count: int = 4) -> list[str]:
    return [state.replayed_from for state in sampler.sample(count, 0.5) if state.replayed]


# --- the critic's value of the prompt ---------------------------------------------------------------------------------


# All eight problems are drawn. Distances from 0.5: hard1 0.05, hard3 0.1, hard4 0.2, easy2 0.25, easy1 0.3 ...
@pytest.mark.parametrize(
    ("value", "expected"), [(0.5, ["hard1", "hard3"]), (1.0, ["easy0", "easy1"]), (0.0, ["hard2", "hard0"])]
)
def test_the_prompts_of_middle_value_are_chosen_among_the_candidates(value: float, expected: list[str]) -> None:
    sampler = middle(value=value)
    chosen = sampler.sample(2, 0.5)
    assert names(chosen) == expected and all(state.fresh and not state.prefix for state in chosen)
    assert teach(sampler, (wrote(chosen[0], 5), 0.0)) == {
        "explore/chosen_value/mean": pytest.approx(sum(VALUES[name] for name in expected) / 2)
    }


def test_no_problem_is_taken_twice_while_there_are_others() -> None:
    starts = names(middle(candidates=3).sample(8, 0.5))  # of 24 draws of eight problems, each three times
    assert starts[:5] == ["hard1", "hard3", "hard4", "easy2", "easy1"] and set(starts) == set(VALUES)
    assert names(middle(candidates=3).sample(12, 0.5))[8:] == ["hard1", "hard3", "hard4", "easy2"]


def test_with_one_candidate_the_draws_are_the_ordinary_ones() -> None:
    ordinary, sampler = problems(3), middle(candidates=1)
    for _ in range(4):
        assert sorted(names(sampler.sample(2, 0.5))) == sorted(names(ordinary.sample(2, 0.5)))


# --- pass rates -------------------------------------------------------------------------------------------------------


# Pass rates: hard0 1/2, hard1 2/3, easy0 1, easy1 0.
def taught(**changes: Any) -> Any:
    sampler = again(**changes)
    outcomes = {P: (1.0, 0.0), Q: (1.0, 1.0, 0.0), EASY[0]: (1.0, 1.0), EASY[1]: (0.0, 0.5)}
    teach(sampler, *((wrote(problem, 5), score) for problem, scores in outcomes.items() for score in scores))
    return sampler


def test_before_anything_is_known_every_start_is_ordinary() -> None:
    assert again().sample(8, 0.5) == problems(3).sample(8, 0.5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, ["hard0", "hard1"]), ({"share": 0.25}, ["hard0"]), ({"share": 0.0}, []), ({"cool_down": 1}, []),
     ({"window": (0.6, 1.0)}, ["hard1", "easy0"]), ({"window": (0.0, 0.5)}, ["hard0", "easy1"]), ({"reuses": 0}, [])],
)  # fmt: skip
def test_problems_of_a_middle_pass_rate_come_again_nearest_one_half_first(
    changes: dict[str, Any], expected: list[str]
) -> None:
    sampler = taught(**changes)
    states = sampler.sample(4, 0.5)
    assert [state.problem.id for state in states if state.replayed] == expected
    assert len(states) == 4 and not any(state.prefix for state in states)


def test_a_problem_rests_for_so_many_steps() -> None:
    sampler = taught(cool_down=2)
    sampler._fresh.sample = lambda count, progress: [State(EASY[2])] * count
    seen = []
    for _ in range(6):
        seen.append(repeated(sampler))
        teach(sampler, (wrote(EASY[2], 5), 0.0))  # the others' rollouts are left out, as those that were cut off
    assert seen == [[], [], ["hard0", "hard1"], [], [], ["hard0", "hard1"]]


def test_a_problem_comes_again_so_many_times() -> None:
    sampler = taught(reuses=2)
    sampler._fresh.sample = lambda count, progress: [State(EASY[2])] * count
    seen = []
    for _ in range(3):
        seen.append(repeated(sampler))
        teach(sampler, (wrote(EASY[2], 5), 0.0))
    assert seen == [["hard0", "hard1"], ["hard0", "hard1"], []]


def test_a_problem_that_comes_again_is_not_drawn_fresh_in_the_same_step() -> None:
    ordinary = problems(3)
    deck = [*names(ordinary.sample(6, 0.5)), *names(ordinary.sample(2, 0.5))]
    others = [name for name in deck if name not in ("hard0", "hard1")]  # these two come again
    assert names(taught().sample(8, 0.5)) == [*others, "hard0", "hard1"]


def test_where_there_are_no_others_it_is_drawn_fresh_too() -> None:
    sampler = taught(window=(0.0, 1.0), share=0.5)
    sampler._fresh.sample = lambda count, progress: [State(P)] * count
    starts = sampler.sample(4, 0.5)
    assert sorted(names(starts)) == ["hard0", "hard0", "hard0", "hard1"]


def test_the_momentum_is_the_weight_of_the_past() -> None:
    sampler = taught(momentum=0.75, window=(0.6, 0.64))
    teach(sampler, (wrote(P, 5), 1.0))  # 0.75 * 1/2 + 0.25 * 1 = 0.625
    assert repeated(sampler) == ["hard0"]


def test_a_problem_of_a_first_step_has_the_rate_of_that_step() -> None:
    assert repeated(taught(momentum=0.75)) == ["hard0", "hard1"]


def test_the_metric_counts_the_problems_of_a_middle_pass_rate() -> None:
    assert teach(taught(), (wrote(EASY[1], 5), 1.0)) == {"replay/problems_in_window": 2.0}


@THROUGH
def test_a_resumed_sampler_goes_on_as_if_nothing_had_happened(through: Any) -> None:
    for make in (lambda: taught(cool_down=1, reuses=2), middle):
        sampler, resumed = make(), make()
        if make is not middle:
            sampler.sample(4, 0.1)
        teach(sampler, (wrote(sampler.sample(4, 0.2)[0], 5), 0.0))
        resumed.load_state_dict(through(sampler.state_dict()))
        for _ in range(3):
            assert sampler.sample(4, 0.5) == resumed.sample(4, 0.5)
            assert teach(sampler, (wrote(Q, 5), 0.0)) == teach(resumed, (wrote(Q, 5), 0.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: again(window=(0.5, 0.5)), "window"), (lambda: again(share=1.5), "share"),
     (lambda: again(cool_down=-1), "cool_down"), (lambda: middle(candidates=0), "candidates")],
)  # fmt: skip
def test_an_impossible_setting_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_they_are_chosen_by_one_key() -> None:
    _, parts = load("train", ["sampler=pcl"])
    assert parts.sampler.needs_critic and parts.sampler.candidates == 4
    _, parts = load("train", ["sampler=prompt_replay", "trainer.n=4"])
    assert (parts.sampler.share, parts.sampler.window) == (0.75, (0.25, 0.75))


def test_with_one_rollout_of_a_problem_in_a_step_those_solved_now_and_then_come_again_by_default() -> None:
    overrides = ["sampler=prompt_replay", "sampler.cool_down=0", "data.level_weights=null"]
    sampler = begun(load("train", overrides)[1].sampler)
    for p, q in ((1.0, 0.0), (0.0, 1.0)):
        teach(sampler, (wrote(P, 5), p), (wrote(Q, 5), q), (wrote(EASY[0], 5), 0.0), (wrote(EASY[1], 5), 1.0))
    assert sorted(repeated(sampler)) == ["hard0", "hard1"]  # 0.7 * 1 and 1 - 0.7, between 1/4 and 3/4
