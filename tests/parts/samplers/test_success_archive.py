"""The archive of rare own successes: what is kept, where it is cut, what is forgotten, and its control."""

from typing import Any

import pytest

from fixtures.replay import THROUGH, plain
from fixtures.samplers import EASY, P, Q, memory, retrospective, schedule, teach, wrote
from rrl.config.check import load
from rrl.contracts.siblings import Siblings
from rrl.parts.samplers.retrospective import Retrospective
from rrl.parts.samplers.success_archive import SuccessArchive, SuccessArchiveRedraw
from rrl.parts.selections.random_cut import RandomWithin
from rrl.types import State

TEN = (20, 21, 22, 23, 24, 25, 26, 27, 28, 2)
OTHER = (30, 31, 32, 33, 34, 35, 36, 37, 38, 2)


def archive(kind: type[Retrospective] = SuccessArchive, **changes: Any) -> Retrospective:
    """Cuts a success of ten tokens after five; has seen P and Q fail."""
    settings = {
        "selection": RandomWithin(window=(0.5, 0.5 + 1e-9)), "buffer": memory(states_per_problem=2),
        "schedule": schedule(share=0.75), "max_problem_success": 0.5, "success_momentum": 0.75,
    }  # fmt: skip
    sampler = retrospective(3, kind=kind, **settings | changes)
    teach(sampler, (wrote(P, 5), 0.0), (wrote(Q, 5), 0.0))
    return sampler


def test_of_a_problem_that_always_succeeds_nothing_is_kept() -> None:
    sampler = archive()
    teach(sampler, (wrote(EASY[0], *TEN), 1.0), (wrote(P, *TEN), 1.0))
    assert kept(sampler) == [("hard0", TEN[:5])] and sampler._success["easy0"] == 1.0


def kept(sampler: Retrospective) -> list[tuple[str, tuple[int, ...]]]:
    return [(stored.problem_id, stored.prefix) for stored in sampler.buffer]


def test_the_beginning_of_a_success_is_kept_over_steps_of_failures() -> None:
    sampler = archive()
    teach(sampler, (wrote(P, *TEN), 1.0), (wrote(Q, *TEN), 0.0))
    for _ in range(5):
        teach(sampler, (wrote(P, *OTHER), 0.0))
    assert kept(sampler) == [("hard0", TEN[:5])]
    starts = sampler.sample(4, 0.5)
    assert [state for state in starts if state.replayed] == [State(P, TEN[:5], "hard0@1")] and len(starts) == 4


# Three starts in four, 6 of 8, as far as there are states. With four continuations each, in the place of two from a
# prompt, one state takes the rollouts of two starts, and three those of six.
@pytest.mark.parametrize(
    ("states", "siblings", "replayed", "fresh"),
    [(0, None, 0, 8), (1, None, 1, 7), (6, None, 6, 2), (7, None, 6, 2), (1, (2, 4), 1, 6), (5, (2, 4), 3, 2)],
)
def test_there_are_at_most_as_many_replayed_starts_as_states(
    states: int, siblings: tuple[int, int] | None, replayed: int, fresh: int
) -> None:
    many = None if siblings is None else Siblings(n=siblings[0], n_replayed=siblings[1])
    sampler = archive(max_problem_success=2.0, buffer=memory(), siblings=many)
    teach(sampler, (wrote(Q, 5), 0.0), *((wrote(P, 40 + number, *TEN[1:]), 1.0) for number in range(states)))
    starts = [state.replayed for state in sampler.sample(8, 0.5)]
    assert (starts.count(True), starts.count(False)) == (replayed, fresh)


def test_a_newer_success_takes_the_place_of_the_oldest() -> None:
    sampler = archive(max_problem_success=2.0)
    for first in (40, 50, 60):
        teach(sampler, (wrote(P, first, *TEN[1:]), 1.0))
    assert kept(sampler) == [("hard0", (50, *TEN[1:5])), ("hard0", (60, *TEN[1:5]))]


# Running success 0.25, 0.4375, 0.578: the third success in a row masters the problem, which is at least 0.5 then.
@pytest.mark.parametrize(("successes", "count"), [(1, 1), (2, 2), (3, 0)])
def test_a_problem_that_succeeds_often_is_dropped(successes: int, count: int) -> None:
    sampler = archive()
    for number in range(successes):
        teach(sampler, (wrote(P, 40 + number, *TEN[1:]), 1.0))
    assert len(kept(sampler)) == count


def test_the_control_has_the_same_problems_with_the_prefix_emptied() -> None:
    samplers = [archive(kind) for kind in (SuccessArchive, SuccessArchiveRedraw)]
    for sampler in samplers:
        teach(sampler, (wrote(P, *TEN), 1.0), (wrote(Q, *OTHER), 1.0))
    forced, emptied = (sampler.sample(40, 0.5) for sampler in samplers)
    assert [(s.problem, s.replayed_from) for s in forced] == [(s.problem, s.replayed_from) for s in emptied]
    assert {s.prefix for s in forced if s.replayed} <= {TEN[:5], OTHER[:5]} and any(s.replayed for s in forced)
    assert {s.prefix for s in emptied if s.replayed} == {()}


@THROUGH
def test_a_resumed_archive_goes_on_as_if_nothing_had_happened(through: Any) -> None:
    sampler, resumed = archive(), archive()
    teach(sampler, (wrote(P, *TEN), 1.0), (wrote(Q, *OTHER), 1.0))
    resumed.load_state_dict(through(sampler.state_dict()))
    for number in range(3):
        assert sampler.sample(8, 0.5) == resumed.sample(8, 0.5)
        for each in (sampler, resumed):
            teach(each, (wrote(Q, 60 + number, *TEN[1:]), float(number == 1)), (wrote(P, *OTHER), 0.0))
    assert plain(resumed.state_dict()) == plain(sampler.state_dict())


@pytest.mark.parametrize(
    ("choice", "kind"), [("success_archive", SuccessArchive), ("success_archive_redraw", SuccessArchiveRedraw)]
)
def test_it_is_chosen_by_one_key(choice: str, kind: type[Retrospective]) -> None:
    sampler = load("train", [f"sampler={choice}"])[1].sampler
    assert type(sampler) is kind and sampler.selection == RandomWithin(window=(0.4, 0.8))
    assert (sampler.schedule.share_at(0), sampler.buffer.keep_between, sampler.sources) == (0.75, (0.0, 0.8), "self")
