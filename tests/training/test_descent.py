"""Gradient descent: steps of AdamW worked by hand, the rise of the learning rate, clipping, losses that are none."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rrl.errors import DivergenceError
from rrl.training.descent import descend


class Line(nn.Module):
    """One number."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(at))


def walk(line: Line, batches: Sequence[Sequence[float]], **changes: Any) -> Iterator[float]:
    """Descend on slopes: the losses of a batch are so many times x."""
    settings = {"lr": 0.1, "full_at": 1, "weight_decay": 0.0, "grad_clip": 0.0, "key": "warmstart"} | changes
    return descend(line, ((slope * line.x for slope in slopes) for slopes in batches), **settings)


def after(batches: Sequence[Sequence[float]], **changes: Any) -> float:
    line = Line(1.0)
    list(walk(line, batches, **changes))
    return line.x.item()


def test_a_batchs_loss_is_the_sum_of_its_micro_batches() -> None:
    losses = walk(Line(1.0), [[2.0, 3.0], [4.0]])
    assert next(losses) == 5.0
    assert next(losses) == pytest.approx(4 * 0.9)  # AdamW's first step is one learning rate against the slope


def test_micro_batches_make_one_step() -> None:
    assert after([[2.0, 3.0]]) == after([[5.0]]) == pytest.approx(0.9)


def test_gradients_of_one_step_do_not_reach_the_next() -> None:
    # With slopes 1 and -1 the second step's moment is (0.9 * 0.1 - 0.1) / (1 - 0.9 ** 2) = -1 / 19, its scale 1.
    assert after([[1.0], [-1.0]]) == pytest.approx(0.9 + 0.1 / 19, abs=1e-6)


def test_the_learning_rate_rises_to_its_step_and_stays() -> None:
    # A slope that stays the same moves x by the whole learning rate each step: 1/4 + 2/4 + 3/4 + 1 + 1 of 0.1.
    assert after([[1.0]] * 5, full_at=4) == pytest.approx(1 - 0.35, abs=1e-6)
    assert after([[1.0]] * 2, full_at=2.5) == pytest.approx(1 - 0.1 * (1 / 2.5 + 2 / 2.5), abs=1e-6)


def test_weight_decay_draws_towards_zero_by_the_learning_rate() -> None:
    assert after([[0.0]], weight_decay=0.5) == pytest.approx(1 - 0.1 * 0.5)


@pytest.mark.parametrize(("clip", "expected"), [(0.5, [0.5, 0.25]), (0.0, [5.0, 0.25])])
def test_gradients_are_clipped_to_the_norm_unless_it_is_zero(
    clip: float, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, line, step = list[float](), Line(1.0), torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *given: Any) -> Any:
        seen.append(float(line.x.grad))  # type: ignore[arg-type]
        return step(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    list(walk(line, [[5.0], [0.25]], grad_clip=clip))
    assert seen == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_it_before_the_step(value: float) -> None:
    line = Line(1.0)
    reported = rf"warmstart\.lr: 0\.1, but the loss of step 2 is {value}; expected a finite number; lower it"
    with pytest.raises(DivergenceError, match=reported):
        list(walk(line, [[1.0], [value]]))
    assert line.x.item() == pytest.approx(0.9)


def test_losses_are_computed_one_at_a_time() -> None:
    asked, line = list[int](), Line(1.0)

    def losses() -> Iterator[Tensor]:
        for number in range(3):
            asked.append(number)
            yield line.x * 1.0
            assert line.x.grad is not None and line.x.grad.item() == number + 1  # its gradient is there already

    next(descend(line, [losses()], lr=0.1, full_at=1, weight_decay=0.0, grad_clip=0.0, key="kind"))
    assert asked == [0, 1, 2]
