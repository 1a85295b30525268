"""Where rollouts start: ordinary draws by level, and retrospective replay with its controls, window and memory."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fixtures.replay import PAD, THROUGH, ids, problem, rollout, tiny
from rrl.collate import collate
from rrl.errors import DataError
from rrl.parts.samplers.buffer import StateBuffer, StoredState
from rrl.parts.samplers.controls import Redraw, SuccessPrefix
from rrl.parts.samplers.problems import Problems
from rrl.parts.samplers.retrospective import Retrospective
from rrl.parts.samplers.schedule import Schedule
from rrl.parts.selections.confidence import Confidence
from rrl.parts.selections.critic import CriticRise, CriticThreshold, CriticTopK
from rrl.parts.selections.random_cut import RandomCut
from rrl.types import Feedback, Metrics, Problem, Rollout, State, TokenScores, Verdict

EASY = [problem(f"easy{i}", level="easy", prompt=(1, i)) for i in range(3)]
HARD = [problem(f"hard{i}", level="hard", prompt=(1, 10 + i), reference=(20, 21, 22, 2)) for i in range(5)]
P, Q = HARD[:2]
TOP = CriticTopK(k=99, min_explained_variance=None)
"""The rule that finds a state at every legal cut."""


class Inspector:
    """Stands in for policy and critic: values 0.0, 0.1, 0.2 ... and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[int, ...]]] = []

    def __call__(self, states: Sequence[State]) -> list[TokenScores]:
        self.asked += [(state.problem.id, state.prefix) for state in states]
        lengths = [len(state.prefix) for state in states]
        return [TokenScores((-0.1,) * n, tuple(i / 10 for i in range(n + 1))) for n in lengths]


def problems(seed: int = 0, *, data: Sequence[Problem] = (*EASY, *HARD), weights: Any = None) -> Problems:
    sampler = Problems(level_weights=weights)
    sampler.start(data, seed, Inspector(), tokenizer=None)
    return sampler


def schedule(**changes: Any) -> Schedule:
    return Schedule(**{"share": 0.5, "collect": (0.0, 1.0)} | changes)


def memory(**changes: Any) -> StateBuffer:
    settings = {
        "capacity": 1000, "states_per_problem": 1000, "priority": "uniform", "keep_between": (0.0, 1.0),
    }  # fmt: skip
    return StateBuffer(**settings | changes)


def retrospective(
    seed: int = 0, *, kind: type[Retrospective] = Retrospective, inspect: Any = None, tokenizer: Any = None,
    **changes: Any,
) -> Retrospective:  # fmt: skip
    """One that remembers every legal cut of every failure, masters and forgets nothing, but for the changes."""
    settings: dict[str, Any] = {
        "level_weights": None, "selection": TOP, "buffer": memory(), "schedule": schedule(), "sources": "self",
        "cut_points": "token", "max_response_length": 16, "max_problem_success": 2.0, "success_momentum": 0.5,
    }  # fmt: skip
    sampler = kind(**settings | changes)
    sampler.start([*EASY, *HARD], seed, inspect or Inspector(), tokenizer)
    return sampler


def wrote(start: Problem | State, *actions: int, **fields: Any) -> Rollout:
    return rollout(start if isinstance(start, State) else State(start), actions, **fields)


def teach(sampler: Any, *judged: tuple[Rollout, float], values: Any = None, returns: Any = None) -> Metrics:
    """Let it observe these rollouts with these scores; ``values`` and ``returns`` are one number per action."""
    rollouts = [r for r, _ in judged]
    zeros = [[0.0] * len(r.actions) for r in rollouts]
    columns = {"values": values or zeros, "returns": returns or zeros}
    batch = collate(rollouts, zeros, PAD)
    batch = batch.with_(**{name: collate(rollouts, numbers, PAD).rewards for name, numbers in columns.items()})
    feedback = [Feedback(score, Verdict.RIGHT if score >= 1 else Verdict.WRONG) for _, score in judged]
    return sampler.observe(rollouts, feedback, batch)


def held(sampler: Retrospective) -> list[tuple[str, tuple[int, ...]]]:
    return [(stored.problem_id, stored.prefix) for stored in sampler.buffer]


def only(sampler: Retrospective) -> StoredState:
    (stored,) = sampler.buffer
    return stored


def names(states: Sequence[State]) -> list[str]:
    return [state.problem.id for state in states]


def replays(states: Sequence[State]) -> list[State]:
    return [state for state in states if state.replayed_from is not None]


# --- ordinary starts --------------------------------------------------------------------------------------------------


def test_levels_are_drawn_by_their_weights_on_any_scale():
    counts = Counter(s.problem.level for s in problems(weights={"easy": 30.0, "hard": 90.0}).sample(20_000, 0.0))
    assert counts["hard"] / 20_000 == pytest.approx(0.75, abs=0.01)


def test_without_weights_every_problem_is_drawn_once_an_epoch():
    drawn = names(problems().sample(24, 0.0))
    assert [sorted(drawn[i : i + 8]) for i in (0, 8, 16)] == [sorted(p.id for p in (*EASY, *HARD))] * 3
    assert drawn[:8] != drawn[8:16]


def test_every_level_has_a_deck_of_its_own_without_repetition_in_an_epoch():
    drawn = names(problems(weights={"easy": 1.0, "hard": 1.0}).sample(400, 0.0))
    for level, size in (("easy", 3), ("hard", 5)):
        deck = [name for name in drawn if name.startswith(level)]
        epochs = [deck[i : i + size] for i in range(0, len(deck) - size, size)]
        assert len(epochs) > 20 and all(len(set(epoch)) == size for epoch in epochs)


def test_a_level_of_weight_zero_is_never_drawn():
    assert {s.problem.level for s in problems(weights={"easy": 0.0, "hard": 1.0}).sample(200, 0.0)} == {"hard"}


def test_a_level_without_a_weight_is_never_drawn():
    assert {s.problem.level for s in problems(weights={"easy": 1.0}).sample(200, 0.0)} == {"easy"}


def test_an_ordinary_start_has_no_prefix_and_is_not_replayed():
    assert {(s.prefix, s.replayed_from) for s in problems().sample(20, 0.5)} == {((), None)}


def test_a_weight_for_a_level_that_the_data_has_not_is_an_error_that_names_both():
    with pytest.raises(DataError, match=r"(?s)level_weights.*medium.*easy.*hard"):
        problems(weights={"easy": 1.0, "medium": 1.0})


@pytest.mark.parametrize("weights", [{}, {"easy": -1.0, "hard": 2.0}, {"easy": 0.0}])
def test_weights_that_cannot_be_drawn_by_are_refused(weights):
    with pytest.raises(ValueError, match="level_weights"):
        Problems(level_weights=weights)


def test_equal_seeds_draw_equal_problems_and_other_seeds_others():
    first, again, other = (names(problems(seed).sample(30, 0.0)) for seed in (1, 1, 2))
    assert first == again != other


def test_ordinary_draws_leave_the_global_random_state_alone():
    random.seed(0)
    before = random.getstate()
    problems().sample(30, 0.0)
    assert random.getstate() == before


@THROUGH
@pytest.mark.parametrize("weights", [None, {"easy": 1.0, "hard": 2.0}])
def test_restored_ordinary_draws_go_on_as_the_saved_ones(through, weights):
    saved, restored = problems(1, weights=weights), problems(2, weights=weights)
    saved.sample(11, 0.0)
    restored.sample(5, 0.0)
    state = saved.state_dict()
    expected = saved.sample(40, 0.0)
    restored.load_state_dict(through(state))
    assert restored.sample(40, 0.0) == expected


def test_ordinary_starts_learn_nothing():
    assert teach(problems(), (wrote(P, 5, 2), 0.0)) == {} and not problems().needs_critic


# --- the schedule -----------------------------------------------------------------------------------------------------


# A share of 0.4 rises from 0.2 to 0.6 and falls from 0.8 to 1.0: by hand, 0.1 a tenth and then -0.2 a tenth.
@pytest.mark.parametrize(
    ("progress", "share"),
    [(0.0, 0.0), (0.2, 0.0), (0.3, 0.1), (0.4, 0.2), (0.55, 0.35), (0.6, 0.4), (0.7, 0.4), (0.8, 0.4), (0.85, 0.3),
     (0.9, 0.2), (1.0, 0.0)],
)  # fmt: skip
def test_the_share_rises_stays_and_falls_linearly(progress, share):
    times = schedule(share=((0.2, 0.0), (0.6, 0.4), (0.8, 0.4), (1.0, 0.0)))
    assert times.share_at(progress) == pytest.approx(share)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.2), (0.3, 0.2), (0.5, 0.35), (0.7, 0.5), (1.0, 0.5)])
def test_before_the_first_point_and_after_the_last_the_share_is_theirs(progress, share):
    assert schedule(share=((0.3, 0.2), (0.7, 0.5))).share_at(progress) == pytest.approx(share)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("share", [0.5, ((0.4, 0.5),)])
def test_one_number_or_point_is_the_share_of_all_training(share, progress):
    assert schedule(share=share).share_at(progress) == 0.5


NUMBERS = "share: expected a number from 0 to 1, or points [time, share] of such numbers, got "
TIMES = "share: expected points whose times rise, as in [[0, 0], [0.3, 0.5]], got "
WINDOW = "collect: expected two times from 0 to 1, the earlier one first, got "


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"share": 1.1}, NUMBERS + "1.1"),
        ({"share": -0.1}, NUMBERS + "-0.1"),
        ({"share": ()}, NUMBERS + "[]"),
        ({"share": ((0, 0), (0.3, 5))}, NUMBERS + "[[0, 0], [0.3, 5]]"),
        ({"share": ((0, 0), (30, 0.5))}, NUMBERS + "[[0, 0], [30, 0.5]]"),
        ({"share": ((0.3, 0), (0.3, 0.5))}, TIMES + "[[0.3, 0], [0.3, 0.5]]"),
        ({"share": ((0.5, 0.5), (0, 0))}, TIMES + "[[0.5, 0.5], [0, 0]]"),
        ({"collect": (0.6, 0.5)}, WINDOW + "[0.6, 0.5]"),
        ({"collect": (0, 2)}, WINDOW + "[0, 2]"),
        ({"share": ((2, 0), (0, 0)), "collect": (-1, 1)}, "\n".join((
            NUMBERS + "[[2, 0], [0, 0]]", TIMES + "[[2, 0], [0, 0]]", WINDOW + "[-1, 1]",
        ))),
    ],
)  # fmt: skip
def test_every_fault_of_a_schedule_is_reported_with_the_value_given(changes, told):
    with pytest.raises(ValueError) as caught:
        schedule(**changes)
    assert str(caught.value) == told


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


def test_the_redraw_control_has_the_same_schedule_with_every_prefix_emptied():
    samplers = [retrospective(3, kind=kind, selection=RandomCut()) for kind in (Retrospective, Redraw)]
    for sampler in samplers:
        teach(sampler, (wrote(P, 5, 6, 7, 2), 0.0), (wrote(Q, 8, 9, 2), 0.0))
    forced, emptied = (sampler.sample(40, 0.5) for sampler in samplers)
    assert [(s.problem, s.replayed_from) for s in forced] == [(s.problem, s.replayed_from) for s in emptied]
    assert all(s.prefix for s in replays(forced)) and not any(s.prefix for s in emptied)


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
    teach(sampler, *((wrote(P, 5, 6, 2), score) for score in scores))
    assert [name for name, _ in held(sampler)] == ["hard0"] * count + ["hard1"] if count else ["hard1"]


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


# --- what is reported -------------------------------------------------------------------------------------------------


def test_first_solves_counts_problems_solved_from_a_memory_before_any_other_way():
    sampler, replay = retrospective(), State(P, (5,), replayed_from="gone@1")
    other = State(Q, (5,), replayed_from="gone@2")
    judged = [(wrote(Q, 2), 1.0), (wrote(other, 2), 1.0), (wrote(replay, 2), 0.0), (wrote(replay, 3), 1.0)]
    assert teach(sampler, *judged, (wrote(replay, 4), 1.0))["replay/first_solves"] == 1.0
    assert teach(sampler, (wrote(replay, 2), 1.0))["replay/first_solves"] == 0.0


def test_the_metrics_describe_the_memory():
    sampler = retrospective()
    teach(sampler, (wrote(P, 5, 6, 2), 0.0), (wrote(Q, 7, 2), 0.0), values=[[0.0, 0.1, 0.2], [0.0, 0.6]])
    metrics = teach(sampler, (wrote(State(P, (5,), "hard0@1"), 2), 1.0), (wrote(State(P, (5,), "hard0@1"), 2), 0.0))
    assert metrics == pytest.approx({
        "replay/buffer_size": 3.0, "replay/unique_problems": 2.0, "replay/evictions": 0.0, "replay/age_steps/mean": 1.0,
        "replay/score_at_insert/mean": 0.3, "replay/score_now/mean": 0.3, "replay/prefix_length/mean": 4 / 3,
        "replay/success_rate": 0.5, "replay/first_solves": 1.0,
    })  # fmt: skip


# --- resuming ---------------------------------------------------------------------------------------------------------


def train(sampler: Retrospective, steps: range) -> list[Any]:
    """Steps in which problems and prefixes decide what is written and whether it is right; returns all that it did."""
    log: list[Any] = []
    for step in steps:
        states = sampler.sample(8, step / 40)
        rollouts = [wrote(state, 5 + step % 3, 6 + i % 4, 7, 2) for i, state in enumerate(states)]
        scores = [float((step + len(r.tokens) + len(r.state.problem.id) + i) % 5 == 0) for i, r in enumerate(rollouts)]
        values = [[0.1, 0.4, score, 0.2] for score in scores]
        log += [states, teach(sampler, *zip(rollouts, scores, strict=True), values=values)]
    return log


def resumable(seed: int) -> Retrospective:
    return retrospective(
        seed, sources="both", selection=RandomCut(), max_problem_success=0.7,
        buffer=memory(capacity=12, keep_between=(0.2, 1.0), priority="success_variance"),
    )  # fmt: skip


@THROUGH
def test_a_restored_sampler_goes_on_as_the_saved_one(through):
    saved, restored = resumable(1), resumable(2)
    train(saved, range(20))
    train(restored, range(3))
    state = saved.state_dict()
    expected = train(saved, range(20, 40))
    restored.load_state_dict(through(state))
    assert train(restored, range(20, 40)) == expected
    assert restored.state_dict() == saved.state_dict()


def test_the_collection_window_survives_a_resume_between_sampling_and_observing():
    saved, restored = (retrospective(schedule=schedule(collect=(0.5, 1.0))) for _ in range(2))
    saved.sample(4, 0.5)
    restored.load_state_dict(saved.state_dict())
    teach(restored, (wrote(P, 5, 2), 0.0))
    assert len(restored.buffer) == 1


@pytest.mark.parametrize(
    ("key", "value"), [("success_momentum", 1.0), ("max_problem_success", 0.0), ("level_weights", {})]
)
def test_an_impossible_setting_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=key):
        retrospective(**{key: value})
