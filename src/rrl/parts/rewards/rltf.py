"""RLTF's reward: graded outcomes, relative to a greedy response, and penalties on the tokens that are to blame."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rrl.interfaces import Decode, Reward, StateDict
from rrl.parts.rewards.outcomes import Pay, gravest
from rrl.parts.rewards.regions import Region, responsible
from rrl.ranges import check_ranges, not_negative
from rrl.spans import token_spans, tokens_over
from rrl.types import Feedback, Judged, Metrics, Rollout, State, Verdict
from rrl.verifiers.programs import Outcome, ProgramEvidence


@dataclass(kw_only=True)
class RLTF(Reward):
    """RLTF (Liu et al., arXiv 2307.04349).

    The outcome earns ``pay``; with ``adaptive`` a wrong answer earns the more, the more tests are passed, up to what
    a pass earns. With ``relative`` the same of one greedy response to the bare prompt is taken off; it is written anew
    in every step, once for each problem. The outcome is paid on the last token (``paid_on: last``), or every new token
    is paid all of it (``paid_on: every``), for an objective to which a token's pay is its advantage.

    ``penalty`` is taken off the new tokens of the region that is responsible for an error (``regions.py``): from each
    (``penalty_on: token``), or in equal shares (``penalty_on: region``). What would fall on a replayed prefix is not
    paid by anyone.
    """

    pay: Pay
    adaptive: bool
    relative: bool
    paid_on: Literal["last", "every"]
    penalty: float
    penalty_on: Literal["token", "region"]
    _baselines: dict[str, float] = field(init=False, default_factory=dict)

    needs = frozenset({"programs"})

    def __post_init__(self) -> None:
        check_ranges(self, not_negative("penalty"))

    def start(self, tokenizer: Any, decode: Decode) -> None:
        self._tokenizer, self._decode = tokenizer, decode

    def observe(self, judged: Sequence[Judged]) -> Metrics:
        """Have the baselines written and judged; count the regions."""
        found = [(each.rollout, region) for each in judged if (region := _region(each)) is not None]
        written = [r for r, region in found if region.stop <= len(self._text(r.state.prefix))]
        metrics = {
            "rltf/located_frac": sum(region.kind == "line" for _, region in found) / len(judged),
            "rltf/whole_frac": sum(region.kind == "whole" for _, region in found) / len(judged),
            "rltf/in_prefix_frac": len(written) / len(judged),
            "rltf/outcome/mean": sum(self._outcome(each.feedback) for each in judged) / len(judged),
        }
        return metrics | (self._write_baselines([each.rollout for each in judged]) if self.relative else {})

    def __call__(self, judged: Judged) -> list[float]:
        """The outcome, less the baseline, and the penalties."""
        outcome = self._outcome(judged.feedback)
        if self.relative:
            outcome -= self._baselines[judged.rollout.state.problem.id]
        count = len(judged.rollout.actions)
        paid = [outcome] * count if self.paid_on == "every" else [0.0] * (count - 1) + [outcome]
        return [pay - penalty for pay, penalty in zip(paid, self._penalties(judged), strict=True)]

    def state_dict(self) -> StateDict:
        """The baselines of the latest step."""
        return {"baselines": dict(self._baselines)}

    def load_state_dict(self, state: StateDict) -> None:
        self._baselines = dict(state["baselines"])

    def _outcome(self, feedback: Feedback) -> float:
        evidence = ProgramEvidence.of(feedback.evidence)
        outcome = gravest(evidence).outcome
        earned = self.pay.of(outcome)
        if self.adaptive and outcome is Outcome.WRONG_ANSWER and evidence.total:
            earned += (self.pay.passed - self.pay.wrong_answer) * evidence.passed / evidence.total
        return earned

    def _write_baselines(self, rollouts: Sequence[Rollout]) -> Metrics:
        """One greedy response to each problem of the batch; one that could not be judged is worth their mean."""
        problems = list({r.state.problem.id: r.state.problem for r in rollouts}.values())
        judged = self._decode([State(problem) for problem in problems])
        known = [self._outcome(f) for f in judged if f.verdict is not Verdict.ERROR]
        usual = sum(known) / len(known) if known else 0.0
        worth = [usual if f.verdict is Verdict.ERROR else self._outcome(f) for f in judged]
        self._baselines = {problem.id: value for problem, value in zip(problems, worth, strict=True)}
        failed = sum(f.verdict is Verdict.ERROR for f in judged)
        return {"rltf/baseline_reward/mean": sum(worth) / len(worth), "rltf/baseline_error_frac": failed / len(judged)}

    def _penalties(self, judged: Judged) -> list[float]:
        """What each new token is to pay."""
        rollout, region = judged.rollout, _region(judged) if self.penalty else None
        penalties = [0.0] * len(rollout.tokens)
        if region is not None:
            spans = token_spans(rollout.tokens, rollout.response, self._text)
            blamed = tokens_over(spans, region.start, region.stop)
            for index in blamed:
                penalties[index] = self.penalty / (len(blamed) if self.penalty_on == "region" else 1)
        return penalties[len(rollout.state.prefix) :]

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens)))


def _region(judged: Judged) -> Region | None:
    return responsible(ProgramEvidence.of(judged.feedback.evidence), judged.rollout.response)
