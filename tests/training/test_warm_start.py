"""Supervised fine-tuning: what the loss is of, that it is learnt, and what must not matter."""

import math
import random
from itertools import islice
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from fixtures.training import BOS, EOS, TASK, problem, problems, slow_distribution, tiny, tokenizer
from rrl.errors import DataError
from rrl.training.warm_start import WarmStart, reference_loss
from rrl.types import Problem

ROWS = (
    problem((BOS, 20, 31), (5, 6, EOS)),
    problem((BOS, 20, 25, 33, 31), (9, EOS)),
    problem((BOS,), (4, 4, 4, 4, EOS)),
)


def warm_start(**changes: Any) -> WarmStart:
    """A few steps of six demonstrations."""
    return WarmStart(**{"steps": 4, "batch_size": 6, "lr": 1e-3, "lr_warmup_steps": 0, "start_seed": 0} | changes)


def trained(
    settings: WarmStart, rows: tuple[Problem, ...] | None = None, at_once: int = 3
) -> tuple[Any, list[tuple[float, float]]]:
    """A tiny model after training and what was shown meanwhile: progress and loss."""
    model, shown = tiny(), []
    settings.train(
        model, tokenizer(), problems() if rows is None else rows, at_once,
        lambda progress, metrics: shown.append((progress, metrics["loss"])),
    )  # fmt: skip
    return model, shown


def slow_loss(model: Any, rows: tuple[Problem, ...]) -> float:
    """Negative log-likelihood of every reference token, one at a time."""
    nats = 0.0
    for row in rows:
        whole = row.prompt + row.reference
        for t in range(len(row.prompt), len(whole)):
            nats -= math.log(slow_distribution(model, whole[:t])[whole[t]])
    return nats


def test_the_loss_is_that_of_the_reference_given_its_prompt_one_token_at_a_time():
    assert reference_loss(tiny(), tokenizer(), ROWS).item() == pytest.approx(slow_loss(tiny(), ROWS), rel=1e-5)


def test_the_end_token_is_learnt_too():
    bare = reference_loss(tiny(), tokenizer(), [problem((BOS, 20, 31), (5, 6))]).item()
    end = -math.log(slow_distribution(tiny(), (BOS, 20, 31, 5, 6))[EOS])
    assert reference_loss(tiny(), tokenizer(), ROWS[:1]).item() == pytest.approx(bare + end, rel=1e-5)
    assert all(p.reference[-1] == EOS for p in problems())


def test_the_prompt_is_context():
    losses = [reference_loss(tiny(), tokenizer(), [problem((BOS, x, 31), (5, EOS))]).item() for x in (20, 21)]
    assert abs(losses[0] - losses[1]) > 1e-3


def test_longer_rows_beside_it_change_no_rows_loss():
    alone = [reference_loss(tiny(), tokenizer(), [row]).item() for row in ROWS]
    assert reference_loss(tiny(), tokenizer(), ROWS).item() == pytest.approx(sum(alone), rel=1e-5)


def test_the_shown_loss_is_the_mean_over_reference_tokens():
    _, shown = trained(warm_start(batch_size=3, steps=1), ROWS, at_once=2)
    assert shown == [(1, pytest.approx(slow_loss(tiny(), ROWS) / 10, rel=1e-4))]


def test_it_learns():
    model, shown = trained(warm_start(steps=60, lr=1e-2), ROWS)
    assert [progress for progress, _ in shown] == pytest.approx([step / 60 for step in range(1, 61)])
    assert shown[0][1] > 3 and shown[-1][1] < 0.3
    prompt, reference = ROWS[0].prompt, ROWS[0].reference
    written = model.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)[0, 3:]
    assert tuple(written.tolist()) == reference


@pytest.mark.parametrize("size", [1, 4, 6])
def test_the_micro_batch_does_not_matter(size):
    (ours, shown), (theirs, expected) = (trained(warm_start(), at_once=m) for m in (size, 3))
    assert [loss for _, loss in shown] == pytest.approx([loss for _, loss in expected], rel=1e-4)
    assert all(torch.allclose(a, b, atol=2e-4) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_the_seed_alone_orders_the_demonstrations():
    def losses(seed):
        torch.rand(3)
        random.random()
        return trained(warm_start(start_seed=seed))[1]

    assert losses(1) == losses(1) != losses(2)


def test_no_demonstration_comes_again_before_all_had_their_turn():
    order = list(islice(warm_start()._order(5), 15))
    epochs = [order[i : i + 5] for i in (0, 5, 10)]
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2, 3, 4]] * 3
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_the_learning_rate_rises_over_the_warm_up():
    # AdamW's first step moves every weight that has a gradient by the learning rate: here a quarter of it.
    model, _ = trained(warm_start(steps=1, lr=1e-3, lr_warmup_steps=3))
    moved = max((a - b).abs().max().item() for a, b in zip(model.parameters(), tiny().parameters(), strict=True))
    assert moved == pytest.approx(0.25e-3, rel=0.02)


def test_gradients_are_clipped_to_norm_1():
    norms = []

    def note(optimiser, *_):
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in optimiser.param_groups[0]["params"]])))

    handle = register_optimizer_step_pre_hook(note)
    trained(warm_start())
    handle.remove()
    assert max(norms) == pytest.approx(1, rel=1e-4)


def test_gradients_do_not_outlive_their_step():
    model, _ = trained(warm_start())
    assert all(p.grad is None for p in model.parameters())


def test_problems_without_a_reference_are_passed_over():
    empty = problem((BOS, 20, 31), ())
    assert trained(warm_start(), (ROWS[0], empty))[1] == trained(warm_start(), ROWS[:1])[1]


def test_a_task_without_references_is_refused():
    with pytest.raises(DataError, match="warmstart=none"):
        trained(warm_start(), (problem((BOS, 20, 31), ()),))


def test_as_many_demonstrations_are_drawn_as_are_used():
    settings = warm_start()
    assert settings.count == 24
    assert len(TASK.demonstrations(settings.count, settings.start_seed)) == 24


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("batch_size", 0), ("lr", 0.0), ("lr_warmup_steps", -1)])
def test_settings_refuse_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"^{name}: .*{value}"):
        warm_start(**{name: value})
