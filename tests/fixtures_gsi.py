"""Guided self-improvement on the tiny model, with a task that a random model can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fixtures_training import PAD, limits, make_engine, make_policy, problems, tiny, tokenizer
from rrl.clock import Clock
from rrl.engines.hf import HFEngine
from rrl.gsi import GSI, GSISettings
from rrl.guidance.state_reset import StateReset
from rrl.interfaces import Guidance
from rrl.loop import Origin
from rrl.objectives.supervised import Supervised
from rrl.rewards.verdict import Verdict as Paid
from rrl.samplers.problems import Problems
from rrl.tasks.trace import Trace
from rrl.types import Feedback, Problem, Rollout, Verdict


@dataclass(frozen=True, kw_only=True)
class Thirds(Trace):
    """Right is a response whose tokens, a given prefix included, sum up to a multiple of ``divisor``."""

    divisor: int

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        return [self._judge(rollout) for rollout in rollouts]

    def _judge(self, rollout: Rollout) -> Feedback:
        right = sum(rollout.tokens) % self.divisor == 0
        return Feedback(float(right), Verdict.RIGHT if right else Verdict.WRONG)


def thirds(divisor: int = 4) -> Thirds:
    """About one random response of ``divisor`` is right."""
    return Thirds(
        train_per_level=20, test_per_level=5, demonstration_lengths=(1, 2, 3), demonstration_weak=0.5, data_seed=0,
        divisor=divisor,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MostlyEven(Thirds):
    """Right is a response of whose tokens four in five are even, which a model can learn."""

    def _judge(self, rollout: Rollout) -> Feedback:
        even = sum(token % 2 == 0 for token in rollout.tokens) / len(rollout.tokens)
        return Feedback(float(even >= 0.8), Verdict.RIGHT if even >= 0.8 else Verdict.WRONG)


def like(kind: type[Thirds]) -> Thirds:
    """Another judge of the same problems."""
    return kind(**vars(thirds()))


def reset(cut_points: Any = "token") -> StateReset:
    """The shipped state reset."""
    return StateReset(cut_points=cut_points, shares=(0.2, 0.4, 0.6, 0.8, 0.8))


def gsi_settings(**changes: Any) -> GSISettings:
    """Two iterations of ten problems, three responses each, up to three guided tries, mini-batches of four."""
    return GSISettings(
        **{
            "iterations": 2, "problems_per_iteration": 10, "train_batch_size": 4, "n": 3, "temperature": 0.7,
            "enough": 2, "guided_tries": 3, "guidance": reset(), "keep_per_problem": None, "distinct": True,
            "train_on_truncated": True, "first": "sample", "epochs": 2, "mini_batch_size": 4, "aggregate": "token",
            "total_tokens": None,
        }
        | changes
    )  # fmt: skip


def make_gsi(
    *, task: Any = None, engine: HFEngine | None = None, policy: dict[str, Any] | None = None, seed: int = 0,
    data: Sequence[Problem] | None = None, guidance: Guidance | str | None = "default", **changes: Any,
) -> GSI:  # fmt: skip
    """The loop on the tiny model; ``policy`` goes to the policy's settings and ``changes`` to the loop's."""
    given, engine = list(problems() if data is None else data), engine or make_engine()
    network = make_policy(**{"critic": "none", "actor_lr": 1e-2} | (policy or {}))
    sampler = Problems(level_weights=None)
    sampler.start(given, seed, network.inspect, tokenizer())
    engine.start(network, tokenizer(), seed)
    chosen = {} if guidance == "default" else {"guidance": guidance}
    origin = Origin(
        problems=given, tokenizer=tokenizer(), model=tiny, longest_prompt=48,
        render=lambda questions: [tuple(row) for row in tokenizer()(list(questions)).input_ids],
    )  # fmt: skip
    loop = gsi_settings(**chosen, **changes).make(
        origin, task=task or thirds(), sampler=sampler, engine=engine, reward=Paid(truncation_penalty=0.0),
        objective=Supervised(), policy=network, pad=PAD, micro_batch_size=4, seed=seed, clock=Clock(),
        limits=limits(engine.max_new_tokens, given),
    )  # fmt: skip
    assert isinstance(loop, GSI)
    return loop
