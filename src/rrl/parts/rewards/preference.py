"""The natural reward of preferences: a reward model's number on the last token, in running standard deviations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from rrl.interfaces import Reward, StateDict
from rrl.ranges import check_ranges, not_negative, positive
from rrl.types import Judged, Metrics, Verdict


@dataclass(kw_only=True)
class RewardModelReward(Reward):
    """Pays on the last token

        clip((r - m) / s, -clip, clip) - truncation_penalty [the length limit cut the response off]

    where r is the evidence ``reward``, s the standard deviation of all rewards so far, this step's included
    (``Moments``; 1 while they do not vary), and m their mean with ``subtract_mean``, else 0. ``clip`` null clips
    nothing. An empty response, which has no reward, is paid ``unparseable`` and counts in no moment.
    """

    subtract_mean: bool
    clip: float | None
    unparseable: float
    truncation_penalty: float
    _moments: "Moments" = field(init=False, default_factory=lambda: Moments())

    needs = frozenset({"preferences"})

    def __post_init__(self) -> None:
        check_ranges(self, not_negative("truncation_penalty"), positive("clip"))

    def observe(self, judged: Sequence[Judged]) -> Metrics:
        """Add this step's rewards to the moments; the metrics are of unscaled rewards."""
        rewards = [_reward(each) for each in judged if each.feedback.verdict is not Verdict.UNPARSEABLE]
        for reward in rewards:
            self._moments.add(reward)
        metrics = {"reward/running_mean": self._moments.mean, "reward/running_std": self._moments.deviation}
        if rewards:
            metrics |= {"reward/raw/mean": math.fsum(rewards) / len(rewards)}
            metrics |= {"reward/raw/max": max(rewards), "reward/raw/min": min(rewards)}
            metrics["reward/clip_ratio"] = sum(self._clipped(r) != self._scaled(r) for r in rewards) / len(rewards)
        return metrics

    def __call__(self, judged: Judged) -> list[float]:
        empty = judged.feedback.verdict is Verdict.UNPARSEABLE
        pay = self.unparseable if empty else self._clipped(_reward(judged))
        last = pay - (0.0 if judged.rollout.finished else self.truncation_penalty)
        return [0.0] * (len(judged.rollout.actions) - 1) + [last]

    def state_dict(self) -> StateDict:
        return {"count": self._moments.count, "mean": self._moments.mean, "squares": self._moments.squares}

    def load_state_dict(self, state: StateDict) -> None:
        self._moments = Moments(**state)

    def _scaled(self, reward: float) -> float:
        return (reward - (self._moments.mean if self.subtract_mean else 0.0)) / self._moments.deviation

    def _clipped(self, reward: float) -> float:
        limit = math.inf if self.clip is None else self.clip
        return max(-limit, min(limit, self._scaled(reward)))


@dataclass
class Moments:
    """Running mean and standard deviation of numbers that are seen once (Welford, Technometrics 1962).

    mean_n = mean_{n-1} + (x_n - mean_{n-1}) / n        squares_n = squares_{n-1} + (x_n - mean_{n-1}) (x_n - mean_n)
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, number: float) -> None:
        self.count += 1
        before = number - self.mean
        self.mean += before / self.count
        self.squares += before * (number - self.mean)

    @property
    def deviation(self) -> float:
        """sqrt(squares / n), the population's; 1 where that is too small to divide by."""
        deviation = math.sqrt(self.squares / self.count) if self.count else 0.0
        return deviation if deviation > 1e-8 else 1.0


def _reward(judged: Judged) -> float:
    """The reward model's number, which a task that gives preferences must have as evidence."""
    reward = judged.feedback.evidence.get("reward")
    if not isinstance(reward, float | int):
        raise TypeError(f"evidence['reward']: expected the reward model's number, got {reward!r}")
    return float(reward)
