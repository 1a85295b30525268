"""What parts may do around a step: judge early, look at the whole batch, learn from other rows."""

from dataclasses import dataclass, field

import pytest
import torch

from fixtures.training import TASK, EvenTokens, evaluation, make_engine, make_trainer, ppo, problems
from rrl.config.check import check
from rrl.config.compose import compose
from rrl.errors import ConfigError
from rrl.interfaces import Reward
from rrl.parts.objectives.ppo import PPO
from rrl.parts.tasks.trace import Trace
from rrl.runs.checkpoint import state_of
from rrl.types import Feedback, Judged, Rollout, State, Verdict


@dataclass(frozen=True, kw_only=True)
class Early(Trace):
    """A task that remembers, in order, what it was reported of."""

    reported: list[tuple[str, list[Rollout]]] = field(default_factory=list)

    def begin(self, rollouts):
        self.reported.append(("begin", list(rollouts)))

    def verify(self, rollouts):
        self.reported.append(("verify", list(rollouts)))
        return super().verify(rollouts)


def early() -> Early:
    return Early(**vars(TASK))


@dataclass(kw_only=True)
class Looking(Reward):
    """Counts what it was shown before it prices, and pays the count on the last token."""

    needs = frozenset({"programs"})
    shown: int = 0

    def start(self, tokenizer, decode):
        self.decode = decode

    def observe(self, judged):
        self.shown += len(judged)
        return {"looking/solved": float(sum(each.feedback.solved for each in judged))}

    def __call__(self, judged: Judged) -> list[float]:
        return [0.0] * (len(judged.rollout.actions) - 1) + [float(self.shown)]

    def state_dict(self):
        return {"shown": self.shown}

    def load_state_dict(self, state):
        self.shown = state["shown"]


@dataclass(kw_only=True)
class Forgetful(PPO):
    """PPO that learns from the first row alone."""

    rows: list[int] = field(default_factory=list)

    def experience(self, rollouts, batch):
        assert len(rollouts) == len(batch)
        return batch.rows(torch.tensor([0]))

    def loss(self, batch, output):
        self.rows.append(len(batch))
        return super().loss(batch, output)


def test_a_task_hears_of_each_batch_of_rollouts_before_it_is_to_judge_them() -> None:
    task = early()
    trainer = make_trainer(task=task, engine=make_engine(batch_size=3))
    trainer.step()
    kinds = [(kind, len(rollouts)) for kind, rollouts in task.reported]
    assert kinds == [("begin", 3), ("begin", 3), ("begin", 2), ("verify", 8)]
    assert {id(r) for _, rs in task.reported[:3] for r in rs} == {id(r) for r in task.reported[3][1]}


def test_an_evaluation_also_notifies_the_task_early() -> None:
    task, trainer = early(), make_trainer()
    evaluation(n=0).measure(list(problems())[:2], task, trainer.engine)
    assert [kind for kind, _ in task.reported] == ["begin", "verify"]


def test_a_reward_sees_the_whole_judged_batch_before_it_prices_any_of_it() -> None:
    trainer = make_trainer(reward=Looking())
    metrics = trainer.step()
    assert metrics["critic/rewards/max"] > 7.5  # 8 rollouts, less a small KL
    assert "looking/solved" in metrics


def test_what_a_reward_has_learnt_is_saved() -> None:
    trainer = make_trainer(reward=Looking())
    trainer.step()
    assert state_of(trainer)["reward"] == {"shown": 8}
    assert state_of(make_trainer(reward=EvenTokens()))["reward"] == {}


def test_a_greedy_decode_counts_as_generated_and_leaves_the_random_state() -> None:
    trainer = make_trainer()
    before = trainer.engine.state_dict()["generator"].clone()
    states = [State(problem) for problem in list(problems())[:2]]
    first, again = trainer.decode(states), trainer.decode(states)
    assert first == again
    assert 4 <= trainer.tokens_generated <= 24
    assert trainer.engine.state_dict()["generator"].ne(before).sum() == 0


def test_an_objective_chooses_what_is_learnt_from() -> None:
    plain = ppo()
    objective = Forgetful(**{name: getattr(plain, name) for name in PPO.__dataclass_fields__ if name != "_kl_coef"})
    trainer = make_trainer(objective=objective, ppo_epochs=1)
    trainer.step()
    assert objective.rows == [1]
    assert trainer.tokens_trained <= 6


def test_solved_is_what_the_verifier_found_right() -> None:
    assert Feedback(0.7, Verdict.RIGHT).solved
    assert not Feedback(1.0, Verdict.WRONG).solved


def test_a_reward_that_needs_more_than_the_task_gives_is_refused_by_name() -> None:
    config = compose("train", ["task=gsm8k"]).config
    config["reward"] = {"_target_": f"{__name__}.Looking", "shown": 0}
    with pytest.raises(ConfigError) as caught:
        check(config)
    assert len(caught.value.faults) == 1
    reported = "reward: Looking needs programs, which the task GSM8K does not give; expected task="
    assert caught.value.faults[0].startswith(reported)
