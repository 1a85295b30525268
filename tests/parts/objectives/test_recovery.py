"""Credit to the prefixes of replayed states: what it is, which tokens have it, and that all else stays."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from fixtures.config import faults
from fixtures.trainer import gone_on, history, same
from fixtures.training import PAD, by_hand, grpo, make_trainer, problems, replay
from rrl.collate import collate, engine_logprobs
from rrl.contracts.siblings import Siblings
from rrl.functional import recovery_credit
from rrl.training.loop import weigh
from rrl.types import PolicyOutput, Rollout, State

# Two continuations of a state of two tokens, one of another, whose prefix is one token, and a fresh rollout of a group
# of its own. Group scores: 0 and 1, so -1 and 1; the others are alone.
BATCH = by_hand(
    ["00011", "00010", "00110", "01100"],
    prefix=[[False, True, True, False, False], [False, True, True, False, False],
            [False, True, False, False, False], [False] * 5],
    replayed=[True, True, True, False],
    group=[4, 4, 6, 1],
    rewards=[[9.0, 9.0, 9.0, 0.0, 0.0], [9.0, 9.0, 9.0, 1.0, 9.0],
             [9.0, 9.0, 0.0, 0.0, 9.0], [9.0, 0.0, 1.0, 9.0, 9.0]],
    old_logprobs=[[-1.0] * 5] * 4,
    engine_logprobs=[[-2.0] * 5] * 4,
)  # fmt: skip


def test_the_credit_of_a_state_is_its_best_score_less_the_mean_of_the_best() -> None:
    scores, group = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 5.0]), torch.tensor([3, 3, 7, 7, 2, 9])
    part = torch.tensor([True] * 5 + [False])
    assert recovery_credit(scores, group, part).tolist() == pytest.approx([1 / 3, 0.0, -2 / 3, 0.0, 1 / 3, 0.0])
    # the best are 0.5 and -1, their mean is -0.25; the row before them continues no state
    scores, group = torch.tensor([9.0, -3.0, 0.5, -1.0]), torch.tensor([1, 1, 1, 2])
    actual = recovery_credit(scores, group, torch.tensor([False, True, True, True]))
    assert actual.tolist() == [0.0, 0.75, 0.0, -0.75]
    assert recovery_credit(scores, group, torch.zeros(4, dtype=torch.bool)).tolist() == [0.0] * 4


def test_the_prefix_of_a_replayed_state_is_known_and_no_other_context() -> None:
    problem = problems()[0]
    starts = [State(problem, (5, 6), "a"), State(problem, (5, 6)), State(problem, (), "a"), State(problem)]
    rollouts = [Rollout(start, (7, 2), (0.0,) * 2, (0.0,) * 2, True, "", 0) for start in starts]
    batch = collate(rollouts, [[0.0, 1.0]] * 4, PAD)
    begin = len(problem.prompt)
    assert batch.prefix.nonzero().tolist() == [[0, begin], [0, begin + 1]]
    assert not (batch.prefix & batch.mask).any()


def test_one_row_of_a_state_has_the_credit_on_all_tokens_of_its_prefix() -> None:
    # the first state was recovered, the second was not: 1 - 1/2 and 0 - 1/2, times 0.4
    advantages = grpo(recovery_coef=0.4).assign_credit(BATCH).advantages
    expected = [[0.0, 0.2, 0.2, -1.0, -1.0], [0.0, 0.0, 0.0, 1.0, 0.0], [0.0, -0.2, 0.0, 0.0, 0.0], [0.0] * 5]
    assert_close(advantages, torch.tensor(expected), atol=1e-5, rtol=0)


def test_what_has_no_credit_is_not_learnt_from() -> None:
    objective = grpo(recovery_coef=0.4)
    learnt = objective.experience([], objective.assign_credit(BATCH))
    assert learnt.mask.int().tolist() == [[0, 1, 1, 1, 1], [0, 0, 0, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 0, 0]]
    everywhere = BATCH.with_(rewards=torch.ones_like(BATCH.rewards))
    assert torch.equal(objective.experience([], objective.assign_credit(everywhere)).mask, BATCH.mask)


def test_a_prefix_is_weighed_as_other_tokens_and_moves_by_the_policy_gradient() -> None:
    objective = grpo(recovery_coef=0.4, importance_cap=2.0)
    learnt = weigh(objective.experience([], objective.assign_credit(BATCH)), "token")
    logprobs = BATCH.old_logprobs.clone().requires_grad_()
    loss, _, metrics = objective.loss(learnt, PolicyOutput(logprobs, torch.zeros_like(logprobs), None))
    loss.backward()
    # ten tokens, three of them prefix. Actions have the importance exp(-1 - -2), at most 2; a prefix has 1.
    expected = [[0.0, -0.02, -0.02, 0.2, 0.2], [0.0, 0.0, 0.0, -0.2, 0.0], [0.0, 0.02, 0.0, 0.0, 0.0], [0.0] * 5]
    assert_close(logprobs.grad, torch.tensor(expected), atol=1e-5, rtol=0)
    assert metrics["actor/prefix_frac"] == pytest.approx(0.3)


def test_without_the_key_everything_is_as_it_was() -> None:
    objective = grpo()
    credited = objective.assign_credit(BATCH)
    assert objective.experience([], credited) is credited
    assert not credited.advantages[BATCH.prefix].any()
    loss = objective.loss(weigh(credited, "token"), PolicyOutput(BATCH.old_logprobs, BATCH.entropies, None))
    assert "actor/prefix_frac" not in loss[2]


# --- in a step --------------------------------------------------------------------------------------------------------


def several(coef: float = 0.5) -> Any:
    siblings = Siblings(n=2, n_replayed=3)
    return make_trainer(
        sampler=replay(0.5, siblings=siblings), objective=grpo(recovery_coef=coef), n=2, train_batch_size=16,
        ppo_mini_batch_size=16, siblings=siblings,
    )  # fmt: skip


@pytest.mark.parametrize("coef", [0.0, 0.5])
def test_the_old_log_probabilities_of_a_prefix_are_those_of_the_policy_before_the_update(coef: float) -> None:
    trainer = several(coef)
    problem = problems()[0]
    states = [State(problem, (5, 6, 7), "a"), State(problem, (5, 6, 4), "b")]
    rollouts = [Rollout(state, (8, 9, 2), (-1.0,) * 3, (0.0,) * 3, True, "", 0) for state in states]
    batch = collate(rollouts, [[0.0, 0.0, 1.0]] * 2, PAD)
    batch = batch.with_(engine_logprobs=engine_logprobs(rollouts, batch.mask))
    read, metrics = trainer._annotated(batch)
    whole = trainer.policy.inspect([State(problem, (5, 6, 7, 8, 9, 2))])[0].logprobs
    assert torch.equal(read.mask, batch.mask)
    if coef:
        assert read.old_logprobs[0][batch.prefix[0]].tolist() == pytest.approx(whole[:3], abs=1e-5)
    assert read.old_logprobs[0][batch.mask[0]].tolist() == pytest.approx(whole[3:], abs=1e-5)
    expected = trainer.policy.annotate(batch).old_logprobs[batch.mask]
    assert metrics["training/rollout_probs_diff_mean"] == pytest.approx(
        float((expected.exp() - torch.tensor(-1.0).exp()).abs().mean()), abs=1e-5
    )


def test_prefixes_are_trained_and_counted_and_what_samplers_see_is_not_changed() -> None:
    trainer, shares = several(), []
    for _ in range(4):
        before, metrics = trainer.tokens_trained, trainer.step()
        rollouts, batch = trainer.last_batch
        written, learnt = int(batch.mask.sum()), trainer.tokens_trained - before
        assert written == sum(len(rollout.actions) for rollout in rollouts)
        shares.append(metrics["actor/prefix_frac"])
        assert (learnt > written) == (shares[-1] > 0)
    assert shares[0] == 0 and max(shares) > 0.02  # nothing is replayed in the first step


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    assert same(gone_on(several, tmp_path), history(several(), 2)[1:])


def test_what_does_not_fit_is_refused_by_name() -> None:
    chosen = ["objective=rloo", "trainer.n=4"]
    assert faults(*chosen, "objective.recovery_coef=-1") == ["objective.recovery_coef: expected a number >= 0, got -1"]
    assert faults(*chosen, "objective.recovery_coef=0.5", "old_log_prob=engine") == [
        "old_log_prob: engine, but objective.recovery_coef needs the policy's of prefixes; expected 0, or "
        "old_log_prob=recomputed"
    ]
