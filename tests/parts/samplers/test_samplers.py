"""Where rollouts start: ordinary draws by level, the schedule of replay, metrics, and what a resume restores."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from fixtures.replay import THROUGH, plain
from fixtures.samplers import EASY, HARD, P, Q, memory, problems, retrospective, schedule, teach, wrote
from rrl.errors import DataError
from rrl.parts.samplers.problems import Problems
from rrl.parts.samplers.retrospective import Retrospective
from rrl.parts.selections.random_cut import RandomCut
from rrl.types import State


def names(states: Sequence[State]) -> list[str]:
    return [state.problem.id for state in states]


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
    ("changes", "reported"),
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
def test_every_fault_of_a_schedule_is_reported_with_the_value_given(changes, reported):
    with pytest.raises(ValueError) as caught:
        schedule(**changes)
    assert str(caught.value) == reported


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
    assert plain(restored.state_dict()) == plain(saved.state_dict())


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
