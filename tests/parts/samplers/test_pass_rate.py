"""Head starts and handicaps: who gets one, how long it is, how visits move it, and what is saved."""

from typing import Any

import pytest

from fixtures.replay import THROUGH, plain
from fixtures.samplers import EASY, HARD, Inspector, P, Q, problems, teach, wrote
from rrl.config.check import load
from rrl.parts.samplers.pass_rate import PassRate, PassRateRedraw
from rrl.types import Problem, State

SETTINGS: dict[str, Any] = {
    "level_weights": None, "middle": (0.25, 0.75), "share": 0.5, "move": 0.125, "prompts": 0.0,
    "success_momentum": 0.5, "cut_points": "token", "max_response_length": 16, "siblings": None,
}  # fmt: skip
EIGHT = (20, 21, 22, 23, 24, 25, 26, 2)
OTHER = (30, 31, 32, 33, 34, 35, 36, 2)


def steered(kind: type[PassRate] = PassRate, **changes: Any) -> PassRate:
    sampler = kind(**SETTINGS | changes)
    sampler.start([*EASY, *HARD], 3, Inspector(), None)
    return sampler


def learnt(outcomes: str, kind: type[PassRate] = PassRate, **changes: Any) -> PassRate:
    """P written from its prompt, y: a success, the tokens EIGHT; n: a failure, the tokens OTHER."""
    sampler = steered(kind, **changes)
    for outcome in outcomes:
        teach(sampler, (wrote(P, *(EIGHT if outcome == "y" else OTHER)), float(outcome == "y")))
    return sampler


def start_of(sampler: PassRate, problem: Problem = P) -> State:
    return next(state for state in sampler.sample(8, 0.5) if state.problem is problem)


def test_before_anything_is_known_every_start_is_ordinary() -> None:
    assert steered().sample(8, 0.5) == problems(3).sample(8, 0.5)


# Running success: y 1, n 0; yn 0.5, ynn 0.25, ynnn 0.125; ny 0.5, nyy 0.75, nyyy 0.875.
@pytest.mark.parametrize(
    ("outcomes", "prefix", "origin"),
    [("y", (), None), ("n", (), None), ("yn", (), None), ("ynn", (), None), ("nyy", (), None),
     ("ynnn", EIGHT[:4], "head start of hard0"), ("nyyy", OTHER[:4], "handicap of hard0"), ("nnn", (), None)],
)  # fmt: skip
def test_too_hard_a_problem_gets_its_success_and_too_easy_a_one_its_failure_as_far_as_there_is_one(
    outcomes: str, prefix: tuple[int, ...], origin: str | None
) -> None:
    sampler = learnt(outcomes)
    assert start_of(sampler) == State(P, prefix, origin)
    assert start_of(sampler, Q) == State(Q)


def visits(sampler: PassRate, origin: str, outcomes: str) -> None:
    for outcome in outcomes:
        teach(sampler, (wrote(State(P, (20,), origin), 6), float(outcome == "y")))


@pytest.mark.parametrize(
    ("first", "origin", "outcomes", "length"),
    [("ynnn", "head start of hard0", "n", 5), ("ynnn", "head start of hard0", "nnnnnnnn", 7),
     ("ynnn", "head start of hard0", "yy", 2), ("nyyy", "handicap of hard0", "y", 5),
     ("nyyy", "handicap of hard0", "nn", 2), ("nyyy", "handicap of hard0", "nnnnnn", 0)],
)  # fmt: skip
def test_a_prefix_becomes_longer_or_shorter_so_that_one_visit_in_two_succeeds(
    first: str, origin: str, outcomes: str, length: int
) -> None:
    sampler = learnt(first)
    visits(sampler, origin, outcomes)
    assert len(start_of(sampler).prefix) == length  # a share of 0.5 of eight tokens, moved by one token each time


def test_a_prefix_that_became_too_short_to_be_cut_grows_again() -> None:
    sampler = learnt("nyyy")
    visits(sampler, "handicap of hard0", "nnnnn")
    for length in (0, 1, 2):
        start = start_of(sampler)
        assert len(start.prefix) == length
        teach(sampler, (wrote(start, *OTHER[length:]), 1.0))


# The first start from the prompt is solved: 1; then 0.5 * 1 + 0.5 * 1/4 = 0.625, whichever sibling it is that succeeds.
@pytest.mark.parametrize("siblings", ["ynnn", "nnny", "nynn"])
def test_siblings_move_the_running_success_by_their_mean(siblings: str) -> None:
    sampler = learnt("y")
    teach(sampler, *((wrote(P, *(EIGHT if each == "y" else OTHER)), float(each == "y")) for each in siblings))
    assert sampler._known["hard0"].rate == 0.625


def test_the_first_siblings_of_a_problem_give_their_mean() -> None:
    sampler = steered()
    teach(sampler, *((wrote(P, 5), score) for score in (0.0, 0.0, 0.0, 1.0)), (wrote(Q, 5), 1.0))
    assert (sampler._known["hard0"].rate, sampler._known["hard1"].rate) == (0.25, 1.0)


# A share of 0.5 and a move of 0.125: one of four solved moves by 0.125 * (3/4 - 1/4).
@pytest.mark.parametrize(("origin", "share"), [("head start of hard0", 0.5625), ("handicap of hard0", 0.4375)])
@pytest.mark.parametrize("siblings", ["ynnn", "nnny"])
def test_siblings_are_one_visit(siblings: str, origin: str, share: float) -> None:
    sampler, start = steered(), State(P, (20,), origin)
    teach(sampler, *((wrote(start, 6), float(each == "y")) for each in siblings))
    assert list(sampler._known["hard0"].shares.values()) == [share]


def test_visits_do_not_count_as_success_from_the_prompt() -> None:
    sampler = learnt("ynnn")
    visits(sampler, "head start of hard0", "yyyy")
    assert sampler._known["hard0"].rate == 0.125


def test_the_control_has_the_same_problems_with_the_prefix_emptied() -> None:
    assert start_of(learnt("ynnn", PassRateRedraw)) == State(P, (), "head start of hard0")
    drawn = [[state.problem for state in sampler.sample(8, 0.5)] for sampler in (learnt("ynnn"), problems(3))]
    assert drawn[0] == drawn[1] == [state.problem for state in learnt("ynnn", PassRateRedraw).sample(8, 0.5)]


def test_some_starts_are_from_the_prompt_all_the_same() -> None:
    sampler = learnt("ynnn", prompts=0.5)
    starts = [start_of(sampler).replayed for _ in range(200)]
    assert 70 < sum(starts) < 130


def test_a_prefix_leaves_room_to_write() -> None:
    assert len(start_of(learnt("ynnn", max_response_length=3)).prefix) == 2


def test_the_metrics_are_the_mean_shares_in_use() -> None:
    sampler = learnt("ynnn")
    visits(sampler, "head start of hard0", "n")
    assert teach(sampler, (wrote(Q, 5), 0.0)) == {
        "replay/head_start_share/mean": 0.625, "replay/handicap_share/mean": 0.0
    }  # fmt: skip


@THROUGH
def test_a_resumed_sampler_goes_on_as_if_nothing_had_happened(through: Any) -> None:
    sampler, resumed = learnt("ynnn", prompts=0.5), steered(prompts=0.5)
    visits(sampler, "head start of hard0", "n")
    resumed.load_state_dict(through(sampler.state_dict()))
    for _ in range(3):
        assert sampler.sample(8, 0.5) == resumed.sample(8, 0.5)
        for each in (sampler, resumed):
            visits(each, "head start of hard0", "n")
    assert plain(resumed.state_dict()) == plain(sampler.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"middle": (0.8, 0.2)}, "middle"), ({"share": 1.5}, "share"), ({"prompts": -1}, "prompts")],
)
def test_an_impossible_setting_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        steered(**changes)


@pytest.mark.parametrize(("choice", "kind"), [("pass_rate", PassRate), ("pass_rate_redraw", PassRateRedraw)])
def test_it_is_chosen_by_one_key(choice: str, kind: type[PassRate]) -> None:
    sampler = load("train", [f"sampler={choice}"])[1].sampler
    assert type(sampler) is kind and sampler.cut_points == "token"
