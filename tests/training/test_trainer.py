"""The loop: one step written out by hand, what must not matter to it, what it leaves out, and where it ends."""

import copy
import math
import random
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from fixtures.training import (
    PAD,
    ROLLOUTS,
    TASK,
    EvenTokens,
    Failing,
    adaptive_kl,
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
    trainer_settings,
    weights,
)
from rrl.collate import micro_batches
from rrl.errors import DivergenceError
from rrl.interfaces import Reward
from rrl.parts.engines.hf import HFEngine
from rrl.parts.objectives.ppo import PPO
from rrl.parts.samplers.problems import Problems
from rrl.training.loop import weigh
from rrl.training.metrics import batch_metrics, exploration_metrics, rollout_metrics
from rrl.training.trainer import Trainer
from rrl.types import Batch, Feedback, Rollout, State, Verdict

AGGREGATES = pytest.mark.parametrize("aggregate", ["token", "sequence"])


@dataclass(kw_only=True)
class Watching(Problems):
    """Ordinary starts that remember what they were shown."""

    level_weights: dict[str, float] | None = None
    seen: list[tuple[list[Rollout], list[Feedback], Batch]] = field(default_factory=list)

    def observe(self, rollouts, feedback, batch):
        self.seen.append((list(rollouts), list(feedback), batch))
        return {}


@dataclass(kw_only=True)
class Noting(PPO):
    """PPO that remembers the batches it took a loss of."""

    batches: list[Batch] = field(default_factory=list)

    def loss(self, batch, output):
        self.batches.append(batch)
        return super().loss(batch, output)


@dataclass(frozen=True)
class Poisoned(Reward):
    """Pays so much on the rollouts of one problem that sums of it are no numbers any more."""

    problem: str

    def __call__(self, rollout: Rollout, feedback: Feedback) -> list[float]:
        pay = EvenTokens()(rollout, feedback)
        return [3e38] * len(pay) if rollout.state.problem.id == self.problem else pay


def noting(**changes: Any) -> Noting:
    """PPO as in the other tests, remembering."""
    plain = ppo(**changes)
    return Noting(**{name: getattr(plain, name) for name in PPO.__dataclass_fields__ if name != "_kl_coef"})


def history(trainer: Trainer, steps: int = 3, between: Any = lambda: None) -> list[Any]:
    """Metrics and rollouts of some steps, with ``between`` done after each, and the weights at the end."""
    told = []
    for _ in range(steps):
        told.append((trainer.step(), trainer.last_rollouts))
        between()
    return [*told, weights(trainer.policy)]


def same(first: list[Any], second: list[Any]) -> bool:
    """Whether two histories agree in every bit, as far as both have a metric."""
    for (metrics, rollouts), (others, other_rollouts) in zip(first[:-1], second[:-1], strict=True):
        shared = metrics.keys() & others.keys()
        if rollouts != other_rollouts or any(metrics[name] != others[name] for name in shared):
            return False
    return not apart(first[-1], second[-1])


# --- one step, written out by hand ------------------------------------------------------------------------------------


def descend_by_hand(trainer: Trainer, actor: Any, trunk: Any, head: Any, rate: float) -> None:
    """One PPO step on the trainer's last rollouts: a token at a time, on raw transformers models, without a kernel."""
    objective, temperature, reference = trainer.objective, trainer.engine.temperature, tiny()
    tokens, advantages, returns = [], [], []
    for rollout, feedback in trainer.last_rollouts:
        row = [*rollout.state.problem.prompt, *rollout.state.prefix, *rollout.actions]
        facts = []
        for t in range(len(row) - len(rollout.actions), len(row)):
            before = torch.tensor([row[:t]])
            log_p = (actor(input_ids=before).logits[0, -1] / temperature).log_softmax(-1)
            log_r = (reference(input_ids=before).logits[0, -1] / temperature).log_softmax(-1)
            value = head(trunk(input_ids=before).last_hidden_state[0, -1])[0]
            facts.append((log_p, row[t], value, (log_p[row[t]] - log_r[row[t]]).item()))
        rewards, following, advantage, credit = trainer.reward(rollout, feedback), 0.0, 0.0, []
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
    assert any(r.state.prefix for r, _ in trainer.last_rollouts) == (algo == "rrl")
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
    """Draws at another temperature than it was told."""

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
def test_an_engine_that_is_wrong_is_told_once_or_stops_the_run_or_neither(kind, caplog):
    for action, told in (("warn", 1), ("ignore", 0)):
        trainer = make_trainer(engine=wrong(kind), on_mismatch=action)
        caplog.clear()
        assert max(trainer.step()["training/rollout_kl"] for _ in range(3)) > 0.01
        messages = [m for m in caplog.messages if "trainer.mismatch_limit" in m and "on_mismatch" in m]
        assert len(messages) == told
    trainer = make_trainer(engine=wrong(kind), on_mismatch="stop")
    with pytest.raises(DivergenceError, match=r"expected at most 0.01 \(trainer.mismatch_limit\)"):
        [trainer.step() for _ in range(3)]


@pytest.mark.parametrize("changes", [{}, {"dtype": "bfloat16"}, {"temperature": 0.7}, {"top_p": 0.8}, {"top_k": 5}])
def test_an_engine_that_is_right_up_to_rounding_raises_no_alarm(changes):
    trainer = make_trainer(engine=make_engine(**changes), on_mismatch="stop")
    assert all(trainer.step()["training/rollout_kl"] < 1e-3 for _ in range(3))


def test_the_limit_of_the_mismatch_is_a_key(caplog):
    make_trainer(engine=make_engine(dtype="bfloat16"), mismatch_limit=1e-6).step()
    assert "expected at most 1e-06" in caplog.text
    make_trainer(engine=wrong(Hot), mismatch_limit=10.0, on_mismatch="stop").step()


@pytest.mark.parametrize("name", ["training/rollout_probs_diff_mean", "training/rollout_kl"])
def test_either_measure_raises_the_alarm_and_so_does_what_is_no_number(name):
    for value in (0.02, math.nan, math.inf):
        trainer = make_trainer(on_mismatch="stop")
        fine = {"training/rollout_probs_diff_mean": 0.01, "training/rollout_kl": 0.01}
        trainer._compare(fine)
        with pytest.raises(DivergenceError) as caught:
            trainer._compare({**fine, name: value})
        assert caught.value.faults[0].startswith(f"{name} is {value:.3g}; expected at most 0.01 (trainer.mism")


def test_training_with_a_cap_is_the_same_where_the_engine_is_right_and_another_where_it_is_wrong():
    plain, capped = (history(make_trainer(objective=ppo(importance_cap=cap)), 2) for cap in (None, 1.0))
    assert len(plain) == len(capped)
    off, on = (
        make_trainer(objective=ppo(importance_cap=cap), engine=wrong(Hot), on_mismatch="ignore") for cap in (None, 2.0)
    )
    before, after = off.step(), on.step()
    assert before["actor/pg_loss"] != after["actor/pg_loss"]
    assert after["actor/importance_mean"] == pytest.approx(1, abs=0.3) and "actor/importance_mean" not in before


def test_a_policy_that_is_paid_for_even_tokens_writes_more_of_them():
    trainer = make_trainer(train_batch_size=32, ppo_mini_batch_size=16, total_training_steps=12)
    even = [sum(EvenTokens()(*pair)[-1] for pair in trainer.last_rollouts) / 32 for _ in islice(trainer.run(), 20)]
    assert even[0] < 0.55 and even[-1] > 0.75


# --- what must not matter ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [ppo(kl=reward_kl(0.05), advantage_norm="level"), grpo()])
def test_replay_with_share_zero_is_the_baseline_bit_for_bit(objective):
    shape = {"n": 2, "ppo_mini_batch_size": 8, "objective": copy.deepcopy(objective)}
    baseline = history(make_trainer(**shape | {"objective": copy.deepcopy(objective)}), 4)
    retrospective = make_trainer(sampler=replay(0.0), **shape)
    assert same(baseline, history(retrospective, 4))
    assert len(retrospective.sampler.buffer) > 0


def test_replay_with_a_share_is_not_the_baseline():
    trainer = make_trainer(sampler=replay(0.5))
    told = history(trainer, 2)
    assert told[1][0]["replay/ratio"] == 0.5
    assert not same(history(make_trainer(), 2), told)


def test_evaluation_and_other_peoples_random_numbers_leave_training_as_it_was():
    disturbed = make_trainer(sampler=replay(0.5))

    def disturb():
        evaluation().measure(problems("test")[:3], TASK, disturbed.engine)
        disturbed.policy.inspect([State(problems()[0], (5, 6))])
        torch.rand(7)
        random.random()

    torch.manual_seed(1)
    told = history(disturbed, between=disturb)
    torch.manual_seed(2)
    assert same(told, history(make_trainer(sampler=replay(0.5))))


def test_saving_leaves_training_as_it_was(tmp_path):
    saved = make_trainer()
    assert same(history(make_trainer()), history(saved, between=lambda: saved.policy.save(tmp_path)))


def test_the_seed_makes_the_run():
    runs = [history(make_trainer(sampler=replay(0.5), seed=seed)) for seed in (3, 3, 4)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_the_seed_orders_the_mini_batches():
    first, second = make_trainer(), replace(make_trainer(), seed=99)  # engine and sampler keep theirs
    told, other = history(first, 1), history(second, 1)
    assert told[0][1] == other[0][1]
    assert apart(told[1], other[1])


@pytest.mark.parametrize("size", [1, 3, 8])
@AGGREGATES
def test_the_micro_batch_changes_nothing_beyond_rounding(size, aggregate):
    shape = {"n": 2, "ppo_mini_batch_size": 8, "loss_agg_mode": aggregate}
    expected, actual = (
        history(make_trainer(policy=plain_descent() | {"micro_batch_size": m}, **shape), 2) for m in (4, size)
    )
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


# --- passes over the batch --------------------------------------------------------------------------------------------


def test_every_epoch_sees_every_rollout_once_in_an_order_of_its_own():
    objective, sampler = noting(), Watching()
    trainer = make_trainer(objective=objective, sampler=sampler, ppo_epochs=3)
    trainer.step()
    rows = [tuple(row[row != PAD].tolist()) for batch in objective.batches for row in batch.tokens]
    written = Counter((*r.state.problem.prompt, *r.tokens) for r in sampler.seen[0][0])
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
    rollouts, _, batch = sampler.seen[0]
    assert len(rollouts) == len(batch) == 8
    assert {r.version for r in rollouts} == {0} and trainer.policy.version == 4
    assert batch.advantages.any() and not batch.values.any()  # credited, by a critic that has not learnt yet


def test_siblings_stand_together_and_make_a_group():
    sampler = Watching()
    make_trainer(sampler=sampler, train_batch_size=4, n=3, ppo_mini_batch_size=6).step()
    assert sampler.seen[0][2].group.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


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
    rollouts, feedback, batch = sampler.seen[0]
    assert rollouts == [r for i, (r, _) in enumerate(trainer.last_rollouts) if i % 3]
    assert len(feedback) == len(batch) == 5
    assert [len(b) for b in objective.batches] == [3, 2]  # mini-batches of at most four, none of a single rollout
    assert metrics["verdict/error"] == pytest.approx(3 / 8)


def test_truncated_responses_are_left_out_on_request():
    seen = {}
    for asked in (True, False):
        sampler = Watching()
        trainer = make_trainer(sampler=sampler, train_on_truncated=asked, train_batch_size=32)
        trainer.step()
        seen[asked] = sampler.seen[0][0]
    assert {r.finished for r in seen[True]} == {True, False}
    assert seen[False] == [r for r in seen[True] if r.finished] != []


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


# --- where it ends, and what it counts --------------------------------------------------------------------------------


def one_token(**changes: Any) -> Trainer:
    """A trainer whose every step generates exactly eight tokens."""
    return make_trainer(engine=make_engine(max_response_length=1), **changes)


def test_training_ends_with_the_step_that_reaches_the_token_budget():
    trainer, progress = one_token(total_training_steps=None, total_tokens=20), []
    for metrics in islice(trainer.run(), 20):
        progress.append((metrics["budget/tokens_generated"], trainer.progress))
    assert progress == [(8.0, 0.4), (16.0, 0.8), (24.0, 1.0)]


@pytest.mark.parametrize(("steps", "tokens", "expected"), [(2, None, 2), (2, 10**6, 2), (9, 17, 3), (9, 16, 2)])
def test_training_ends_at_whichever_limit_comes_first(steps, tokens, expected):
    trainer = one_token(total_training_steps=steps, total_tokens=tokens)
    assert [m["training/global_step"] for m in islice(trainer.run(), 20)] == [float(i + 1) for i in range(expected)]


def test_the_sampler_is_told_the_progress():
    trainer, told = one_token(total_training_steps=4), []
    sample = trainer.sampler.sample
    trainer.sampler.sample = lambda count, progress: told.append(progress) or sample(count, progress)
    list(islice(trainer.run(), 20))
    assert told == [0.0, 0.25, 0.5, 0.75]


def test_trained_tokens_are_the_actions_of_every_epoch():
    trainer = make_trainer(ppo_epochs=3, total_training_steps=2, sampler=replay(0.5))
    generated, trained = 0, []
    for metrics in islice(trainer.run(), 20):
        generated += sum(len(r.actions) for r, _ in trainer.last_rollouts)
        trained.append((metrics["budget/tokens_generated"], metrics["budget/tokens_trained"]))
    assert trained[-1] == (generated, 3 * generated)


def test_tokens_left_out_are_generated_but_not_trained_on():
    task = Failing(**vars(TASK))
    trainer = one_token(task=task, ppo_epochs=1)
    trainer.step()
    assert (trainer.tokens_generated, trainer.tokens_trained) == (8, 5)


def test_the_loop_goes_on_where_it_was_saved():
    still = {"policy": {"actor_lr": 0.0, "critic_lr": 0.0}, "sampler": replay(0.5), "total_training_steps": 9}
    first = make_trainer(**still)
    history(first, 2)
    second = make_trainer(**still | {"sampler": replay(0.5)})
    for part in ("sampler", "engine", "objective"):
        getattr(second, part).load_state_dict(getattr(first, part).state_dict())
    second.load_state_dict(first.state_dict())
    second.policy.version = first.policy.version
    assert (second.progress, second.tokens_trained) == (2 / 9, first.tokens_trained)
    assert same(history(first, 2), history(second, 2))
    assert first.state_dict()["solves"] == second.state_dict()["solves"] != {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_batch_size": 0}, r"^train_batch_size: .*0"),
        ({"n": 0}, r"^n: .*0"),
        ({"ppo_epochs": 0}, r"^ppo_epochs: .*0"),
        ({"ppo_mini_batch_size": 3}, r"^ppo_mini_batch_size: .*= 8, got 3"),
        ({"critic_warmup": -1}, r"^critic_warmup: .*-1"),
        ({"total_training_steps": None}, r"^total_training_steps, total_tokens: .*neither"),
    ],
)
def test_settings_refuse_what_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        trainer_settings(**changes)


# --- metrics ----------------------------------------------------------------------------------------------------------

# ROLLOUTS by place: easy fresh, hard replayed, easy replayed and cut off, hard fresh, easy replayed, hard fresh.
SCORES = (1.0, 1.0, 0.0, 0.0, 1.0, 0.5)
FEEDBACK = [Feedback(s, Verdict.RIGHT if s == 1 else Verdict.WRONG) for s in SCORES]


def test_the_realised_mixture_is_reported_by_level():
    metrics = rollout_metrics([ROLLOUTS[i] for i in (0, 1, 2, 4)], [FEEDBACK[i] for i in (0, 1, 2, 4)])
    assert (metrics["data/level_share/easy"], metrics["data/level_share/hard"]) == (0.75, 0.25)


def test_scores_of_fresh_and_replayed_starts_are_kept_apart():
    metrics = rollout_metrics(ROLLOUTS, FEEDBACK)
    assert metrics["critic/score/fresh/mean"] == pytest.approx(1.5 / 3)
    assert metrics["critic/score/replayed/mean"] == pytest.approx(2 / 3)
    assert metrics["replay/gain_vs_fresh"] == pytest.approx(2 / 3 - 1.5 / 3)
    assert metrics["replay/ratio"] == 0.5
    levels = [metrics[f"data/level_score/{name}"] for name in ("easy/fresh", "easy/replayed", "hard/fresh")]
    assert levels == [1.0, 0.5, 0.25]


def test_lengths_and_verdicts_are_counted():
    metrics = rollout_metrics(ROLLOUTS, FEEDBACK)
    assert metrics["response_length/mean"] == pytest.approx((4 + 3 + 4 + 3 + 6 + 1) / 6)  # prefixes included
    assert (metrics["prompt_length/min"], metrics["prompt_length/max"]) == (2.0, 5.0)
    assert metrics["response_length/clip_ratio"] == pytest.approx(1 / 6)
    assert (metrics["verdict/right"], metrics["verdict/wrong"], metrics["verdict/error"]) == (0.5, 0.5, 0.0)
    assert (metrics["critic/score/mean"], metrics["critic/score/min"]) == (pytest.approx(3.5 / 6), 0.0)


def test_exploration_counts_problems_never_and_once_solved():
    metrics = exploration_metrics([0, 0, 0, 1, 2, 1, 9, 0])
    assert metrics == {"explore/unsolved_frac": 0.5, "explore/solved_once_frac": 0.25}


def test_responses_without_any_advantage_are_counted_as_silent():
    batch = by_hand(["011"] * 3, advantages=[[9.0, 0.0, 0.5], [9.0, 0.0, 0.0], [9.0, -0.5, 0.5]])
    assert batch_metrics(batch, torch.zeros(3, 3))["explore/zero_signal_frac"] == pytest.approx(1 / 3)


def test_batch_metrics_by_hand():
    batch = by_hand(
        ["011", "010"], rewards=[[9.0, 1.0, 2.0], [9.0, 6.0, 9.0]], advantages=[[0.0, 0.5, 0.0], [0.0, 0.0, 0.0]],
        returns=[[9.0, 1.0, 2.0], [9.0, 3.0, 9.0]], values=[[9.0, 1.0, 1.0], [9.0, 1.0, 9.0]],
        old_logprobs=[[9.0, math.log(0.5), math.log(0.2)], [9.0, 0.0, 9.0]],
        ref_logprobs=[[-9.0, math.log(0.25), math.log(0.2)], [-9.0, 0.0, -9.0]],
    )  # fmt: skip
    metrics = batch_metrics(batch, torch.tensor([[0.0, math.log(0.5), math.log(0.5)], [0.0, 0.0, 0.0]]))
    assert [metrics[f"critic/rewards/{x}"] for x in ("mean", "max", "min")] == [3.0, 6.0, 1.0]
    assert metrics["critic/vf_explained_var"] == pytest.approx(0.0)  # a constant explains nothing
    assert metrics["explore/zero_signal_frac"] == 0.5
    assert metrics["training/rollout_probs_diff_max"] == pytest.approx(0.3)
    assert metrics["training/rollout_probs_diff_mean"] == pytest.approx(0.1)
    assert metrics["actor/ref_kl"] == pytest.approx(math.log(2) / 3)


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_the_coefficient_of_the_kl_is_told_as_it_is_however_many_micro_batches_there_are(rows: int) -> None:
    adaptive = ppo(kl=adaptive_kl(0.05, 0.01, 100))
    trainer = make_trainer(objective=adaptive, policy={"micro_batch_size": rows})
    metrics = trainer.step()
    assert metrics["actor/kl_coef"] == pytest.approx(adaptive.kl.price)
