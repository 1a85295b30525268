"""How the trainer passes over a batch, and what it leaves out."""

import copy
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
import torch

from fixtures.trainer import Failing, noting
from fixtures.training import PAD, TASK, EvenTokens, apart, grpo, make_trainer, ppo, weights
from rrl.errors import DivergenceError
from rrl.interfaces import Reward
from rrl.parts.samplers.problems import Problems
from rrl.types import Batch, Judged


@dataclass(kw_only=True)
class Watching(Problems):
    """Ordinary starts that remember what they were shown."""

    level_weights: dict[str, float] | None = None
    seen: list[tuple[list[Judged], Batch]] = field(default_factory=list)

    def observe(self, judged, batch):
        self.seen.append((list(judged), batch))
        return {}


@dataclass(frozen=True)
class Poisoned(Reward):
    """Pays so much on the rollouts of one problem that sums of it are no numbers any more."""

    problem: str

    def __call__(self, judged: Judged) -> list[float]:
        pay = EvenTokens()(judged)
        return [3e38] * len(pay) if judged.rollout.state.problem.id == self.problem else pay


# --- passes over the batch --------------------------------------------------------------------------------------------


def test_every_epoch_sees_every_rollout_once_in_an_order_of_its_own():
    objective, sampler = noting(), Watching()
    trainer = make_trainer(objective=objective, sampler=sampler, ppo_epochs=3)
    trainer.step()
    rows = [tuple(row[row != PAD].tolist()) for batch in objective.batches for row in batch.tokens]
    written = Counter((*each.rollout.state.problem.prompt, *each.rollout.tokens) for each in sampler.seen[0][0])
    epochs = [rows[i : i + 8] for i in (0, 8, 16)]
    assert [Counter(epoch) for epoch in epochs] == [written] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert trainer.policy.version == 6


def test_metrics_of_the_update_are_means_over_mini_batches():
    objective = noting(entropy_coef=0.01)
    metrics = make_trainer(objective=objective, policy={"actor_lr": 0.0, "critic_lr": 0.0}, ppo_epochs=1).step()
    policy = make_trainer(objective=ppo()).policy
    means = [float((policy(b).entropy * b.weight).sum().detach()) for b in objective.batches]
    assert metrics["actor/entropy"] == pytest.approx(sum(means) / 2, rel=1e-4) and len(means) == 2
    assert metrics["actor/lr"] == 0.0 < metrics["actor/grad_norm"]


def test_states_are_observed_before_the_policy_moves():
    sampler = Watching()
    trainer = make_trainer(sampler=sampler)
    trainer.step()
    judged, batch = sampler.seen[0]
    assert len(judged) == len(batch) == 8
    assert {each.rollout.version for each in judged} == {0} and trainer.policy.version == 2
    assert batch.advantages.any() and not batch.values.any()  # credited, by a critic that has not learnt yet


def test_siblings_stand_together_and_make_a_group():
    sampler = Watching()
    make_trainer(sampler=sampler, train_batch_size=4, n=3, ppo_mini_batch_size=6).step()
    assert sampler.seen[0][1].group.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("critic", ["own", "shared"])
def test_only_the_critic_learns_in_the_first_steps(critic):
    trainer, moved = make_trainer(critic_warmup=2, policy={"critic": critic}), []
    for _ in range(3):
        before = weights(trainer.policy)
        trainer.step()
        moved.append(apart(before, weights(trainer.policy)))
    assert ["0.model.lm_head.weight" in names for names in moved] == [False, False, True]
    assert all(any("head.bias" in name for name in names) for names in moved)


def test_without_a_critic_nothing_waits_for_it():
    trainer = make_trainer(objective=grpo(), critic_warmup=2, n=2)
    before = weights(trainer.policy)
    trainer.step()
    assert "0.model.lm_head.weight" in apart(before, weights(trainer.policy))


# --- what is left out -------------------------------------------------------------------------------------------------


def test_rollouts_that_the_verifier_failed_on_are_left_out():
    sampler, objective = Watching(), noting()
    task = Failing(**vars(TASK))
    trainer = make_trainer(sampler=sampler, task=task, objective=objective, ppo_epochs=1)
    metrics = trainer.step()
    judged, batch = sampler.seen[0]
    assert judged == [each for i, each in enumerate(trainer.last_rollouts) if i % 3]
    assert len(judged) == len(batch) == 5
    assert [len(b) for b in objective.batches] == [3, 2]  # mini-batches of at most four, none of a single rollout
    assert metrics["verdict/error"] == pytest.approx(3 / 8)


def test_truncated_responses_are_left_out_on_request():
    seen = {}
    for asked in (True, False):
        sampler = Watching()
        trainer = make_trainer(sampler=sampler, train_on_truncated=asked, train_batch_size=32)
        trainer.step()
        seen[asked] = sampler.seen[0][0]
    assert {each.rollout.finished for each in seen[True]} == {True, False}
    assert seen[False] == [each for each in seen[True] if each.rollout.finished] != []


def test_a_step_with_nothing_to_train_on_stops_and_says_why():
    trainer = make_trainer(train_on_truncated=False)
    generate = trainer.engine.generate
    trainer.engine.generate = lambda states, **named: [replace(r, finished=False) for r in generate(states, **named)]
    with pytest.raises(DivergenceError, match=r"step 1: no rollout to train on: all 8 .*max_response_length"):
        list(trainer.run())


def test_a_number_that_is_not_finite_names_step_and_mini_batch():
    trainer = make_trainer(objective=ppo(), ppo_epochs=1, total_training_steps=5)
    trainer.step()
    trainer.step()
    order = torch.randperm(8, generator=copy.deepcopy(trainer._generator))
    culprit = copy.deepcopy(trainer.sampler).sample(8, 0.0)[5].problem.id
    trainer.reward = Poisoned(culprit)
    with pytest.raises(DivergenceError, match=f"step 3: mini-batch {1 + order.tolist().index(5) // 4}: loss: "):
        list(trainer.run())
    assert all(w.isfinite().all() for w in weights(trainer.policy).values())


def test_a_first_mini_batch_that_is_not_finite_leaves_every_weight():
    trainer = make_trainer()  # whitening spreads one bad number over the batch
    before = weights(trainer.policy)
    trainer.reward = Poisoned(copy.deepcopy(trainer.sampler).sample(8, 0.0)[0].problem.id)
    with pytest.raises(DivergenceError, match="step 1: mini-batch 1: loss: actor nan, critic "):
        list(trainer.run())
    assert apart(before, weights(trainer.policy)) == set()
