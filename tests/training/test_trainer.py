"""The loop: one step written out by hand, what must not matter to it, and weights."""

import copy
import math
import random
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cache
from itertools import islice
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from fixtures.trainer import history, noting, same
from fixtures.training import (
    TASK,
    EvenTokens,
    apart,
    by_hand,
    critic_of,
    evaluation,
    grpo,
    make_engine,
    make_trainer,
    networks,
    plain_descent,
    ppo,
    problems,
    raw_batch,
    replay,
    reward_kl,
    shake,
    tiny,
)
from rrl.collate import micro_batches
from rrl.errors import DivergenceError
from rrl.parts.engines.hf import HFEngine
from rrl.parts.samplers.problems import Problems
from rrl.training.loop import weigh
from rrl.training.trainer import Trainer
from rrl.types import State

AGGREGATES = pytest.mark.parametrize("aggregate", ["token", "sequence"])


# --- one step, written out by hand ------------------------------------------------------------------------------------


def descend_by_hand(trainer: Trainer, actor: Any, trunk: Any, head: Any, rate: float) -> None:
    """One PPO step on the trainer's last rollouts: a token at a time, on raw transformers models, without a kernel."""
    objective, temperature, reference = trainer.objective, trainer.engine.temperature, tiny()
    tokens, advantages, returns = [], [], []
    for judged in trainer.last_rollouts:
        rollout = judged.rollout
        row = [*rollout.state.problem.prompt, *rollout.state.prefix, *rollout.actions]
        facts = []
        for t in range(len(row) - len(rollout.actions), len(row)):
            before = torch.tensor([row[:t]])
            log_p = (actor(input_ids=before).logits[0, -1] / temperature).log_softmax(-1)
            log_r = (reference(input_ids=before).logits[0, -1] / temperature).log_softmax(-1)
            value = head(trunk(input_ids=before).last_hidden_state[0, -1])[0]
            facts.append((log_p, row[t], value, (log_p[row[t]] - log_r[row[t]]).item()))
        rewards, following, advantage, credit = trainer.reward(judged), 0.0, 0.0, []
        for (_, _, value, divergence), reward in reversed(list(zip(facts, rewards, strict=True))):
            delta = reward - objective.kl.price * divergence + objective.gamma * following - value.item()
            advantage = delta + objective.gamma * objective.gae_lambda * advantage
            following = value.item()
            credit.insert(0, advantage)
        tokens += facts
        advantages += credit
        returns += [a + f[2].item() for a, f in zip(credit, facts, strict=True)]
    mean = sum(advantages) / len(advantages)
    spread = math.sqrt(sum((a - mean) ** 2 for a in advantages) / len(advantages))
    loss = torch.tensor(0.0)
    for (log_p, token, value, _), advantage, target in zip(tokens, advantages, returns, strict=True):
        ratio, entropy = (log_p[token] - log_p[token].detach()).exp(), -(log_p.exp() * log_p).sum()
        loss = loss - ratio * (advantage - mean) / spread - objective.entropy_coef * entropy
        loss = loss + objective.vf_coef * (value - target) ** 2 / 2
    (loss / len(tokens)).backward()
    with torch.no_grad():
        for parameter in (*actor.parameters(), *trunk.parameters(), *head.parameters()):
            parameter -= rate * parameter.grad


@pytest.mark.parametrize("algo", ["ppo", "rrl"])
def test_a_step_is_the_one_written_out_by_hand(algo):
    sampler = replay(0.5) if algo == "rrl" else Problems(level_weights=None)
    objective = ppo(
        kl=reward_kl(0.3), entropy_coef=0.05, vf_coef=0.5, gamma=0.9, gae_lambda=0.8, advantage_norm="batch"
    )
    trainer = make_trainer(
        sampler=sampler, objective=objective, engine=make_engine(temperature=0.7), policy=plain_descent(0.05),
        ppo_epochs=1, ppo_mini_batch_size=8,
    )  # fmt: skip
    for number, network in enumerate(networks(trainer.policy)):
        shake(network, number)
    trainer.step()  # so that the second one has something to go back to
    actor, critic = copy.deepcopy(trainer.policy.actor.model), copy.deepcopy(critic_of(trainer.policy))
    trainer.step()
    assert any(each.rollout.state.prefix for each in trainer.last_rollouts) == (algo == "rrl")
    descend_by_hand(trainer, actor, critic.trunk, critic.head, 0.05)
    for ours, slow in zip(trainer.policy.actor.model.parameters(), actor.parameters(), strict=True):
        assert_close(ours, slow, rtol=1e-3, atol=2e-5)
    for ours, slow in zip(critic_of(trainer.policy).parameters(), critic.parameters(), strict=True):
        assert_close(ours, slow, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("sampler", [Problems(level_weights=None), replay(0.5)])
def test_a_step_reports_what_an_experienced_user_looks_for(sampler):
    metrics = make_trainer(sampler=sampler).step()
    wanted = "actor/pg_loss actor/ppo_kl actor/pg_clipfrac actor/entropy actor/grad_norm actor/lr critic/vf_loss "
    wanted += "critic/vf_explained_var critic/grad_norm critic/score/mean critic/rewards/mean critic/values/max "
    wanted += "response_length/clip_ratio training/rollout_probs_diff_mean explore/zero_signal_frac replay/ratio"
    assert set(wanted.split()) <= metrics.keys()
    assert all(math.isfinite(value) for value in metrics.values())


def test_the_policy_and_the_engine_agree_on_probabilities():
    trainer = make_trainer(engine=make_engine(temperature=0.7))
    assert [trainer.step()["training/rollout_probs_diff_max"] < 1e-5 for _ in range(2)] == [True, True]


class Hot(HFEngine):
    """Draws at another temperature than it was reported."""

    def generate(self, states, sampling=None, generator=None, written=None):
        return super().generate(states, replace(sampling or self.sampling, temperature=1.5), generator, written)


class Stale(HFEngine):
    """Writes with the weights that it saw first."""

    @contextmanager
    def _model(self):
        with super()._model() as live:
            self.first = getattr(self, "first", None) or copy.deepcopy(live)
            yield self.first


class Biased(HFEngine):
    """Adds up to 1 to a token's logit."""

    @contextmanager
    def _model(self):
        with super()._model() as live:
            other = copy.deepcopy(live)
            other.lm_head.register_forward_hook(lambda m, i, out: out + torch.linspace(0, 1, out.shape[-1]))
            yield other


def wrong(kind, **changes):
    """An engine of this kind."""
    return kind(**{f.name: getattr(make_engine(**changes), f.name) for f in fields(HFEngine) if f.init})


@pytest.mark.parametrize("kind", [Hot, Stale, Biased])
def test_an_engine_that_is_wrong_is_reported_once_or_stops_the_run_or_neither(kind, caplog):
    for action, steps, reported in (("warn", 3, 1), ("ignore", 2, 0)):
        trainer = make_trainer(engine=wrong(kind), on_mismatch=action)
        caplog.clear()
        assert max(trainer.step()["training/rollout_kl"] for _ in range(steps)) > 0.01
        messages = [m for m in caplog.messages if "trainer.mismatch_limit" in m and "on_mismatch" in m]
        assert len(messages) == reported
    trainer = make_trainer(engine=wrong(kind), on_mismatch="stop")
    with pytest.raises(DivergenceError, match=r"expected at most 0.01 \(trainer.mismatch_limit\)"):
        [trainer.step() for _ in range(3)]


@pytest.mark.parametrize("changes", [{}, {"dtype": "bfloat16"}, {"temperature": 0.7}, {"top_p": 0.8}, {"top_k": 5}])
def test_an_engine_that_is_right_up_to_rounding_raises_no_alarm(changes):
    trainer = make_trainer(engine=make_engine(**changes), on_mismatch="stop")
    assert all(trainer.step()["training/rollout_kl"] < 1e-3 for _ in range(2))


def test_the_limit_of_the_mismatch_is_a_key(caplog):
    make_trainer(engine=make_engine(dtype="bfloat16"), mismatch_limit=1e-6).step()
    assert "expected at most 1e-06" in caplog.text
    make_trainer(engine=wrong(Hot), mismatch_limit=10.0, on_mismatch="stop").step()


@pytest.mark.parametrize("name", ["training/rollout_probs_diff_mean", "training/rollout_kl"])
def test_either_measure_raises_the_alarm_and_so_does_what_is_no_number(name):
    for value in (0.02, math.nan, math.inf):
        trainer = make_trainer(on_mismatch="stop")
        fine = {"training/rollout_probs_diff_mean": 0.01, "training/rollout_kl": 0.01}
        trainer._tolerated(fine)
        with pytest.raises(DivergenceError) as caught:
            trainer._tolerated({**fine, name: value})
        assert caught.value.faults[0].startswith(f"{name} is {value:.3g}; expected at most 0.01 (trainer.mism")


def test_training_with_a_cap_is_the_same_where_the_engine_is_right_and_another_where_it_is_wrong():
    plain, capped = (
        history(make_trainer(objective=ppo(importance_cap=cap), policy=plain_descent()), 1) for cap in (None, 1.0)
    )
    assert_close(capped[-1], plain[-1], rtol=1e-3, atol=1e-5)
    off, on = (
        make_trainer(objective=ppo(importance_cap=cap), engine=wrong(Hot), on_mismatch="ignore") for cap in (None, 2.0)
    )
    before, after = off.step(), on.step()
    assert before["actor/pg_loss"] != after["actor/pg_loss"]
    assert after["actor/importance_mean"] == pytest.approx(1, abs=0.3) and "actor/importance_mean" not in before


def test_a_policy_that_is_paid_for_even_tokens_writes_more_of_them():
    sizes, quick = {"train_batch_size": 32, "ppo_mini_batch_size": 16}, {"micro_batch_size": 16}
    trainer = make_trainer(engine=make_engine(batch_size=32), policy=quick, total_training_steps=12, **sizes)
    even = [sum(EvenTokens()(judged)[-1] for judged in trainer.last_rollouts) / 32 for _ in islice(trainer.run(), 20)]
    assert even[0] < 0.55 and even[-1] > 0.75


# --- what must not matter ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [ppo(kl=reward_kl(0.05), advantage_norm="level"), grpo()])
def test_replay_with_share_zero_is_the_baseline_bit_for_bit(objective):
    shape = {"n": 2, "ppo_mini_batch_size": 8, "objective": copy.deepcopy(objective)}
    baseline = history(make_trainer(**shape | {"objective": copy.deepcopy(objective)}), 3)
    retrospective = make_trainer(sampler=replay(0.0), **shape)
    assert same(baseline, history(retrospective, 3))
    assert len(retrospective.sampler.buffer) > 0


@cache
def baseline():
    """Two steps from prompts alone."""
    return history(make_trainer(), 2)


@cache
def replayed():
    """Two steps, half of the second one's rollouts from states of the first."""
    return history(make_trainer(sampler=replay(0.5)), 2)


def test_replay_with_a_share_is_not_the_baseline():
    assert replayed()[1][0]["replay/ratio"] == 0.5
    assert not same(baseline(), replayed())


def test_evaluation_and_other_peoples_random_numbers_leave_training_as_it_was():
    disturbed = make_trainer(sampler=replay(0.5))

    def disturb():
        evaluation().measure(problems("test")[:3], TASK, disturbed.engine)
        disturbed.policy.inspect([State(problems()[0], (5, 6))])
        torch.rand(7)
        random.random()

    torch.manual_seed(1)
    assert same(history(disturbed, 2, between=disturb), replayed())


def test_saving_leaves_training_as_it_was(tmp_path):
    saved = make_trainer()
    assert same(baseline(), history(saved, 2, between=lambda: saved.policy.save(tmp_path)))


def test_the_seed_makes_the_run():
    again, other = (history(make_trainer(sampler=replay(0.5), seed=seed), 2) for seed in (0, 4))
    assert same(again, replayed())
    assert not same(other, replayed())


def test_the_seed_orders_the_mini_batches():
    first, second = make_trainer(), replace(make_trainer(), seed=99)  # engine and sampler keep theirs
    reported, other = history(first, 1), history(second, 1)
    assert reported[0][1] == other[0][1]
    assert apart(reported[1], other[1])


@cache
def in_micro_batches(size, aggregate):
    shape = {"ppo_mini_batch_size": 8, "loss_agg_mode": aggregate}
    return history(make_trainer(policy=plain_descent() | {"micro_batch_size": size}, **shape), 2)


@pytest.mark.parametrize(("size", "aggregate"), [(1, "token"), (3, "sequence"), (8, "token")])
def test_the_micro_batch_changes_nothing_beyond_rounding(size, aggregate):
    expected, actual = (in_micro_batches(m, aggregate) for m in (4, size))
    for (metrics, _), (others, _) in zip(actual[:-1], expected[:-1], strict=True):
        assert metrics == pytest.approx(others, rel=1e-3, abs=1e-5)
    assert all(torch.allclose(w, expected[-1][name], rtol=1e-3, atol=1e-5) for name, w in actual[-1].items())


# --- weights ----------------------------------------------------------------------------------------------------------


@AGGREGATES
@pytest.mark.parametrize("rows", [[0], [0, 1], [5, 2, 4], [0, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_weights_sum_to_one_over_a_mini_batch_however_it_is_split(aggregate, rows, size):
    batch = weigh(raw_batch().rows(torch.tensor(rows)), aggregate)
    assert float(sum(part.weight.sum() for part in micro_batches(batch, size))) == pytest.approx(1.0)
    assert not batch.weight[~batch.mask].any() and (batch.weight[batch.mask] > 0).all()


def test_every_token_weighs_the_same_under_token():
    weight = weigh(by_hand(["0100", "0111"]), "token").weight
    assert weight.tolist() == [[0.0, 0.25, 0.0, 0.0], [0.0, 0.25, 0.25, 0.25]]


def test_every_response_weighs_the_same_under_sequence():
    weight = weigh(by_hand(["0100", "0111"]), "sequence").weight
    assert_close(weight, torch.tensor([[0.0, 1 / 2, 0.0, 0.0], [0.0, 1 / 6, 1 / 6, 1 / 6]]))


@AGGREGATES
def test_the_trainer_weighs_each_mini_batch_by_its_own_tokens(aggregate):
    objective = noting()
    make_trainer(objective=objective, loss_agg_mode=aggregate, policy={"micro_batch_size": 4}).step()
    for batch in objective.batches:
        assert torch.equal(batch.weight, weigh(batch, aggregate).weight)
