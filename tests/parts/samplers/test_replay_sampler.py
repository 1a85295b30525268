"""Retrospective replay: which states are collected, and which are replayed."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from fixtures.replay import ids, problem, tiny
from fixtures.samplers import EASY, TOP, Inspector, P, Q, memory, problems, retrospective, schedule, teach, wrote
from rrl.contracts.siblings import Siblings
from rrl.parts.samplers.controls import Practice, Redraw, SuccessPrefix, SuccessRedraw
from rrl.parts.samplers.retrospective import Retrospective
from rrl.parts.samplers.rows import StoredState
from rrl.parts.selections.confidence import Confidence
from rrl.parts.selections.critic import CriticRise, CriticThreshold, CriticTopK
from rrl.parts.selections.entropy import HighestEntropy
from rrl.parts.selections.random_cut import RandomCut
from rrl.types import Forgotten, State, Stored, TokenScores


def held(sampler: Retrospective) -> list[tuple[str, tuple[int, ...]]]:
    return [(stored.problem_id, stored.prefix) for stored in sampler.buffer]


def only(sampler: Retrospective) -> StoredState:
    (stored,) = sampler.buffer
    return stored


def replays(states: Sequence[State]) -> list[State]:
    return [state for state in states if state.replayed_from is not None]


# --- replay -----------------------------------------------------------------------------------------------------------


def test_with_a_share_of_zero_the_draws_are_the_ordinary_ones_whatever_was_observed():
    weights = {"easy": 1.0, "hard": 2.0}
    replay = retrospective(5, selection=RandomCut(), schedule=schedule(share=0.0), level_weights=weights)
    ordinary = problems(5, weights=weights)
    for step in range(6):
        assert replay.sample(7, step / 6) == ordinary.sample(7, step / 6)
        teach(replay, (wrote(P, 5, 6, 7, 2), 0.0), (wrote(Q, 8, 9, 2), 1.0))
    assert len(replay.buffer) > 0


def test_with_nothing_remembered_every_start_is_ordinary():
    assert retrospective(5).sample(9, 0.5) == problems(5).sample(9, 0.5)


# Of 8 starts with a share of 0.5 that rises from 0 to 0.4: none, 1 (a share of 0.125), 1.8, 2 (0.25), 4 (0.5).
@pytest.mark.parametrize(("progress", "count"), [(0.0, 0), (0.1, 1), (0.18, 2), (0.2, 2), (0.4, 4), (1.0, 4)])
def test_the_share_of_replayed_starts_follows_the_schedule(progress, count):
    sampler = retrospective(schedule=schedule(share=((0.0, 0.0), (0.4, 0.5))))
    teach(sampler, (wrote(P, 5, 6, 7, 2), 0.0))
    states = sampler.sample(8, progress)
    assert (len(states), len(replays(states))) == (8, count)


def test_a_replayed_start_is_the_problem_with_the_prefix_forced_and_says_where_it_is_from():
    sampler = retrospective()
    teach(sampler, (wrote(P, 5, 6, 2), 0.0))
    starts = {("hard0@1", P, (5,)), ("hard0@2", P, (5, 6))}
    assert {(s.replayed_from, s.problem, s.prefix) for s in replays(sampler.sample(40, 0.5))} == starts


def test_its_events_are_those_of_the_last_batch_and_a_stored_state_names_its_rollout():
    sampler, failed = retrospective(max_problem_success=0.5), wrote(P, 5, 6, 2)
    teach(sampler, (failed, 0.0))
    assert sampler.events() == [
        Stored(f"hard0@{cut}", "hard0", "self", failed, cut=cut, score=only_score)
        for cut, only_score in ((1, 0.0), (2, 0.0))
    ]
    teach(sampler, (wrote(P, 5, 2), 1.0))
    assert sampler.events() == [Forgotten(f"hard0@{number}", "problem mastered") for number in (2, 1)]
    teach(sampler, (wrote(Q, 5), 1.0))
    assert sampler.events() == []


@pytest.mark.parametrize(("kinds", "score"), [((Retrospective, Redraw), 0.0), ((SuccessPrefix, SuccessRedraw), 1.0)])
def test_the_redraw_control_has_the_same_schedule_with_every_prefix_emptied(kinds, score):
    samplers = [retrospective(3, kind=kind, selection=RandomCut()) for kind in kinds]
    for sampler in samplers:
        teach(sampler, (wrote(P, 5, 6, 7, 2), score), (wrote(Q, 8, 9, 2), score))
    forced, emptied = (sampler.sample(40, 0.5) for sampler in samplers)
    assert [(s.problem, s.replayed_from) for s in forced] == [(s.problem, s.replayed_from) for s in emptied]
    assert all(s.prefix for s in replays(forced)) and not any(s.prefix for s in emptied)


def test_practice_starts_from_the_same_problems_as_from_any_prompt_and_learns_from_what_comes_of_it():
    sampler = retrospective(3, kind=Practice, selection=RandomCut(), max_problem_success=0.5, success_momentum=0.25)
    teach(sampler, (wrote(P, 5, 6, 7, 2), 0.0))
    again = sampler.sample(8, 0.5)[4:]
    assert again == [State(P, ())] * 4 and not again[0].replayed
    teach(sampler, (wrote(again[0], 8, 9, 2), 0.0))
    assert [name for name, _ in held(sampler)] == ["hard0", "hard0"]
    teach(sampler, (wrote(again[0], 8, 9, 2), 1.0))
    assert held(sampler) == []  # 3/4 of a success is more than one half: the problem is mastered


def test_practice_has_no_replayed_starts_for_siblings():
    with pytest.raises(
        ValueError, match=r"siblings: nothing is replayed; expected none, or another sampler as sampler=red"
    ):
        retrospective(kind=Practice, siblings=Siblings(n=2, n_replayed=4))


def test_replayed_draws_leave_the_global_random_state_alone():
    random.seed(0)
    before = random.getstate()
    sampler = retrospective(selection=RandomCut())
    teach(sampler, (wrote(P, 5, 6, 7, 2), 0.0))
    assert replays(sampler.sample(8, 0.5))
    assert random.getstate() == before


@pytest.mark.parametrize(("kind", "expected"), [(Retrospective, "hard0"), (Redraw, "hard0"), (SuccessPrefix, "hard1")])
def test_states_are_collected_from_failed_responses_or_as_a_control_from_solved_ones(kind, expected):
    sampler = retrospective(kind=kind)
    teach(sampler, (wrote(P, 5, 6), 0.5), (wrote(Q, 7, 8), 1.0))
    assert [name for name, _ in held(sampler)] == [expected]


@pytest.mark.parametrize("score", [0.0, 1.0])
@pytest.mark.parametrize("kind", [Retrospective, Redraw, SuccessPrefix])
def test_no_state_is_collected_from_a_replayed_rollout(kind, score):
    sampler = retrospective(kind=kind)
    teach(
        sampler,
        (wrote(State(P, (5,), replayed_from="gone@1"), 6, 7), score),
        (wrote(State(P, (), "gone@1"), 6, 7), score),
    )
    assert held(sampler) == []


def test_a_cut_is_scored_by_the_value_of_the_state_it_makes():
    sampler = retrospective(selection=CriticThreshold(tau=0.5, min_explained_variance=None))
    judged = [(wrote(P, 5, 6, 7, 2), 0.0), (wrote(Q, 8, 9, 2), 0.0)]
    teach(sampler, *judged, values=[[0.9, 0.1, 0.625, 0.2], [0.9, 0.75, 0.1]])
    assert [(s.prefix, s.score_at_insert) for s in sampler.buffer] == [((5, 6), 0.625), ((8,), 0.75)]
    assert [(s.source, s.born_step) for s in sampler.buffer] == [("self", 1), ("self", 1)]


@pytest.mark.parametrize(
    ("selection", "at_cut_3"),
    [(Confidence(below=0.4), math.exp(-0.3)), (CriticRise(delta=0.1, min_explained_variance=None), 0.3),
     (CriticThreshold(tau=0.1, min_explained_variance=None), 0.3)],
)  # fmt: skip
def test_a_state_has_the_same_score_in_a_response_of_the_policys_own_and_in_a_reference(selection, at_cut_3):
    response, scored = (5, 6, 7, 8), TokenScores((-0.1, -0.1, -0.1, -2.0), (0.0, 0.1, 0.2, 0.3, 0.1))
    bare, known = EASY[0], problem("known", reference=response)
    sampler = retrospective(selection=selection, sources="both", inspect=lambda states: [scored] * len(states))
    judged = (wrote(bare, *response, logprobs=scored.logprobs), 0.0), (wrote(known, 4), 0.0)
    teach(sampler, *judged, values=[list(scored.values[:4]), [0.0]])
    assert [(s.source, s.prefix) for s in sampler.buffer] == [("self", (5, 6, 7)), ("canonical", (5, 6, 7))]
    assert [s.score_at_insert for s in sampler.buffer] == pytest.approx([at_cut_3, at_cut_3])


def test_confidence_reads_the_engines_logprobs():
    sampler = retrospective(selection=Confidence(below=0.5))
    teach(sampler, (wrote(P, 5, 6, 7, 2, logprobs=(-0.1, -0.2, -0.9, -0.1)), 0.0))
    assert held(sampler) == [("hard0", (5, 6))]


def test_a_score_counts_what_top_p_left_out():
    sampler = retrospective(selection=Confidence(below=0.5))
    cut = replace(wrote(P, 5, 6, 2, logprobs=(-0.1, 0.0, -0.5)), kept=(-0.1, -0.2, -0.5))
    teach(sampler, (cut, 0.0))
    assert (only(sampler).prefix, only(sampler).score_now) == ((5, 6), pytest.approx(math.exp(-0.4)))


def test_doubt_is_what_the_policy_lacked_of_certainty_in_the_step_after_the_cut():
    def doubts(sampler: Retrospective, actions: Sequence[int], *probabilities: float, kept: float = 1.0) -> list[float]:
        failed = wrote(P, *actions, logprobs=tuple(map(math.log, probabilities)))
        teach(sampler, (replace(failed, kept=(math.log(kept),) * len(actions)), 0.0))
        return [stored.doubt for stored in sampler.buffer]

    tokenizer = tiny(None).tokenizer
    by_line = retrospective(cut_points="line", tokenizer=tokenizer)
    lines = (1.0, 1.0, 0.5, 0.75, 0.25, 0.125)  # of the lines a, bc and d
    assert doubts(retrospective(), (5, 6, 7, 2), 0.75, 0.5, 0.25, 1.0) == pytest.approx([0.5, 0.75, 0.0])
    assert doubts(retrospective(), (5, 6, 7, 2), 0.75, 0.5, 0.25, 1.0, kept=0.5) == pytest.approx([0.75, 0.875, 0.5])
    assert doubts(by_line, ids(tokenizer, "a\nbc\nd"), *lines) == pytest.approx([0.5, 0.875])


def test_entropies_of_own_responses_are_those_of_their_new_tokens():
    sampler = retrospective(selection=HighestEntropy(window=(0.0, 1.0), top_value=None, min_explained_variance=None))
    judged = [(wrote(P, 5, 6, 7, 2), 0.0), (wrote(Q, 8, 9, 2), 0.0)]
    teach(sampler, *judged, entropies=[[0.9, 0.1, 0.75, 0.2], [0.9, 0.25, 0.5]])
    assert [(s.prefix, s.score_at_insert) for s in sampler.buffer] == [((5, 6), 0.75), ((8, 9), 0.5)]


def test_a_state_leaves_room_to_write():
    sampler = retrospective(max_response_length=2)
    teach(sampler, (wrote(P, 5, 6, 7), 0.0))
    assert held(sampler) == [("hard0", (5,))]


def test_responses_are_cut_at_the_cut_points_only():
    tokenizer = tiny(None).tokenizer
    sampler = retrospective(cut_points="line", tokenizer=tokenizer)
    teach(sampler, (wrote(P, *ids(tokenizer, "a\nbc\nd")), 0.0))
    assert held(sampler) == [("hard0", ids(tokenizer, "a\n")), ("hard0", ids(tokenizer, "a\nbc\n"))]


@pytest.mark.parametrize(("progress", "count"), [(0.19, 0), (0.2, 2), (0.4, 2), (0.6, 2), (0.61, 0)])
def test_states_are_collected_in_the_window_only(progress, count):
    sampler = retrospective(schedule=schedule(collect=(0.2, 0.6)))
    sampler.sample(4, progress)
    teach(sampler, (wrote(P, 5, 6, 2), 0.0))
    assert len(sampler.buffer) == count


def test_a_replay_outside_the_collection_window_still_counts_as_a_visit():
    sampler = retrospective(schedule=schedule(collect=(0.0, 0.5)))
    teach(sampler, (wrote(P, 5, 2), 0.0))
    (state, *_) = replays(sampler.sample(4, 0.9))
    teach(sampler, (wrote(state, 6), 1.0), (wrote(state, 7), 0.0))
    assert (only(sampler).visits, only(sampler).successes) == (2, 1)


def test_a_state_that_replays_never_finish_is_forgotten():
    sampler = retrospective(buffer=memory(keep_between=(0.25, 1.0)))
    teach(sampler, (wrote(P, 5, 2), 0.0))
    (state, *_) = replays(sampler.sample(4, 0.9))
    teach(sampler, (wrote(state, 6), 0.0), (wrote(state, 7), 0.0))
    assert len(sampler.buffer) == 0


# --- mastered problems ------------------------------------------------------------------------------------------------


# With a weight of 0.5 on the past the running success is 0.5 after the first solve, 0.25 after a failure, 0.625.
@pytest.mark.parametrize(("scores", "count"), [([1.0], 2), ([1.0, 0.0], 2), ([1.0, 0.0, 1.0], 0), ([1.0, 1.0], 0)])
def test_a_problem_is_mastered_by_its_running_success_and_its_states_forgotten(scores, count):
    sampler = retrospective(max_problem_success=0.625)
    teach(sampler, (wrote(P, 5, 6, 2), 0.0), (wrote(Q, 5, 2), 0.0))
    for score in scores:
        teach(sampler, (wrote(P, 5, 6, 2), score))
    assert [name for name, _ in held(sampler)] == ["hard0"] * count + ["hard1"] if count else ["hard1"]


# Running success 0.5 * 1/4 = 0.125 after the siblings, whichever of them is solved; it would be 0.5 for the last one.
@pytest.mark.parametrize("scores", [(1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), (0.0, 1.0, 0.0, 0.0)])
@pytest.mark.parametrize(("bound", "count"), [(0.125, 0), (0.126, 1)])
def test_siblings_move_the_running_success_by_their_mean(scores, bound, count):
    sampler = retrospective(max_problem_success=bound)
    teach(sampler, *((wrote(P, 5, 2), score) for score in scores))
    assert len(sampler.buffer) == count


# Two draws of one problem in a step are two starts, the later of which weighs more: 0.5, 0.25 or 0, 0.5. A mean: 0.25.
@pytest.mark.parametrize(("scores", "success"), [((1.0, 0.0), 0.25), ((0.0, 1.0), 0.5)])
def test_a_second_draw_of_a_problem_in_a_step_is_a_start_of_its_own(scores, success):
    sampler = retrospective()
    teach(sampler, (wrote(P, 5, 2), scores[0]), (wrote(Q, 5, 2), 0.0), (wrote(P, 5, 2), scores[1]))
    assert sampler._success == {"hard0": success, "hard1": 0.0}


def test_part_of_a_score_is_no_success():
    sampler = retrospective(max_problem_success=0.25)
    for _ in range(3):
        teach(sampler, (wrote(P, 5, 2), 0.9))
    assert len(sampler.buffer) == 1


def test_the_momentum_is_the_weight_of_the_past():
    sampler = retrospective(max_problem_success=0.3, success_momentum=0.75)  # 0.25, then 0.4375
    teach(sampler, (wrote(P, 5, 2), 0.0))
    teach(sampler, (wrote(P, 5, 2), 1.0))
    assert len(sampler.buffer) == 1
    teach(sampler, (wrote(P, 5, 2), 1.0))
    assert len(sampler.buffer) == 0


def test_nothing_is_collected_for_a_mastered_problem():
    sampler = retrospective(max_problem_success=0.25, sources="both")
    teach(sampler, (wrote(P, 5, 6, 2), 1.0), (wrote(P, 5, 6, 2), 0.0))  # 0.25 at the end
    assert held(sampler) == []


def test_success_from_a_remembered_state_does_not_make_its_problem_mastered():
    sampler = retrospective(max_problem_success=0.25)
    teach(sampler, (wrote(P, 5, 6, 2), 0.0))
    teach(sampler, (wrote(State(P, (5,), replayed_from="hard0@1"), 6, 2), 1.0))
    assert len(sampler.buffer) == 2


# --- references -------------------------------------------------------------------------------------------------------


def test_a_reference_is_cut_like_a_response_and_inspected_once():
    inspect = Inspector()
    sampler = retrospective(
        sources="canonical", selection=CriticThreshold(tau=0.2, min_explained_variance=None), inspect=inspect
    )
    for _ in range(3):
        teach(sampler, (wrote(P, 5, 6, 7, 2), 0.0), (wrote(P, 5, 2), 0.0))
    assert inspect.asked == [("hard0", (20, 21, 22, 2))]
    stored = only(sampler)
    assert (stored.prefix, stored.source, stored.score_now) == ((20, 21, 22), "canonical", 0.3)
    assert stored.born_step == 1


@pytest.mark.parametrize(
    ("start", "score"),
    [(State(P), 1.0), (State(EASY[0]), 0.0), (State(P, (5,), replayed_from="gone@1"), 0.0)],
    ids=["solved", "no reference", "replayed"],
)
def test_a_reference_is_looked_at_only_after_a_failure_from_the_prompt(start, score):
    inspect = Inspector()
    sampler = retrospective(sources="canonical", inspect=inspect)
    teach(sampler, (wrote(start, 6, 7, 2), score))
    assert inspect.asked == [] and held(sampler) == []


def test_a_reference_left_aside_is_looked_at_when_its_problem_fails_later():
    inspect = Inspector()
    sampler = retrospective(sources="canonical", inspect=inspect)
    teach(sampler, (wrote(P, 5, 2), 1.0), (wrote(Q, 5, 2), 0.0))
    teach(sampler, (wrote(P, 5, 2), 0.0))
    assert [name for name, _ in inspect.asked] == ["hard1", "hard0"]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [("self", [(5,)]), ("canonical", [(20,), (20, 21), (20, 21, 22)]), ("both", [(5,), (20,), (20, 21), (20, 21, 22)])],
)
def test_states_come_from_the_asked_sources(sources, expected):
    sampler = retrospective(sources=sources)
    teach(sampler, (wrote(P, 5, 2), 0.0))
    assert [prefix for _, prefix in held(sampler)] == expected


# --- the critic -------------------------------------------------------------------------------------------------------


# Returns 1 and 0; values that equal them explain everything, values of 0.75 and 0.25 three quarters, zeros nothing.
@pytest.mark.parametrize(
    ("values", "count"), [([[1.0, 0.0]], 1), ([[0.75, 0.25]], 1), ([[0.7, 0.3]], 0), ([[0.0, 0.0]], 0)]
)
def test_nothing_is_collected_while_the_critic_explains_too_little(values, count):
    sampler = retrospective(selection=CriticTopK(k=99, min_explained_variance=0.75))
    teach(sampler, (wrote(P, 5, 2), 0.0), values=values, returns=[[1.0, 0.0]])
    assert len(sampler.buffer) == count


@pytest.mark.parametrize(("selection", "expected"), [(TOP, True), (RandomCut(), False)])
def test_a_critic_is_needed_by_the_rule(selection, expected):
    assert retrospective(selection=selection).needs_critic is expected
