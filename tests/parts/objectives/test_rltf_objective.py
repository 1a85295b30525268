"""RLTF's own loss on numbers worked by hand, its buffer, and whole steps with both."""

import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from fixtures.programs import rltf_trainer
from fixtures.ranks import on_ranks
from fixtures.training import PAD, by_hand, poison, problem, weights
from rrl.collate import collate
from rrl.parts.objectives.rltf import RLTF
from rrl.types import Batch, PolicyOutput, Rollout, State


def rltf(**changes: Any) -> RLTF:
    return RLTF(**{"capacity": 100, "max_response_length": 50, "seed": 0} | changes)


def wrote(name: str, *actions: int, prefix: tuple[int, ...] = (), reference: tuple[int, ...] = (91, 92, 2)) -> Rollout:
    start = State(problem((1, 20), reference, name=name), prefix)
    zeros = (0.0,) * len(actions)
    return Rollout(start, actions, zeros, zeros, True, "", 0)


def learnt(objective: RLTF, *rollouts: Rollout, pay: float = 0.5) -> Batch:
    """What the objective learns from after these rollouts, all of whose tokens earn the same."""
    batch = objective.assign_credit(collate(rollouts, [[pay] * len(r.actions) for r in rollouts], PAD))
    return objective.experience(rollouts, batch)


def rows(batch: Batch) -> list[tuple[list[int], list[int], list[float]]]:
    """Context, written tokens and advantages of each row."""
    return [
        (t[a & ~m].tolist(), t[m].tolist(), v[m].tolist())
        for t, a, m, v in zip(batch.tokens, batch.attention, batch.mask, batch.advantages, strict=True)
    ]


# --- loss -------------------------------------------------------------------------------------------------------------

# Two samples' tokens and, in the second row, one of a reference.
PAIR = by_hand(["011", "010"], advantages=[[9.0, -0.6, -0.9], [9.0, 1.0, 9.0]], group=[0, -1])
SAID = [[0.0, -1.0, -2.0], [0.0, -3.0, 0.0]]


def output() -> PolicyOutput:
    return PolicyOutput(torch.tensor(SAID).requires_grad_(), torch.full((2, 3), 0.5), None)


def test_the_loss_by_hand() -> None:
    # Weights of a third. Samples: -(-.6 * -1 + -.9 * -2) / 3 = -.8; the reference: -(1 * -3) / 3 = 1.
    loss, critic_loss, metrics = rltf().loss(PAIR, output())
    assert (loss.item(), critic_loss.item()) == (pytest.approx(0.2), 0.0)
    expected = {"actor/pg_loss": -0.8, "actor/sl_loss": 1.0, "actor/entropy": 0.5, "rltf/supervised_frac": 1 / 3}
    assert metrics == pytest.approx({**expected, "rltf/buffer_size": 0.0})


def test_references_are_made_likelier_and_bad_samples_less_likely() -> None:
    said = output()
    rltf().loss(PAIR, said)[0].backward()
    assert_close(said.logprobs.grad, torch.tensor([[0.0, 0.2, 0.3], [0.0, -1 / 3, 0.0]]))


@pytest.mark.parametrize("garbage", [1e9, math.inf, math.nan])
def test_garbage_outside_the_mask_changes_nothing(garbage: float) -> None:
    clean, dirty = output(), output()
    dirty.logprobs.data[~PAIR.mask] = garbage
    poisoned = poison(PAIR, garbage, ["advantages"])
    assert rltf().loss(PAIR, clean) == rltf().loss(poisoned, dirty)
    rltf().loss(PAIR, clean)[0].backward()
    rltf().loss(poisoned, dirty)[0].backward()
    assert torch.equal(clean.logprobs.grad, dirty.logprobs.grad)


def test_the_advantage_of_a_token_is_its_pay() -> None:
    batch = by_hand(["011"], rewards=[[7.0, -0.6, -0.9]])
    assert_close(rltf().assign_credit(batch).advantages, torch.tensor([[0.0, -0.6, -0.9]]))


# --- what is learnt from ----------------------------------------------------------------------------------------------


def test_half_of_the_rows_are_samples_and_half_their_references() -> None:
    batch = learnt(rltf(), wrote("a", 5, 6, 2), wrote("b", 7, 2), wrote("c", 8, 2), wrote("d", 9, 2))
    assert batch.group[:2].min() >= 0 and batch.group[2:].tolist() == [-1, -1]
    assert all(pay == [0.5] * len(actions) for _, actions, pay in rows(batch)[:2])
    assert rows(batch)[2:] == [([1, 20], [91, 92, 2], [1.0, 1.0, 1.0])] * 2


def test_of_an_odd_number_the_samples_are_one_more() -> None:
    assert (learnt(rltf(), *[wrote("a", token, 2) for token in (5, 6, 7)]).group == -1).tolist() == [False, False, True]


def test_the_references_are_those_of_the_samples() -> None:
    rollouts = [
        wrote(name, token, 2, reference=(90 + token, 2)) for name, token in (("a", 5), ("b", 6), ("c", 7), ("d", 8))
    ]
    batch = rows(learnt(rltf(), *rollouts))
    assert [actions[0] + 90 for _, actions, _ in batch[:2]] == [actions[0] for _, actions, _ in batch[2:]]


def test_a_replayed_prefix_is_context_and_no_part_of_the_reference() -> None:
    replayed = [wrote("a", 6, 2, prefix=(4, 5)) for _ in range(2)]
    sample, reference = rows(learnt(rltf(), *replayed))
    assert sample == ([1, 20, 4, 5], [6, 2], [0.5, 0.5])
    assert reference == ([1, 20], [91, 92, 2], [1.0, 1.0, 1.0])


def test_a_single_rollout_is_learnt_from() -> None:
    assert rows(learnt(rltf(), wrote("a", 6, 2))) == [([1, 20], [6, 2], [0.5, 0.5])]


def test_a_problem_without_a_reference_has_no_supervised_row() -> None:
    assert len(learnt(rltf(), *[wrote("a", 6, 2, reference=())] * 4)) == 2


def test_a_long_reference_is_cut() -> None:
    assert rows(learnt(rltf(max_response_length=2), *[wrote("a", 6, 2)] * 2))[1][1] == [91, 92]


def test_the_buffer_keeps_the_latest_and_draws_from_all_of_it() -> None:
    objective = rltf(capacity=6)
    seen = set()
    for step in range(40):
        batch = learnt(objective, *[wrote("a", 100 + step, place, 2) for place in (3, 4, 5, 6)])
        drawn = [actions[0] - 100 for _, actions, _ in rows(batch)[:2]]
        assert all(step - 1 <= age <= step for age in drawn)
        seen |= {step - age for age in drawn}
    assert seen == {0, 1} and len(objective.state_dict()["samples"]) == 6


def test_a_sample_is_drawn_once_a_step() -> None:
    for seed in range(20):
        batch = learnt(rltf(seed=seed), *[wrote("a", token, 2) for token in (5, 6, 7, 8)])
        first, second = rows(batch)[:2]
        assert first != second


def test_a_sample_keeps_the_pay_of_its_own_step() -> None:
    objective = rltf(capacity=8)
    learnt(objective, *[wrote("a", 3, 2)] * 4, pay=-1.0)
    pays = {
        actions[0]: pay for _ in range(9) for _, actions, pay in rows(learnt(objective, *[wrote("a", 4, 2)] * 4))[:2]
    }
    assert pays.get(3, [-1.0] * 2) == [-1.0] * 2 and pays[4] == [0.5] * 2


def test_the_same_seed_draws_the_same_and_another_one_others() -> None:
    rollouts = [wrote("a", token, 2) for token in range(5, 25)]
    first, same, other = (rows(learnt(rltf(seed=seed), *rollouts)) for seed in (1, 1, 2))
    assert first == same != other


def test_it_goes_on_from_a_saved_state() -> None:
    first, second = rltf(capacity=30), rltf(capacity=30, seed=9)
    learnt(first, *[wrote("a", token, 2) for token in range(5, 25)])
    second.load_state_dict(first.state_dict())
    rollouts = [wrote("b", token, 2) for token in range(25, 45)]
    assert rows(learnt(first, *rollouts)) == rows(learnt(second, *rollouts))


def test_it_needs_no_critic_and_no_reference_model() -> None:
    objective = rltf()
    assert (objective.needs_critic, objective.needs_reference, objective.needs) == (False, False, {"references"})


@pytest.mark.parametrize("name", ["capacity", "max_response_length"])
def test_it_refuses_numbers_out_of_range(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        rltf(**{name: 0})


# --- whole steps ------------------------------------------------------------------------------------------------------


def test_a_step_learns_and_counts_what_it_learnt_from() -> None:
    trained = rltf_trainer()
    before = weights(trained.policy)
    metrics = [trained.step() for _ in range(3)]
    assert any(not torch.equal(a, b) for a, b in zip(before.values(), weights(trained.policy).values(), strict=True))
    assert metrics[-1]["rltf/supervised_frac"] == pytest.approx(0.5, abs=0.13)  # by row, of at most 8
    assert metrics[-1]["rltf/buffer_size"] == pytest.approx(12)
    assert all(math.isfinite(value) for row in metrics for value in row.values())
    assert trained.tokens_trained > 0


def test_greedy_responses_count_as_generated() -> None:
    trained = rltf_trainer()
    trained.step()
    drawn = sum(len(each.rollout.actions) for each in trained.last_rollouts)
    assert trained.tokens_generated > drawn


def test_what_could_not_be_judged_is_never_priced() -> None:
    trained = rltf_trainer()
    verdicts = []
    for _ in range(3):
        trained.step()
        verdicts += [judged.feedback.verdict.value for judged in trained.last_rollouts]
    assert "error" in verdicts, "the reward raises for these"


def _two_steps() -> Any:
    trained = rltf_trainer()
    rows = [trained.step() for _ in range(2)]
    kept = [{k: v for k, v in row.items() if not k.startswith(("timing_s/", "perf/"))} for row in rows]
    return kept, trained.objective.state_dict()["samples"]


@pytest.mark.slow
def test_two_processes_learn_from_the_same_rows() -> None:
    one, (first, second) = _two_steps(), on_ranks(2, _two_steps)
    assert first == second
    assert [sample[:5] for sample in first[1]] == [sample[:5] for sample in one[1]]
