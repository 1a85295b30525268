"""Whole groups that are learnt from again: which are stored and drawn, what they replace, and by which ratio."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.replay import PAD, THROUGH, plain
from fixtures.samplers import EASY, HARD, P, Q, problems, wrote
from fixtures.trainer import gone_on, history, same
from fixtures.training import grpo, make_trainer
from rrl.collate import collate
from rrl.config.check import load
from rrl.errors import ConfigError
from rrl.interfaces import Reward
from rrl.parts.samplers.group_replay import GroupReplay, silent
from rrl.types import Batch, Feedback, Judged, Metrics, Problem, State, TokenScores, Verdict

NOW = -1.0
"""The log-probability of every token under the present policy."""


def present(states: Sequence[State]) -> list[TokenScores]:
    """Another one for the prefix, which is no action."""
    return [TokenScores((*[-9.0] * (len(s.prefix) - 2), NOW, NOW)[-len(s.prefix) :], ()) for s in states]


def replaying(**changes: Any) -> GroupReplay:
    settings = {"level_weights": None, "capacity": 9, "share": 1.0, "importance_cap": None}
    sampler = GroupReplay(**settings | changes)
    sampler.start([*EASY, *HARD], 3, present, None)
    return sampler


def learnt(sampler: GroupReplay, *groups: tuple[Problem | State, float], old: float = -1.5) -> tuple[Batch, Metrics]:
    """A step of groups with two rollouts each, of two tokens and one, with advantages a and -a."""
    rollouts = [wrote(start, *actions) for start, _ in groups for actions in ((5, 6), (7,))]
    paid = [[a] * n for _, advantage in groups for a, n in ((advantage, 2), (-advantage, 1))]
    batch = collate(rollouts, paid, PAD)
    old_logprobs, engine = (torch.where(batch.mask, x, 0.0) for x in (old, old - 0.25))
    batch = batch.with_(advantages=batch.rewards, old_logprobs=old_logprobs, engine_logprobs=engine)
    metrics = sampler.observe([Judged(r, Feedback(0.0, Verdict.WRONG)) for r in rollouts], batch)
    return sampler.experience(batch), metrics


def prompts(batch: Batch) -> list[list[int]]:
    """The first two tokens of each row, which are the prompt."""
    return batch.tokens[:, :2].tolist()


def test_starts_are_the_ordinary_ones() -> None:
    assert replaying().sample(8, 0.5) == problems(3).sample(8, 0.5)


def test_a_stored_group_takes_the_place_of_one_without_signal_with_its_credit_and_its_old_log_probabilities() -> None:
    sampler = replaying()
    first, metrics = learnt(sampler, (P, 1.0), (Q, 0.0))
    assert prompts(first) == [[1, 10], [1, 10], [1, 11], [1, 11]]
    assert metrics == {
        "replay/groups": 1.0, "replay/group_share": 0.0, "replay/group_age/mean": 0.0, "replay/group_ratio/mean": 1.0
    }  # fmt: skip
    batch, metrics = learnt(sampler, (EASY[0], 2.0), (Q, 0.0), old=-3.0)
    assert prompts(batch) == [[1, 0], [1, 0], [1, 10], [1, 10]]
    assert batch.tokens.tolist() == [[1, 0, 5, 6], [1, 0, 7, PAD], [1, 10, 5, 6], [1, 10, 7, PAD]]
    assert batch.advantages.tolist() == [[0, 0, 2, 2], [0, 0, -2, 0], [0, 0, 1, 1], [0, 0, -1, 0]]
    assert batch.old_logprobs.tolist() == [[0, 0, -3, -3], [0, 0, -3, 0], [0, 0, -1.5, -1.5], [0, 0, -1.5, 0]]
    assert batch.engine_logprobs[2].tolist() == [0, 0, -1.75, -1.75]
    assert len(set(batch.group[:2].tolist())) == len(set(batch.group[2:].tolist())) == 1
    assert batch.group[0] != batch.group[2]
    assert batch.level.tolist() == [0, 0, 1, 1]  # easy; hard, which is Q's number in this step
    assert metrics == {
        "replay/groups": 2.0, "replay/group_share": 0.5, "replay/group_age/mean": 1.0,
        "replay/group_ratio/mean": pytest.approx(math.exp(0.5)),
    }  # fmt: skip


# Two tokens of ratio exp(-1 + 1.5) = 1.6487, or of exp(-1 + 2) = 2.718, which a cap of 2 bounds.
@pytest.mark.parametrize(("old", "weight"), [(-1.5, 1.6487213), (-2.0, 2.0), (-1.0, 1.0), (-0.5, 0.6065307)])
def test_with_a_cap_advantages_are_weighed_and_the_ratio_is_to_the_present_policy(old: float, weight: float) -> None:
    sampler = replaying(importance_cap=2.0)
    learnt(sampler, (P, 1.0), old=old)
    batch, _ = learnt(sampler, (Q, 0.0))
    assert batch.advantages[0].tolist() == pytest.approx([0, 0, weight, weight])
    assert batch.advantages[1].tolist() == pytest.approx([0, 0, -weight, 0])
    assert batch.old_logprobs.tolist() == [[0, 0, NOW, NOW], [0, 0, NOW, 0]]
    assert batch.engine_logprobs[0].tolist() == [0, 0, NOW - 0.25, NOW - 0.25]


def test_a_prefix_is_context_in_a_group_too() -> None:
    sampler = replaying()
    learnt(sampler, (State(P, (8, 9)), 1.0))
    batch, metrics = learnt(sampler, (Q, 0.0))
    assert batch.mask.tolist() == [[False] * 4 + [True, True], [False] * 4 + [True, False]]
    assert metrics["replay/group_ratio/mean"] == pytest.approx(math.exp(0.5))


# Of eight rows four are without signal; a stored group has two.
@pytest.mark.parametrize(("share", "rows"), [(0.0, 0), (0.2, 0), (0.25, 2), (0.49, 2), (0.5, 4), (1.0, 4)])
def test_at_most_a_share_of_the_rows_is_replaced_and_their_number_stays(share: float, rows: int) -> None:
    sampler = replaying(share=share)
    learnt(sampler, (P, 1.0), (Q, 1.0), (HARD[2], 1.0))
    step = ((EASY[0], 1.0), (EASY[1], 0.0), (EASY[2], 1.0), (HARD[3], 0.0))
    batch, metrics = learnt(sampler, *step)
    assert len(batch) == 8 and metrics["replay/group_share"] == rows / 8
    assert sum(prompt in ([1, 10], [1, 11], [1, 12]) for prompt in prompts(batch)) == rows
    assert [1, 0] in prompts(batch) and [1, 2] in prompts(batch)


def test_where_all_teach_or_nothing_is_stored_the_batch_is_as_it_was() -> None:
    sampler = replaying()
    for advantage in (0.0, 1.0, 1.0):
        rollouts = [wrote(P, 5, 6), wrote(P, 7)]
        batch = collate(rollouts, [[advantage] * 2, [-advantage]], PAD)
        batch = batch.with_(advantages=batch.rewards)
        sampler.observe([Judged(r, Feedback(0.0, Verdict.WRONG)) for r in rollouts], batch)
        assert sampler.experience(batch) is batch


def test_a_row_of_middle_score_belongs_to_its_group() -> None:
    sampler = replaying()
    rollouts = [wrote(P, 5), wrote(P, 6), wrote(P, 7)]
    batch = collate(rollouts, [[1.0], [0.0], [-1.0]], PAD)
    batch = batch.with_(advantages=batch.rewards)
    assert silent(batch).tolist() == [False] * 3
    sampler.observe([Judged(r, Feedback(0.0, Verdict.WRONG)) for r in rollouts], batch)
    assert [len(group.rows) for group in sampler._groups] == [3]


def test_the_latest_groups_are_kept() -> None:
    sampler = replaying(capacity=2)
    learnt(sampler, (P, 1.0), (Q, 0.0), (HARD[2], 1.0))
    learnt(sampler, (HARD[3], 1.0))
    assert [(group.problem_id, group.step) for group in sampler._groups] == [("hard2", 1), ("hard3", 2)]


@THROUGH
def test_a_resumed_sampler_goes_on_as_if_nothing_had_happened(through: Any) -> None:
    sampler, resumed = replaying(), replaying()
    for problem in (P, Q, HARD[2], EASY[0]):
        learnt(sampler, (problem, 1.0))
    resumed.load_state_dict(through(sampler.state_dict()))
    for _ in range(3):
        assert sampler.sample(8, 0.5) == resumed.sample(8, 0.5)
        (own, metrics), (other, others) = (learnt(each, (HARD[3], 1.0), (HARD[4], 0.0)) for each in (sampler, resumed))
        assert prompts(own) == prompts(other) and metrics == others
    assert str(plain(resumed.state_dict())) == str(plain(sampler.state_dict()))


class HalfTeach(Reward):
    """Pays the share of even tokens for responses to every other problem, and nothing for the others."""

    def __call__(self, judged: Judged) -> list[float]:
        actions = judged.rollout.actions
        teaches = judged.rollout.state.problem.prompt[1] % 2
        return [0.0] * (len(actions) - 1) + [teaches * sum(token % 2 == 0 for token in actions) / len(actions)]


def trainer(**changes: Any) -> Any:
    sampler = GroupReplay(level_weights=None, capacity=8, share=0.5, importance_cap=None)
    return make_trainer(sampler=sampler, objective=grpo(), reward=HalfTeach(), n=4, ppo_mini_batch_size=8, **changes)


def test_a_run_that_is_taken_up_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = history(trainer(), 2)
    assert whole[1][0]["replay/group_share"] > 0
    assert same(whole[1:], gone_on(trainer, tmp_path))


def test_a_replayed_group_costs_trained_tokens_and_no_generated_ones() -> None:
    made, joined = trainer(), list[Batch]()
    experience = made.sampler.experience
    made.sampler.experience = lambda batch: joined.append(experience(batch)) or joined[-1]
    made.step()
    before = made.tokens_generated, made.tokens_trained
    metrics = made.step()
    written = sum(len(each.rollout.actions) for each in made.last_rollouts)
    assert metrics["replay/group_share"] > 0
    assert made.tokens_generated - before[0] == written
    assert made.tokens_trained - before[1] == int(joined[-1].mask.sum()) != written  # once, in one pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"capacity": 0}, "capacity"), ({"share": 1.5}, "share"), ({"importance_cap": 0.0}, "importance_cap")],
)
def test_an_impossible_setting_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replaying(**changes)


def test_it_is_refused_under_an_objective_without_siblings_with_what_would_do() -> None:
    with pytest.raises(ConfigError) as refused:
        load("train", ["sampler=group_replay"])
    assert refused.value.faults == (
        "sampler: GroupReplay compares rollouts of one start, PPO does not; expected objective=grpo or rloo with "
        "trainer.n of 2 or more, as in 8, or another sampler, as in sampler=prompt_replay, by which problems come "
        "again",
    )
    with pytest.raises(ConfigError, match=r"trainer\.n: 1, but this objective compares rollouts of one start"):
        load("train", ["sampler=group_replay", "objective=grpo", "trainer.critic_warmup=0"])
    _, parts = load("train", ["sampler=group_replay", "objective=rloo", "trainer.critic_warmup=0", "trainer.n=2"])
    assert (parts.sampler.capacity, parts.sampler.share, parts.sampler.importance_cap) == (64, 0.5, None)
