"""Micro-batches by a budget of tokens: the loss and gradient of micro-batches by rows, with less padding."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from fixtures.trainer import gone_on, history, same
from fixtures.training import (
    acted,
    gradients,
    make_engine,
    make_policy,
    make_trainer,
    plain_descent,
    ppo,
    raw_batch,
    replay,
    settings,
    shaken,
)
from rrl.config.check import load
from rrl.errors import ConfigError
from rrl.processes.out_of_memory import lower
from rrl.training.loop import weigh
from rrl.training.policy import DeepSpeedPolicy
from rrl.training.trainer import Trainer
from rrl.types import Batch

LENGTHS = torch.tensor([3, 9, 5, 4, 4, 1])


def by_tokens(budget: int) -> Any:
    return settings(micro_batch_tokens=budget)


def test_rows_go_by_length_in_passes_of_little_padding_within_the_budget() -> None:
    order, sizes = by_tokens(16).passes(LENGTHS, 1)  # a pass counts as 2 tokens
    assert order.tolist() == [1, 2, 3, 4, 0, 5]
    assert sizes == [1, 1, 3, 1]  # 9; 5; 4, 4 and 3; 1: 27 cells and 4 passes make 35, any other split 36 or more
    assert by_tokens(20).passes(torch.tensor([4, 4, 4, 4, 4]), 1).sizes == [5]
    assert by_tokens(16).passes(torch.tensor([8, 2, 2, 2]), 1).sizes == [1, 3]
    assert by_tokens(16).passes(torch.tensor([9, 9]), 1).sizes == [1, 1]  # 18 cells in one pass would cost less


def test_every_process_makes_as_many_micro_batches_of_as_many_rows() -> None:
    order, sizes = by_tokens(16).passes(LENGTHS, 2)
    assert (order.tolist(), sizes) == ([1, 2, 3, 4, 0, 5], [1, 2])  # lengths 9; 4 and 3 beside 5; 4 and 1
    assert by_tokens(10).passes(torch.tensor([7]), 2).sizes == [1]


def test_a_row_beyond_the_budget_is_passed_alone() -> None:
    assert by_tokens(10).passes(torch.tensor([12, 30, 2, 2]), 1).sizes == [1, 1, 2]


def loss_and_gradient(policy: DeepSpeedPolicy, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    """Of one optimiser step on a weighed batch."""
    _, parts = policy.micro_batches(batch)
    assert sum(len(part) for part in parts) == len(batch)
    total, objective = 0.0, ppo(entropy_coef=0.1)
    for number, part in enumerate(parts, start=1):
        actor_loss, critic_loss, _ = objective.loss(part, policy(part))
        policy.backward(actor_loss, critic_loss, last=number == len(parts))
        total += float(actor_loss.detach() + critic_loss.detach())
    return total, gradients(policy)


@pytest.mark.parametrize("aggregate", ["token", "sequence"])
@pytest.mark.parametrize("budget", [10, 18, 1000])
def test_loss_and_gradient_are_those_of_micro_batches_by_rows(aggregate: Any, budget: int) -> None:
    plain, packed = shaken(make_policy(micro_batch_size=2)), shaken(make_policy(micro_batch_tokens=budget))
    batch = weigh(ppo().assign_credit(plain.annotate(raw_batch())), aggregate)
    (loss, gradient), (packed_loss, packed_gradient) = loss_and_gradient(plain, batch), loss_and_gradient(packed, batch)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert_close(packed_gradient, gradient, rtol=1e-4, atol=1e-6)
    assert max(float(each.abs().max()) for each in gradient.values()) > 0.01


@pytest.mark.parametrize("every", [1, 2])
def test_annotations_come_back_in_the_order_of_the_rows(every: int) -> None:
    plain, packed = (shaken(make_policy(reference=True, **c)) for c in ({}, {"micro_batch_tokens": 18}))
    batch, whole = packed.annotate(raw_batch(), every), plain.annotate(raw_batch(), every)
    for name in ("old_logprobs", "entropies", "ref_logprobs", "values"):
        assert_close(acted(batch, getattr(batch, name)), acted(whole, getattr(whole, name)), rtol=1e-4, atol=1e-5)


def trainer(**sizes: int) -> Trainer:
    """Rollouts of uneven lengths, half of them replayed."""
    changes = {"n": 2, "ppo_mini_batch_size": 8, "loss_agg_mode": "sequence"}
    engine = make_engine(stop=("1", "2", "3"))
    return make_trainer(sampler=replay(0.5), engine=engine, policy=plain_descent() | sizes, **changes)


@cache
def run(**sizes: int) -> tuple[list[Any], float]:
    """The history of two steps, and the padding of their updates."""
    made = trainer(**sizes)
    reported = history(made, 2)
    padding = made.costs()["perf/padding_frac"]
    assert made.costs()["perf/padding_frac"] == 0.0  # no update since
    return reported, padding


def test_a_run_is_the_same_to_rounding_with_less_padding() -> None:
    (expected, padding), (actual, less) = run(micro_batch_size=4), run(micro_batch_tokens=40)
    for (metrics, rollouts), (others, other_rollouts) in zip(expected[:-1], actual[:-1], strict=True):
        assert [each.rollout.actions for each in rollouts] == [each.rollout.actions for each in other_rollouts]
        assert others == pytest.approx(metrics, rel=1e-3, abs=1e-5)
    assert_close(actual[-1], expected[-1], rtol=1e-3, atol=1e-5)
    assert any(each.rollout.state.prefix for each in actual[1][1])
    assert 0 < 2 * less < padding < 0.5


def test_a_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    assert same(run(micro_batch_tokens=40)[0][1:], gone_on(lambda: trainer(micro_batch_tokens=40), tmp_path))


def test_a_budget_below_the_longest_row_is_refused_with_the_number_that_would_do() -> None:
    limits = ["micro_batch=tokens", "data.max_prompt_length=30", "data.max_response_length=18"]
    with pytest.raises(ConfigError) as caught:
        load("train", [*limits, "policy.micro_batch_tokens=47"])
    assert caught.value.faults == (
        "policy.micro_batch_tokens: expected at least 48, the longest row: data.max_prompt_length + "
        "data.max_response_length, got 47",
    )
    config, parts = load("train", [*limits, "policy.micro_batch_tokens=48"])
    assert parts.policy.rows_at_once(20) == 3 and "micro_batch_tokens" in config["policy"]


def test_the_key_is_found_and_memory_is_saved_by_it() -> None:
    with pytest.raises(ConfigError) as caught:
        load("train", ["policy.micro_batch_tokens=4096"])
    assert caught.value.faults == ("policy.micro_batch_tokens: no such key; it comes with micro_batch=tokens",)
    config, _ = load("train", ["micro_batch=tokens", "data.max_prompt_length=500", "data.max_response_length=500"])
    assert lower("update_actor", config, 1)["policy.micro_batch_tokens"] == "policy.micro_batch_tokens=4096"
    assert "policy.micro_batch_size" in lower("warm start", config, 1)
    config["policy"]["micro_batch_tokens"] = 1001
    assert lower("old_log_prob", config, 1)["policy.micro_batch_tokens"] == "policy.micro_batch_tokens=1000"
    config["policy"]["micro_batch_tokens"] = 1000
    assert not any("micro_batch" in key for key in lower("old_log_prob", config, 1))
