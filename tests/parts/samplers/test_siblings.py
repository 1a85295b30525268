"""Several continuations of one state: the starts they take, the share they have, and what is saved."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.config import faults, options
from fixtures.samplers import (
    EASY,
    HARD,
    Inspector,
    P,
    Q,
    memory,
    problems,
    retrospective,
    schedule,
    started,
    teach,
    wrote,
)
from fixtures.trainer import gone_on, history, same
from fixtures.training import grpo, limits, make_trainer, ppo, replay
from fixtures.training import problems as training_problems
from rrl.config.check import load
from rrl.contracts import border
from rrl.contracts.siblings import Siblings
from rrl.errors import ContractError
from rrl.parts.samplers.allocation import Allocation
from rrl.parts.samplers.controls import Redraw
from rrl.parts.samplers.pass_rate import PassRate, PassRateRedraw
from rrl.parts.samplers.problems import Problems
from rrl.parts.samplers.prompt_replay import PromptReplay
from rrl.parts.samplers.retrospective import Retrospective
from rrl.types import State

LIMITS = limits()
ONE_FOUR, EIGHT_FOUR, TWO_THREE = (Siblings(n=n, n_replayed=m) for n, m in ((1, 4), (8, 4), (2, 3)))


def counts(sampler: Any, siblings: Siblings, count: int) -> list[int]:
    """How many rollouts each replayed start of a step gets, after a check that the step is full."""
    states = sampler.sample(count, 0.5)
    assert siblings.fill(states, count)
    rollouts = siblings.written(states, count)
    assert len(rollouts) == count * siblings.n
    return [number for state, number in runs(rollouts) if state.replayed]


def runs(states: Sequence[State]) -> list[tuple[State, int]]:
    """The states in order, each with the number of times that it comes in a row; equal ones are told apart by id."""
    found: list[tuple[State, int]] = []
    for state in states:
        if found and found[-1][0] is state:
            found[-1] = (state, found[-1][1] + 1)
        else:
            found.append((state, 1))
    return found


# --- the arithmetic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("siblings", "fresh", "states", "worth"),
    [(ONE_FOUR, 8, 2, 8), (ONE_FOUR, 9, 3, 12), (ONE_FOUR, 0, 0, 0), (EIGHT_FOUR, 2, 4, 2), (TWO_THREE, 3, 2, 3),
     (TWO_THREE, 4, 3, 4)],
)  # fmt: skip
def test_replayed_starts_take_the_rollouts_of_fresh_ones(
    siblings: Siblings, fresh: int, states: int, worth: int
) -> None:
    assert (siblings.replayed_for(fresh), siblings.fresh_for(states)) == (states, worth)


def test_the_last_start_has_what_is_left() -> None:
    starts = [State(P), State(P, (5,), "a"), State(Q, (5,), "b")]
    assert TWO_THREE.written(starts, 3) == [starts[0]] * 2 + [starts[1]] * 3 + [starts[2]]
    full = [TWO_THREE.fill(starts[:some], count) for some, count in ((3, 3), (2, 3), (3, 2), (3, 4), (3, 5), (0, 1))]
    assert full == [True, False, False, True, False, False]  # 2, 5 and 8 rollouts; wanted 6, 6, 4, 8, 10, 2


# --- every sampler that replays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("siblings", "share", "count", "expected"),
    [(ONE_FOUR, 0.5, 32, [4, 4, 4, 4]), (ONE_FOUR, 0.4, 33, [4, 4, 4, 1]), (EIGHT_FOUR, 0.25, 16, [4] * 8),
     (TWO_THREE, 0.5, 8, [3, 3, 2])],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Retrospective, Redraw])
def test_the_share_of_rollouts_is_that_of_the_schedule(
    siblings: Siblings, share: float, count: int, expected: list[int], kind: type[Retrospective]
) -> None:
    sampler = retrospective(schedule=schedule(share=share), siblings=siblings, kind=kind)
    teach(sampler, *((wrote(problem, 5, 6, 7, 2), 0.0) for problem in HARD))
    assert counts(sampler, siblings, count) == expected
    assert {bool(s.prefix) for s in sampler.sample(count, 0.5) if s.replayed} == {kind is Retrospective}


def test_with_nothing_remembered_every_start_is_ordinary() -> None:
    assert retrospective(5, siblings=ONE_FOUR).sample(9, 0.5) == problems(5).sample(9, 0.5)


def test_as_many_as_from_a_fresh_start_is_what_there_is_without() -> None:
    both = [retrospective(5, siblings=siblings) for siblings in (None, Siblings(n=3, n_replayed=3))]
    for _ in range(3):
        for sampler in both:
            teach(sampler, (wrote(P, 5, 6, 7, 2), 0.0))
        assert both[0].sample(8, 0.5) == both[1].sample(8, 0.5)


@pytest.mark.parametrize("priority", ["doubt", "lru_forest"])
def test_no_draw_in_turns_is_wasted(priority: str) -> None:
    sampler = retrospective(buffer=memory(priority=priority), siblings=ONE_FOUR)
    teach(sampler, *((wrote(problem, 5, 2), 0.0) for problem in HARD[:4]))
    drawn = [state.problem.id for _ in range(2) for state in sampler.sample(16, 0.5) if state.replayed]
    assert sorted(drawn) == ["hard0", "hard1", "hard2", "hard3"]


def test_prompts_and_states_compete_for_rollouts() -> None:
    settings = {"candidates": 4, "fade": 1.0, "prior": 2.0, "expects": "prompt", "siblings": ONE_FOUR}
    hard = {"level_weights": {"hard": 1.0}, "schedule": schedule(share=0.75)}
    sampler = retrospective(3, kind=Allocation, **hard, **settings)
    teach(sampler, *((wrote(problem, 5, 2), 0.0) for problem in HARD for _ in range(9)))
    states = [state for state in sampler.remembered() for _ in range(20)]
    teach(sampler, *((wrote(state, 6), float(number % 2)) for number, state in enumerate(states)))
    assert counts(sampler, ONE_FOUR, 9) == [4]  # round(6.75) = 7 rollouts have room for one state, not for two
    assert counts(sampler, ONE_FOUR, 16) == [4, 4, 4]


@pytest.mark.parametrize("kind", [PassRate, PassRateRedraw])
@pytest.mark.parametrize("siblings", [ONE_FOUR, EIGHT_FOUR, TWO_THREE])
def test_problems_are_drawn_until_their_rollouts_fill_the_step(kind: type[PassRate], siblings: Siblings) -> None:
    sampler = kind(
        level_weights=None, middle=(0.25, 0.75), share=0.5, move=0.1, prompts=0.0, success_momentum=0.5,
        cut_points="token", max_response_length=16, siblings=siblings,
    )  # fmt: skip
    sampler.start([*EASY, *HARD], 3, Inspector(), None)
    for score in (1.0, 0.0, 0.0, 0.0):
        teach(sampler, *((wrote(problem, 20, 21, 22, 2), score) for problem in HARD))
    numbers = Counter(counts(sampler, siblings, 8) + counts(sampler, siblings, 8))
    assert numbers[siblings.n_replayed] >= 2 and max(numbers) == siblings.n_replayed


def test_problems_that_come_again_get_more_rollouts_as_far_as_there_are_any() -> None:
    for siblings, expected in ((ONE_FOUR, [4, 4]), (EIGHT_FOUR, [4, 4]), (Siblings(n=1, n_replayed=3), [3, 3])):
        sampler = PromptReplay(
            level_weights=None, share=1.0, window=(0.25, 0.75), cool_down=0, reuses=9, momentum=0.0, siblings=siblings
        )
        sampler.start([*EASY, *HARD], 3, Inspector(), None)
        teach(sampler, *((wrote(problem, 5), score) for problem in HARD[:3] for score in (0.0, 1.0)))
        sampler._rate.pop("hard2")
        assert counts(sampler, siblings, 12) == expected


@pytest.mark.parametrize("choice", [name for name in options("sampler") if name != "practice"])  # it refuses siblings
def test_every_sampler_fills_the_step(choice: str) -> None:
    sampler = started(choice, "selection=random_cut", "siblings=replayed", "trainer.n=2", "siblings.n_replayed=3")
    for step in range(12):
        states = sampler.sample(7, step / 12)
        assert TWO_THREE.fill(states, 7)
        rollouts = [wrote(state, 20, 21, 22, 2) for state in TWO_THREE.written(states, 7)]
        teach(sampler, *((each, float((number + step) % 3 == 0)) for number, each in enumerate(rollouts)))


# --- at the border, in a step, and as a key ---------------------------------------------------------------------------


class Deaf(Problems):
    """A sampler that replays and knows nothing of siblings."""

    def sample(self, count: int, progress: float) -> list[State]:
        return [State(state.problem, (5,), "own") for state in super().sample(count, progress)]


def test_a_sampler_that_does_not_count_rollouts_is_refused() -> None:
    sampler = Deaf(level_weights=None)
    sampler.start(list(training_problems()), 0, Inspector(), None)
    assert len(border.starts(sampler, 3, 0.0, LIMITS)) == 3
    with pytest.raises(ContractError, match="returned 3 starts for 9 rollouts; expected starts for 6 rollouts, 3 from"):
        border.starts(sampler, 3, 0.0, LIMITS, Siblings(n=2, n_replayed=3))
    assert len(border.starts(sampler, 1, 0.0, LIMITS, Siblings(n=1, n_replayed=9))) == 1


def several(objective: Any = None) -> Any:
    siblings = Siblings(n=2, n_replayed=4)
    return make_trainer(
        sampler=replay(0.5, siblings=siblings), objective=objective or ppo(advantage_norm="siblings"), n=2,
        train_batch_size=8, ppo_mini_batch_size=8, siblings=siblings,
    )  # fmt: skip


@pytest.mark.parametrize("objective", [ppo(advantage_norm="origin"), grpo()], ids=["ppo", "grpo"])
def test_a_step_has_as_many_rollouts_as_ever_and_siblings_are_a_group(objective: Any) -> None:
    trainer = several(objective)
    first, second = trainer.step(), trainer.step()
    assert (first["replay/ratio"], second["replay/ratio"]) == (0.0, 0.5)
    rollouts, batch = trainer.last_batch
    assert len(rollouts) == 16 and trainer.settings.sequences == 16
    sizes = Counter(rollout.state for rollout in rollouts if rollout.state.replayed)
    assert sum(sizes.values()) == 8 and set(sizes.values()) <= {4, 8}
    assert all(len(set(batch.group[[r.state == state for r in rollouts]].tolist())) == 1 for state in sizes)


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    assert same(gone_on(several, tmp_path), history(several(), 2)[1:])


def test_they_are_chosen_by_a_group_that_is_absent_by_default() -> None:
    config, parts = load("train", ["siblings=replayed", "trainer.n=2", "siblings.n_replayed=6"])
    assert parts.trainer.siblings == parts.sampler.siblings == Siblings(n=2, n_replayed=6)
    assert config["siblings"]["n_replayed"] == 6
    config, parts = load("train", [])
    assert "siblings" not in config and parts.trainer.siblings is parts.sampler.siblings is None


def test_a_group_of_one_is_refused_where_siblings_are_compared() -> None:
    one = ["objective=rloo", "trainer.n=2", "siblings=replayed", "siblings.n_replayed=1"]
    assert faults(*one) == [
        "siblings.n_replayed: 1, but this objective compares rollouts of one start; expected 2 or more, as in 4"
    ]
    assert faults("siblings=replayed", "siblings.n_replayed=0") == ["siblings.n_replayed: expected at least 1, got 0"]
    assert "did you mean 'siblings.n_replayed'" in faults("trainer.n_replayed=4")[0]
