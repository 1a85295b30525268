"""Failures that are kept whole and cut by the present policy: what is read, where it is cut, and the control."""

from collections.abc import Sequence
from typing import Any

import pytest

from fixtures.replay import THROUGH, plain, through_pickle
from fixtures.samplers import TOP, P, Q, memory, retrospective, schedule, teach, wrote
from rrl.config.check import load
from rrl.parts.samplers.reanalyse import Reanalyse, ReanalyseRedraw
from rrl.parts.selections.confidence import Confidence
from rrl.parts.selections.oracle import Oracle
from rrl.parts.selections.pivot import Pivot
from rrl.parts.selections.random_cut import RandomCut
from rrl.parts.selections.verified import Verified
from rrl.types import State, TokenScores

SURE, UNSURE = -0.1, -9.0
FIVE = (5, 6, 7, 8, 2)


class Policy:
    """Is sure of every token but that of one place, which moves as it learns; counts the responses that it reads."""

    def __init__(self, place: int | None) -> None:
        self.place = place
        self.read = list[tuple[int, ...]]()

    def __call__(self, states: Sequence[State]) -> list[TokenScores]:
        self.read += [state.prefix for state in states]
        return [TokenScores(self.logprobs(len(state.prefix)), ()) for state in states]

    def logprobs(self, length: int) -> tuple[float, ...]:
        return tuple(UNSURE if place == self.place else SURE for place in range(length))


def reanalyse(policy: Policy, kind: type[Reanalyse] = Reanalyse, **changes: Any) -> Reanalyse:
    """Has seen P fail, when it was unsure of the third token."""
    made = retrospective(3, kind=kind, inspect=policy, **{"selection": Confidence(below=0.5)} | changes)
    assert isinstance(made, Reanalyse)
    teach(made, (wrote(P, *FIVE, logprobs=Policy(2).logprobs(5)), 0.0), values=[[0.0] * 5])
    return made


def replayed(sampler: Reanalyse) -> list[State]:
    return [state for state in sampler.sample(4, 0.5) if state.replayed]


def test_a_failure_is_kept_whole() -> None:
    sampler = reanalyse(Policy(2))
    assert [(stored.prefix, stored.whole) for stored in sampler.buffer] == [(FIVE, 5)]


# The policy doubts the third token when it fails; later another one, the first, or none at all.
@pytest.mark.parametrize(("place", "prefix"), [(2, (5, 6)), (4, (5, 6, 7, 8)), (1, (5,)), (0, ()), (None, ())])
def test_a_failure_is_cut_where_the_policy_doubts_it_when_it_is_drawn(
    place: int | None, prefix: tuple[int, ...]
) -> None:
    policy = Policy(2)
    sampler = reanalyse(policy)
    policy.place = place
    assert replayed(sampler) == [State(P, prefix, replayed_from="hard0@1")] * 2
    assert sampler.remembered() == ([State(P, prefix, replayed_from="hard0@1")] if prefix else [])


def test_each_draw_is_read_once_and_nothing_where_none_is_replayed() -> None:
    policy = Policy(2)
    sampler = reanalyse(policy, schedule=schedule(share=((0, 0), (0.5, 0.5))))
    sampler.sample(4, 0.0)
    assert policy.read == []
    sampler.sample(4, 0.5)
    assert policy.read == [FIVE, FIVE]


def test_a_failure_without_a_cut_is_not_kept() -> None:
    sampler = reanalyse(Policy(2), selection=Confidence(below=1e-5))
    assert list(sampler.buffer) == []


def test_of_several_cuts_each_is_drawn() -> None:
    sampler = reanalyse(Policy(2), selection=TOP)
    assert [stored.prefix for stored in sampler.buffer] == [FIVE]
    sampler._inspect = lambda states: [TokenScores((SURE,) * 5, (0.0,) * 6)] * len(states)
    starts = [state.prefix for _ in range(40) for state in replayed(sampler)]
    assert [starts.count(FIVE[:cut]) for cut in range(6)] == pytest.approx([0, 20, 20, 20, 20, 0], abs=12)


def test_a_cut_leaves_room_to_write() -> None:
    policy = Policy(2)
    sampler = reanalyse(policy, max_response_length=4)
    policy.place = 4
    assert {state.prefix for state in replayed(sampler)} == {FIVE[:3]}


def test_what_comes_of_it_counts_for_the_failure_wherever_it_was_cut() -> None:
    policy = Policy(2)
    sampler = reanalyse(policy, buffer=memory(keep_between=(0.0, 0.7)))
    for place, score, held in ((1, 0.0, 1), (3, 1.0, 1), (4, 1.0, 1), (4, 1.0, 1), (4, 1.0, 0)):  # at last 5 of 7
        policy.place = place
        start, *_ = replayed(sampler)
        metrics = teach(sampler, (wrote(start, 9, 2), score))
        assert (len(sampler.buffer), metrics["replay/prefix_length/mean"]) == (held, place)


# Cut after one of five tokens when it is drawn, not after three of five as when it was written.
def test_a_rule_learns_where_the_cut_was() -> None:
    learnt = list[Any]()
    policy = Policy(2)
    sampler = reanalyse(policy)
    policy.place = 1
    start, *_ = replayed(sampler)
    object.__setattr__(sampler.selection, "learn", learnt.extend)
    teach(sampler, (wrote(start, 9, 2), 1.0), (wrote(start, 9, 9, 2), 0.0))
    assert learnt == [(0.2, True), (0.2, False)]


@pytest.mark.parametrize("kind", [Reanalyse, ReanalyseRedraw])
def test_the_metrics_are_those_of_the_last_draw_and_survive_a_resume(kind: type[Reanalyse]) -> None:
    policy = Policy(2)
    sampler, resumed, forced = (reanalyse(policy, each) for each in (kind, kind, Reanalyse))
    for each in (sampler, forced):
        teach(each, (wrote(Q, *FIVE, 9, 2, logprobs=Policy(2).logprobs(7)), 0.0))
    policy.place = 6  # only the response of Q has that many
    starts = [state for state in forced.sample(40, 0.5) if state.replayed]
    sampler.sample(40, 0.5)
    uncut = [state.problem for state in starts].count(P) / len(starts)
    resumed.load_state_dict(through_pickle(sampler.state_dict()))
    for each in (sampler, resumed):
        metrics = teach(each, (wrote(Q, 5, 6, 2), 1.0))
        assert (metrics["replay/prefix_length/mean"], metrics["replay/uncut_frac"]) == (6.0, pytest.approx(uncut))
    assert 0 < uncut < 1
    sampler.sample(1, 0.0)  # no start is replayed
    metrics = teach(sampler, (wrote(Q, 5, 6, 2), 1.0))
    assert (metrics["replay/prefix_length/mean"], metrics["replay/uncut_frac"]) == (0.0, 0.0)


def test_a_rule_that_finds_no_cut_any_more_says_so(caplog: pytest.LogCaptureFixture) -> None:
    policy = Policy(2)
    sampler = reanalyse(policy, schedule=schedule(share=((0, 0), (0.5, 0.5))))
    policy.place = None
    for progress in (0.0, 0.5):  # at first nothing is replayed
        for _ in range(19):
            sampler.sample(4, progress)
    assert caplog.messages == []
    resumed = reanalyse(policy)
    resumed.load_state_dict(through_pickle(sampler.state_dict()))
    resumed.sample(4, 0.5)
    assert caplog.messages == [
        "in 20 steps Confidence(below=0.5) found no cut in any failure that was drawn, so that all were begun at the "
        "prompt; look at replay/uncut_frac; move its bounds, or use sampler=retrospective; reported again only when "
        "this changes"
    ]


def test_of_several_cuts_the_best_ranks_the_failure() -> None:
    sampler = retrospective(kind=Reanalyse, selection=TOP)
    teach(sampler, (wrote(P, *FIVE), 0.0), values=[[0.0, 0.2, 0.9, 0.3, 0.1]])
    (stored,) = sampler.buffer
    assert (stored.score_at_insert, stored.score_now, stored.value) == pytest.approx((0.9, 0.9, 0.9))


def test_the_control_has_the_same_problems_with_the_prefix_emptied() -> None:
    samplers = [reanalyse(Policy(2), kind, selection=RandomCut()) for kind in (Reanalyse, ReanalyseRedraw)]
    for sampler in samplers:
        teach(sampler, (wrote(Q, *FIVE), 0.0))
    for _ in range(3):
        forced, emptied = (sampler.sample(40, 0.5) for sampler in samplers)
        assert [(s.problem, s.replayed_from) for s in forced] == [(s.problem, s.replayed_from) for s in emptied]
        assert all(s.prefix for s in forced if s.replayed) and not any(s.prefix for s in emptied)


@pytest.mark.parametrize("selection", [Oracle(cut="last"), Verified(candidates=2, continuations=2, failures=2)])
def test_a_rule_that_knows_more_of_the_response_than_can_be_read_again_is_refused(selection: Any) -> None:
    with pytest.raises(ValueError, match=r"^selection: (Oracle|Verified) asks .*sampler=retrospective"):
        reanalyse(Policy(2), selection=selection)


@THROUGH
def test_a_resumed_memory_goes_on_as_if_nothing_had_happened(through: Any) -> None:
    rule = Pivot(gamma=2.0, outcomes=100)
    sampler, resumed = (reanalyse(Policy(2), selection=each) for each in (rule, Pivot(gamma=2.0, outcomes=100)))
    teach(sampler, (wrote(Q, *FIVE), 0.0))
    resumed.load_state_dict(through(sampler.state_dict()))
    for number in range(3):
        starts = sampler.sample(8, 0.5)
        assert starts == resumed.sample(8, 0.5)
        for each in (sampler, resumed):
            teach(each, (wrote(starts[-1], 6, 2), float(number == 1)), (wrote(P, 9, 9, number, 2), 0.0))
    assert plain(resumed.state_dict()) == plain(sampler.state_dict())


@pytest.mark.parametrize(("choice", "kind"), [("reanalyse", Reanalyse), ("reanalyse_redraw", ReanalyseRedraw)])
def test_it_is_chosen_by_one_key(choice: str, kind: type[Reanalyse]) -> None:
    sampler = load("train", [f"sampler={choice}"])[1].sampler
    assert type(sampler) is kind and sampler.buffer.priority == "doubt"
