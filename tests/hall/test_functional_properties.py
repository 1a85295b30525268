"""What must not matter to the kernels is shown not to matter: padding, rubbish outside the mask, micro-batches, order.

Every claim is about the result and about its gradient. Data are drawn from a seed, and Hypothesis chooses the seed,
the paddings and the rubbish.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from rrl import functional as F

checked = settings(deadline=None, max_examples=20, derandomize=True)
seeds = st.integers(0, 2**31)
rubbish = st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -1e30])


@dataclass(frozen=True)
class Cells:
    """Three [batch, time] inputs with a contiguous mask, a weight that is zero outside it and a level a row."""

    a: Tensor
    b: Tensor
    c: Tensor
    mask: Tensor
    weight: Tensor
    level: Tensor


def draw(seed: int, dtype: torch.dtype = torch.float64, rows: int = 4, time: int = 6) -> Cells:
    """Random cells; the rows' stretches may be empty or full, and one acted cell in five weighs nothing."""
    generator = torch.Generator().manual_seed(seed)
    a, b, c = torch.randn(3, rows, time, generator=generator, dtype=dtype)
    edges = torch.randint(0, time + 1, (rows, 2), generator=generator).sort(-1).values
    mask = (torch.arange(time) >= edges[:, :1]) & (torch.arange(time) < edges[:, 1:])
    weight = mask * torch.rand(rows, time, generator=generator, dtype=dtype)
    weight[torch.rand(rows, time, generator=generator) < 0.2] = 0
    return Cells(a, b, c, mask, weight, torch.randint(0, 3, (rows,), generator=generator))


def pad(cells: Cells, left: int, right: int, filling: float) -> Cells:
    """The same cells with columns of padding: ``filling`` in the inputs, nothing in mask and weight."""
    columns = {f.name: getattr(cells, f.name) for f in fields(cells) if f.name != "level"}
    values = {"mask": False, "weight": 0.0}
    padded = {n: torch.nn.functional.pad(x, (left, right), value=values.get(n, filling)) for n, x in columns.items()}
    return replace(cells, **padded)


def take(cells: Cells, rows: Tensor) -> Cells:
    """The rows that ``rows`` names, in its order."""
    return Cells(**{f.name: getattr(cells, f.name)[rows] for f in fields(cells)})


def spoil(cells: Cells, where: Tensor, filling: float) -> Cells:
    """The same cells with ``filling`` in the inputs there."""
    return replace(cells, **{n: getattr(cells, n).masked_fill(where, filling) for n in "abc"})


Kernel = Callable[[Cells], Tensor]

# Kernels that end in a weighted sum. The share of clipped tokens stands beside its loss.
LOSSES: dict[str, Kernel] = {
    "weighted_sum": lambda x: F.weighted_sum(x.a, x.weight),
    "k1": lambda x: F.weighted_sum(F.kl_estimate(x.a, x.b, "k1"), x.weight),
    "k2": lambda x: F.weighted_sum(F.kl_estimate(x.a, x.b, "k2"), x.weight),
    "k3": lambda x: F.weighted_sum(F.kl_estimate(x.a, x.b, "k3"), x.weight),
    "policy": lambda x: torch.stack(F.clipped_policy_loss(x.a, x.b, x.c, x.weight, clip_ratio=0.2)),
    "importance": lambda x: F.weighted_sum(F.truncated_importance(x.a, x.b, x.weight, cap=1.5), x.weight),
    "value": lambda x: torch.stack(F.clipped_value_loss(x.a, x.b, x.c, x.weight, cliprange_value=0.2)),
}

# Kernels over the masked cells, by the result's shape: a number, or a [batch, time] tensor that is 0 outside the mask.
STATISTICS: dict[str, Kernel] = {
    "masked_mean": lambda x: F.masked_mean(x.a, x.mask),
    "explained_variance": lambda x: F.explained_variance(x.a, x.b, x.mask),
}
CELLWISE: dict[str, Kernel] = {
    "whiten": lambda x: F.whiten(x.a, x.mask),
    "centre_by_level": lambda x: F.centre_by_level(x.a, x.mask, x.level),
    "advantages": lambda x: F.generalised_advantages(x.a, x.b, x.mask, gamma=0.9, lam=0.8)[0],
    "returns": lambda x: F.generalised_advantages(x.a, x.b, x.mask, gamma=0.9, lam=0.8)[1],
}
ALL = {**LOSSES, **STATISTICS, **CELLWISE}


def outcome(kernel: Kernel, cells: Cells) -> tuple[Tensor, Tensor]:
    """The result, and the gradients [3, batch, time] of its sum, in which the cells of a row do not count alike."""
    a, b, c = inputs = [getattr(cells, name).clone().requires_grad_() for name in "abc"]
    result = kernel(replace(cells, a=a, b=b, c=c))
    share = cells.mask.cumsum(-1) if result.dim() == 2 else torch.ones(())
    (result * share).sum().backward()
    return result.detach(), torch.stack([torch.zeros_like(x) if x.grad is None else x.grad for x in inputs])


def outside(name: str, cells: Cells) -> Tensor:
    """The cells that kernel ``name`` must not look at."""
    return cells.weight == 0 if name in LOSSES else ~cells.mask


@pytest.mark.parametrize("name", ALL)
@checked
@given(seed=seeds, filling=rubbish)
def test_rubbish_outside_the_mask_changes_neither_result_nor_gradient(name, seed, filling):
    cells = draw(seed, torch.float32)
    unseen = outside(name, cells)
    expected, expected_gradient = outcome(ALL[name], spoil(cells, unseen, 0.0))
    result, gradient = outcome(ALL[name], spoil(cells, unseen, filling))
    assert torch.equal(result, expected)
    assert torch.equal(gradient, expected_gradient)
    assert (gradient[:, unseen] == 0).all()


@pytest.mark.parametrize("name", ALL)
@checked
@given(seed=seeds, left=st.integers(0, 4), right=st.integers(0, 4), filling=rubbish)
def test_padding_on_either_side_changes_neither_result_nor_gradient(name, seed, left, right, filling):
    cells = draw(seed)
    inner = (..., slice(left, left + cells.a.shape[1]))
    expected, expected_gradient = outcome(ALL[name], cells)
    result, gradient = outcome(ALL[name], pad(cells, left, right, filling))
    assert_close(result[inner] if name in CELLWISE else result, expected)
    assert_close(gradient[inner], expected_gradient)
    assert gradient.count_nonzero() == gradient[inner].count_nonzero()


@pytest.mark.parametrize("name", CELLWISE)
@checked
@given(seed=seeds, filling=rubbish)
def test_results_outside_the_mask_are_zero(name, seed, filling):
    cells = draw(seed)
    assert (CELLWISE[name](spoil(cells, ~cells.mask, filling))[~cells.mask] == 0).all()


@pytest.mark.parametrize("name", LOSSES)
@checked
@given(seed=seeds, parts=st.integers(1, 4))
def test_micro_batches_add_up_to_the_batch(name, seed, parts):
    cells = draw(seed)
    expected, expected_gradient = outcome(LOSSES[name], cells)
    result, gradient = torch.zeros_like(expected), torch.zeros_like(expected_gradient)
    for rows in torch.randperm(4, generator=torch.Generator().manual_seed(seed)).chunk(parts):
        part, gradient[:, rows] = outcome(LOSSES[name], take(cells, rows))
        result += part
    assert_close(result, expected)
    assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("name", ALL)
@checked
@given(seed=seeds)
def test_the_order_of_the_rows_does_not_matter(name, seed):
    cells, order = draw(seed), torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    expected, expected_gradient = outcome(ALL[name], cells)
    result, gradient = outcome(ALL[name], take(cells, order))
    assert_close(result, expected[order] if name in CELLWISE else expected)
    assert_close(gradient, expected_gradient[:, order])


@pytest.mark.parametrize("name", LOSSES)
@checked
@given(seed=seeds, factor=st.floats(0.1, 10))
def test_losses_are_linear_in_the_weight(name, seed, factor):
    cells = draw(seed)
    heavier = replace(cells, weight=factor * cells.weight)
    assert_close(LOSSES[name](heavier), factor * LOSSES[name](cells))


@checked
@given(seed=seeds, shift=st.floats(-10, 10), scale=st.floats(0.1, 10))
def test_whitening_forgets_shift_and_scale(seed, shift, scale):
    cells = draw(seed)
    assume(cells.mask.sum() > 1)
    expected = F.whiten(cells.a, cells.mask, epsilon=0.0)
    assert_close(F.whiten(scale * cells.a + shift, cells.mask, epsilon=0.0), expected)


@checked
@given(seed=seeds, shift=st.floats(-10, 10))
def test_how_easy_a_level_is_does_not_matter(seed, shift):
    cells = draw(seed)
    easier = torch.where(cells.level[:, None] == 1, cells.a + shift, cells.a)
    expected = F.centre_by_level(cells.a, cells.mask, cells.level)
    assert_close(F.centre_by_level(easier, cells.mask, cells.level), expected, rtol=1e-4, atol=1e-4)


@checked
@given(seed=seeds, shift=st.floats(-10, 10))
def test_group_advantages_forget_a_groups_shift_its_number_and_its_place(seed, shift):
    generator = torch.Generator().manual_seed(seed)
    scores, group = torch.rand(12, generator=generator).double(), torch.randint(0, 4, (12,), generator=generator)
    order = torch.randperm(12, generator=generator)
    expected = F.group_advantages(scores, group)
    actual = F.group_advantages((scores + shift * (group == 2))[order], 100 - 7 * group[order])
    assert_close(actual, expected[order], rtol=1e-5, atol=1e-6)


@checked
@given(seed=seeds)
def test_k2_and_k3_are_never_negative_and_vanish_at_agreement(seed):
    cells = draw(seed, torch.float32)
    for kind in ("k2", "k3"):
        assert (F.kl_estimate(cells.a, cells.b, kind) >= 0).all()
        assert (F.kl_estimate(cells.a, cells.a, kind) == 0).all()


@checked
@given(seed=seeds, shift=st.floats(-100, 100))
def test_a_constant_added_to_the_logits_changes_nothing(seed, shift):
    logits, tokens = draw(seed).a, torch.arange(4)
    assert_close(F.token_logprobs(logits + shift, tokens), F.token_logprobs(logits, tokens))
    assert_close(F.entropy(logits + shift), F.entropy(logits))


@checked
@given(seed=seeds)
def test_entropy_lies_between_zero_and_the_log_of_the_vocabulary(seed):
    entropy = F.entropy(5 * draw(seed).a)
    assert ((entropy >= 0) & (entropy <= math.log(6))).all()


@pytest.mark.parametrize("kernel", [F.entropy, lambda z: F.token_logprobs(z, torch.zeros(4, dtype=torch.long))])
@checked
@given(seed=seeds, left_out=st.integers(1, 4))
def test_a_token_of_probability_zero_is_as_good_as_absent(kernel, seed, left_out):
    short = draw(seed).a.requires_grad_()
    long = torch.nn.functional.pad(short.detach(), (0, left_out), value=-math.inf).requires_grad_()
    kernel(short).sum().backward()
    kernel(long).sum().backward()
    assert_close(kernel(long), kernel(short))
    assert_close(long.grad, torch.nn.functional.pad(short.grad, (0, left_out)))
