"""Values by continuations: where they are estimated, what credit they give, what they cost, and that they resume."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from fixtures.author import Scripted, lent
from fixtures.config import faults
from fixtures.replay import PAD, problem
from fixtures.trainer import gone_on, history, same
from fixtures.training import by_hand, make_trainer, replay
from rrl.collate import collate
from rrl.config.check import load
from rrl.cuts import spread_out
from rrl.functional import advantages_between
from rrl.parts.objectives.kl import NoKL, RewardKL
from rrl.parts.objectives.vineppo import VinePPO
from rrl.types import Batch, Feedback, Judged, Rollout, State, Verdict

P = problem("p", prompt=(1, 10))
CUT = (20, 21)
# The new tokens of two rollouts, the second of which goes on from a state that the first has passed.
FIRST, SECOND = (20, 21, 22, 23, 2), (30, 31, 2)
VERDICTS = {
    (): (1, 0, 0, 1), CUT: (1, 1, 1, 0), FIRST[:4]: (0, 0, -1, 0), (*CUT, 30): (-1, -1, -1, -1),
    (*CUT, 30, 31): (1, 1, 1, 1),
}  # fmt: skip


def vine(**changes: Any) -> VinePPO:
    """Two points, four continuations, advantages as they are."""
    shape = {"clip_ratio": 0.2, "importance_cap": None, "kl": NoKL(), "points": 2, "continuations": 4, "seed": 0}
    return VinePPO(**shape | {"advantage_norm": "none", "cut_points": "token", "max_response_length": 16} | changes)


def judged(state: State, actions: Sequence[int], score: float) -> Judged:
    zeros = (0.0,) * len(actions)
    rollout = Rollout(state, tuple(actions), zeros, zeros, True, "", 0)
    return Judged(rollout, Feedback(score, Verdict.RIGHT if score else Verdict.WRONG))


ROLLOUTS = [judged(State(P), FIRST, 0.0), judged(State(P, CUT, "a"), SECOND, 1.0)]
BATCH = collate([each.rollout for each in ROLLOUTS], [[0.0] * 5, [0.0, 0.0, 1.0]], PAD)


def asked(objective: VinePPO, verdicts: Any = VERDICTS) -> tuple[Scripted, dict[str, float]]:
    """The author that wrote for it, and its metrics."""
    author = Scripted(None, right=lambda state: verdicts[state.prefix])
    objective.lend(author)
    return author, objective.observe(ROLLOUTS)


# --- the equation -----------------------------------------------------------------------------------------------------

EPISODES = by_hand(
    ["0111110", "0011000", "0111000"],
    rewards=[[9.0, 0.1, 0.0, 0.0, 0.0, 1.0, 9.0], [9.0, 9.0, 0.0, 1.0, 9.0, 9.0, 9.0], [9.0, 0, 0, 1.0, 9.0, 9.0, 9.0]],
    values=[[9.0, 0.5, 9.0, 0.25, 0.75, 9.0, 9.0], [9.0, 9.0, 0.4, 9.0, 9.0, 9.0, 9.0], [9.0, 9.0, 0.3] + [9.0] * 4],
)
KNOWN = torch.tensor([[cell == "1" for cell in row] for row in ("1101101", "0010111", "1010111")])


def test_advantages_between_points_by_hand() -> None:
    # 0.1 + 0.25 - 0.5 for two tokens, 0.75 - 0.25 for one, 1 - 0.75 for two; then 1 - 0.4 for both; 0.3 and 1 - 0.3.
    advantages, values = advantages_between(EPISODES.rewards, EPISODES.values, KNOWN, EPISODES.mask)
    expected = [
        [0.0, -0.15, -0.15, 0.5, 0.25, 0.25, 0.0],
        [0.0, 0.0, 0.6, 0.6, 0.0, 0.0, 0.0],
        [0, 0.3, 0.7, 0.7, 0, 0, 0],
    ]
    assert_close(advantages, torch.tensor(expected))
    held = [[0.0, 0.5, 0.5, 0.25, 0.75, 0.75, 0.0], [0.0, 0.0, 0.4, 0.4, 0.0, 0.0, 0.0], [0, 0, 0.3, 0.3, 0, 0, 0]]
    assert_close(values, torch.tensor(held))


@pytest.mark.parametrize("garbage", [float("inf"), float("nan"), -1e9])
def test_what_is_outside_the_mask_or_not_known_changes_nothing(garbage: float) -> None:
    rewards = torch.where(EPISODES.mask, EPISODES.rewards, garbage)
    values = torch.where(EPISODES.mask & KNOWN, EPISODES.values, garbage)
    clean = advantages_between(EPISODES.rewards, EPISODES.values, KNOWN, EPISODES.mask)
    assert all(map(torch.equal, clean, advantages_between(rewards, values, KNOWN, EPISODES.mask)))


def test_points_are_evenly_spread() -> None:
    assert [spread_out([1, 2, 3, 4], count) for count in (0, 1, 2, 9)] == [[], [3], [2, 4], [1, 2, 3, 4]]
    assert spread_out([], 3) == []


# --- the objective ----------------------------------------------------------------------------------------------------


def test_every_state_is_continued_once_however_many_rollouts_pass_it() -> None:
    author, metrics = asked(vine())
    states = [(), CUT, FIRST[:4], (*CUT, 30), (*CUT, 30, 31)]
    assert [state.prefix for state in author.written_from] == [prefix for prefix in states for _ in range(4)]
    assert all(state.problem is P and not state.replayed for state in author.written_from)
    # each four have 2, 3, 4 and 5 tokens; values 0.5, 0.75, 0 and 1, and one that is not known
    assert metrics == {"vineppo/tokens": 70.0, "vineppo/states": 5.0, "vineppo/value/mean": 0.5625}


def test_credit_is_what_is_paid_and_the_difference_of_the_values() -> None:
    objective = vine()
    asked(objective)
    batch = objective.assign_credit(BATCH)
    # 0.75 - 0.5, 0 - 0.75, 0 - 0 for 2, 2 and 1 tokens; 1 - 0.75 for two, past what is not known, and 1 - 1.
    rows = [batch.advantages[row][BATCH.mask[row]].tolist() for row in (0, 1)]
    assert rows == [[0.25, 0.25, -0.75, -0.75, 0.0], [0.25, 0.25, 0.0]]
    assert batch.values[1][BATCH.mask[1]].tolist() == [0.75, 0.75, 1.0]
    assert batch.returns[1][BATCH.mask[1]].tolist() == [1.0, 1.0, 1.0]


def test_a_start_that_nobody_could_judge_counts_as_nothing() -> None:
    objective = vine(points=0)
    _, metrics = asked(objective, {(): (-1,) * 4, CUT: (-1,) * 4})
    advantages = objective.assign_credit(BATCH).advantages
    assert advantages[BATCH.mask].tolist() == [0.0] * 5 + [1.0] * 3 and metrics["vineppo/value/mean"] == 0.0


def test_a_point_leaves_room_to_write() -> None:
    author, _ = asked(vine(max_response_length=4, points=9), {key[:n]: (1,) * 4 for key in VERDICTS for n in range(5)})
    assert max(len(state.prefix) for state in author.written_from) == 3


def test_divergence_is_paid_where_it_is_met() -> None:
    # 0.5 times 0.2 nats for each of three tokens, from 1 - 0.75
    objective = vine(points=0, kl=RewardKL(coef=0.5))
    asked(objective)
    batch = objective.assign_credit(BATCH.with_(old_logprobs=BATCH.mask * -1.0, ref_logprobs=BATCH.mask * -1.2))
    assert batch.advantages[1][BATCH.mask[1]].tolist() == pytest.approx([-0.05] * 3, abs=1e-6)


def test_advantages_are_whitened_by_key() -> None:
    advantages: dict[str, Batch] = {}
    for norm in ("batch", "origin"):
        objective = vine(advantage_norm=norm)
        asked(objective)
        advantages[norm] = objective.assign_credit(BATCH).advantages
        assert float(advantages[norm][BATCH.mask].mean()) == pytest.approx(0.0, abs=1e-6)
    # by origin the replayed ones, 1/4, 1/4 and 0, are whitened alone: 1/12, 1/12, -1/6 over their root mean square
    assert advantages["origin"][1][BATCH.mask[1]].tolist() == pytest.approx([0.7071, 0.7071, -1.4142], abs=1e-3)
    assert advantages["batch"][1][BATCH.mask[1]].tolist() != pytest.approx([0.7071, 0.7071, -1.4142], abs=1e-1)


# --- in a step --------------------------------------------------------------------------------------------------------


def trained() -> Any:
    """A trainer that replays, with one point and two continuations of each state."""
    objective = vine(points=1, continuations=2, max_response_length=6, advantage_norm="batch")
    return lent(make_trainer(objective=objective, sampler=replay(0.5)))


def test_what_is_written_is_counted_and_not_trained() -> None:
    trainer, generated, trained_on = trained(), 0.0, 0
    for metrics in trainer.run():
        trained_on += int(trainer.last_batch[1].mask.sum())
        generated += metrics["vineppo/tokens"] + sum(len(each.rollout.actions) for each in trainer.last_rollouts)
        assert metrics["budget/tokens_generated"] == generated
        assert metrics["budget/tokens_trained"] == trained_on and metrics["vineppo/tokens"] > 0
    assert metrics["replay/ratio"] == 0.5


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    assert same(gone_on(trained, tmp_path), history(trained(), 2)[1:])
    first, second = trained(), trained()
    first.step()
    assert first.objective.state_dict() != second.objective.state_dict()


def test_it_is_chosen_by_one_key_and_trains_no_critic() -> None:
    objective = load("train", ["objective=vineppo"])[1].objective
    assert (objective.points, objective.continuations, objective.needs_critic) == (3, 9, False)
    assert objective.expense(10, 16) == 10 * 4 * 9 * 16
    assert faults("objective=vineppo", "objective.points=-1", "objective.continuations=0") == [
        "objective.points: expected a number >= 0, got -1", "objective.continuations: expected at least 1, got 0"
    ]  # fmt: skip
    (fault,) = faults("objective=vineppo", "selection=critic_rise")
    assert fault.startswith("sampler.selection: CriticRise reads the critic, which this objective does not train")
