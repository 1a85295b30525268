"""The reward of preferences: running moments, clipping, and what is saved."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from rrl.parts.rewards.preference import Moments, RewardModelReward
from rrl.types import Example, Feedback, Judged, Problem, Rollout, State, Verdict

EMPTY = Feedback(0.0, Verdict.UNPARSEABLE, {"reward": None})


def reward(**changes: Any) -> RewardModelReward:
    shape = {"subtract_mean": False, "clip": None, "unparseable": -5.0, "truncation_penalty": 0.0}
    return RewardModelReward(**shape | changes)


def rollout(actions: int = 1, finished: bool = True) -> Rollout:
    zeros = (0.0,) * actions
    state = State(Problem(Example("p", "helpful", "q", "", ""), (), ()))
    return Rollout(state, (7,) * actions, zeros, zeros, finished, "", 0)


def says(number: float) -> Feedback:
    return Feedback(0.5, Verdict.WRONG, {"reward": number})


def seen(part: RewardModelReward, *batches: Sequence[float]) -> RewardModelReward:
    for batch in batches:
        part.observe([Judged(rollout(), says(number)) for number in batch])
    return part


def test_moments_are_those_of_all_numbers_so_far() -> None:
    moments = Moments()
    for number in (2, 4, 4, 4, 5, 5, 7, 9):  # mean 5, variance 4: the textbook's example of a population
        moments.add(number)
    assert (moments.count, moments.mean, moments.deviation) == (8, 5.0, 2.0)


def test_moments_survive_large_offsets() -> None:
    moments = Moments()
    for number in (4, 7, 13, 16):  # variance 22.5
        moments.add(1e9 + number)
    assert moments.deviation == pytest.approx(math.sqrt(22.5), rel=1e-6)


def test_a_reward_is_divided_by_the_deviation_of_all_so_far_this_step_included() -> None:
    part = seen(reward(), [2.0, 4.0, 4.0, 4.0], [5.0, 5.0, 7.0, 9.0])
    assert part(Judged(rollout(3), says(3.0))) == [0.0, 0.0, 1.5]
    assert part(Judged(rollout(), says(-1.0))) == [-0.5]


def test_the_mean_is_taken_off_by_key_only() -> None:
    part = seen(reward(subtract_mean=True), [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert part(Judged(rollout(), says(3.0))) == [-1.0]


@pytest.mark.parametrize(("number", "expected"), [(100.0, 1.5), (-100.0, -1.5), (2.0, 1.0)])
def test_a_reward_is_clipped_in_deviations(number: float, expected: float) -> None:
    part = seen(reward(clip=1.5), [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert part(Judged(rollout(), says(number))) == [expected]


@pytest.mark.parametrize("numbers", [[3.0], [3.0, 3.0, 3.0]])
def test_rewards_that_do_not_vary_are_paid_as_they_are(numbers: list[float]) -> None:
    assert seen(reward(), numbers)(Judged(rollout(), says(3.0))) == [3.0]


def test_an_empty_response_is_paid_by_key_and_counts_in_no_moment() -> None:
    part = reward(clip=1.0)
    metrics = part.observe([Judged(rollout(), EMPTY), Judged(rollout(), says(4.0))])
    assert part(Judged(rollout(2), EMPTY)) == [0.0, -5.0]
    assert part.state_dict()["count"] == 1
    assert metrics["reward/raw/mean"] == 4.0
    assert "reward/raw/mean" not in part.observe([Judged(rollout(), EMPTY)])


def test_a_response_that_was_cut_off_pays_its_penalty_after_the_clipping() -> None:
    part = seen(reward(clip=1.0, truncation_penalty=0.25), [1.0, 3.0])
    assert part(Judged(rollout(finished=False), says(9.0))) == [0.75]
    assert part(Judged(rollout(), says(9.0))) == [1.0]


def test_metrics_report_rewards_as_they_are_and_the_moments() -> None:
    part = reward(clip=2.0)
    metrics = part.observe([Judged(rollout(), says(number)) for number in (0.0, 0.0, 0.0, 4.0)])
    assert metrics == {
        "reward/running_mean": 1.0, "reward/running_std": pytest.approx(math.sqrt(3)), "reward/raw/mean": 1.0,
        "reward/raw/max": 4.0, "reward/raw/min": 0.0, "reward/clip_ratio": 0.25,
    }  # fmt: skip


def test_a_restored_reward_goes_on_as_if_it_had_never_stopped() -> None:
    batches = [[1.5, -0.25], [3.0], [0.5, 0.75, -2.0]]
    straight, first, second = seen(reward(), *batches), seen(reward(), *batches[:2]), reward()
    second.load_state_dict(first.state_dict())
    seen(second, batches[2])
    assert second.state_dict() == straight.state_dict()
    assert second(Judged(rollout(), says(1.0))) == straight(Judged(rollout(), says(1.0)))


def test_pricing_changes_nothing() -> None:
    part = seen(reward(), [1.0, 2.0])
    before = part.state_dict()
    part(Judged(rollout(), says(50.0)))
    assert part.state_dict() == before


def test_it_needs_preferences_and_says_when_one_is_missing() -> None:
    assert RewardModelReward.needs == {"preferences"}
    with pytest.raises(TypeError, match=r"evidence\['reward'\]: expected the reward model's number, got None"):
        reward()(Judged(rollout(), Feedback(1.0, Verdict.RIGHT, {})))


@pytest.mark.parametrize("changes", [{"clip": 0.0}, {"clip": -1.0}, {"truncation_penalty": -1.0}])
def test_hyper_parameters_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(changes))}: expected a number >"):
        reward(**changes)
