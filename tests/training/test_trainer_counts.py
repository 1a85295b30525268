"""Where training ends, what it counts, and its metrics."""

import math
from collections import Counter
from itertools import islice
from typing import Any

import pytest
import torch

from fixtures.trainer import EVEN, Failing, history, same
from fixtures.training import (
    ROLLOUTS,
    TASK,
    adaptive_kl,
    by_hand,
    make_engine,
    make_trainer,
    ppo,
    replay,
    trainer_settings,
)
from rrl.training.metrics import batch_metrics, exploration_metrics, mismatch_metrics, rollout_metrics
from rrl.training.trainer import Trainer
from rrl.types import Feedback, Judged, Verdict

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


def test_the_sampler_receives_the_progress():
    trainer, reported = one_token(total_training_steps=4), []
    sample = trainer.sampler.sample
    trainer.sampler.sample = lambda count, progress: reported.append(progress) or sample(count, progress)
    list(islice(trainer.run(), 20))
    assert reported == [0.0, 0.25, 0.5, 0.75]


def test_trained_tokens_are_the_actions_of_every_epoch():
    trainer = make_trainer(ppo_epochs=3, total_training_steps=2, sampler=replay(0.5))
    generated, trained = 0, []
    for metrics in islice(trainer.run(), 20):
        generated += sum(len(each.rollout.actions) for each in trainer.last_rollouts)
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
JUDGED = list(map(Judged, ROLLOUTS, FEEDBACK))


def test_the_realised_mixture_is_reported_by_level():
    metrics = rollout_metrics([JUDGED[i] for i in (0, 1, 2, 4)])
    assert (metrics["data/level_share/easy"], metrics["data/level_share/hard"]) == (0.75, 0.25)


def test_scores_of_fresh_and_replayed_starts_are_kept_apart():
    metrics = rollout_metrics(JUDGED)
    assert metrics["critic/score/fresh/mean"] == pytest.approx(1.5 / 3)
    assert metrics["critic/score/replayed/mean"] == pytest.approx(2 / 3)
    assert metrics["replay/gain_vs_fresh"] == pytest.approx(2 / 3 - 1.5 / 3)
    assert metrics["replay/ratio"] == 0.5
    levels = [metrics[f"data/level_score/{name}"] for name in ("easy/fresh", "easy/replayed", "hard/fresh")]
    assert levels == [1.0, 0.5, 0.25]


def test_lengths_and_verdicts_are_counted():
    metrics = rollout_metrics(JUDGED)
    assert metrics["response_length/mean"] == pytest.approx((4 + 3 + 4 + 3 + 6 + 1) / 6)  # prefixes included
    assert (metrics["prompt_length/min"], metrics["prompt_length/max"]) == (2.0, 5.0)
    assert metrics["response_length/clip_ratio"] == pytest.approx(1 / 6)
    assert (metrics["verdict/right"], metrics["verdict/wrong"], metrics["verdict/error"]) == (0.5, 0.5, 0.0)
    assert (metrics["critic/score/mean"], metrics["critic/score/min"]) == (pytest.approx(3.5 / 6), 0.0)


def test_exploration_counts_problems_never_and_once_solved():
    metrics = exploration_metrics(Counter([0, 0, 0, 1, 2, 1, 9, 0]))
    assert metrics == {"explore/unsolved_frac": 0.5, "explore/solved_once_frac": 0.25}


def test_exploration_of_a_run_is_that_of_all_problems_tried_so_far():
    trainer = make_trainer(task=EVEN, sampler=replay(0.5), total_training_steps=4, n=2)
    *_, metrics = trainer.run()
    solves = list(trainer.state_dict()["solves"].values())
    assert set(solves) >= {0, 1, 2}
    assert metrics["explore/unsolved_frac"] == solves.count(0) / len(solves)
    assert metrics["explore/solved_once_frac"] == solves.count(1) / len(solves)


def test_responses_without_any_advantage_are_counted_as_silent():
    batch = by_hand(["011"] * 3, advantages=[[9.0, 0.0, 0.5], [9.0, 0.0, 0.0], [9.0, -0.5, 0.5]])
    assert batch_metrics(batch)["explore/zero_signal_frac"] == pytest.approx(1 / 3)


def test_batch_metrics_by_hand():
    batch = by_hand(
        ["011", "010"], rewards=[[9.0, 1.0, 2.0], [9.0, 6.0, 9.0]], advantages=[[0.0, 0.5, 0.0], [0.0, 0.0, 0.0]],
        returns=[[9.0, 1.0, 2.0], [9.0, 3.0, 9.0]], values=[[9.0, 1.0, 1.0], [9.0, 1.0, 9.0]],
        old_logprobs=[[9.0, math.log(0.5), math.log(0.2)], [9.0, 0.0, 9.0]],
        ref_logprobs=[[-9.0, math.log(0.25), math.log(0.2)], [-9.0, 0.0, -9.0]],
    )  # fmt: skip
    batch = batch.with_(engine_logprobs=torch.tensor([[0.0, math.log(0.5), math.log(0.5)], [0.0, 0.0, 0.0]]))
    metrics = batch_metrics(batch) | mismatch_metrics(batch, torch.tensor([True, True]))
    assert [metrics[f"critic/rewards/{x}"] for x in ("mean", "max", "min")] == [3.0, 6.0, 1.0]
    assert metrics["critic/vf_explained_var"] == pytest.approx(0.0)  # a constant explains nothing
    assert metrics["explore/zero_signal_frac"] == 0.5
    assert metrics["training/rollout_probs_diff_max"] == pytest.approx(0.3)
    assert metrics["training/rollout_probs_diff_mean"] == pytest.approx(0.1)
    first, second = (mismatch_metrics(batch, torch.tensor(rows)) for rows in ([True, False], [False, True]))
    assert first["training/rollout_probs_diff_mean"] == pytest.approx(0.15)
    assert second["training/rollout_probs_diff_max"] == second["training/rollout_kl"] == 0.0
    assert metrics["actor/ref_kl"] == pytest.approx(math.log(2) / 3)


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_the_coefficient_of_the_kl_is_reported_as_it_is_however_many_micro_batches_there_are(rows: int) -> None:
    adaptive = ppo(kl=adaptive_kl(0.05, 0.01, 100))
    trainer = make_trainer(objective=adaptive, policy={"micro_batch_size": rows})
    metrics = trainer.step()
    assert metrics["actor/kl_coef"] == pytest.approx(adaptive.kl.price)
