"""RLTF's reward: graded outcomes, relative to a greedy response, and penalties on the tokens that are to blame."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rrl.interfaces import Decode, Reward, StateDict
from rrl.parts.rewards.outcomes import Pay, gravest
from rrl.parts.rewards.regions import Region, responsible
from rrl.parts.rewards.token_spans import token_spans, tokens_over
from rrl.ranges import check_ranges, not_negative
from rrl.types import Feedback, Metrics, Rollout, State, Verdict
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
        """Begin with this tokenizer and a way to have greedy responses judged."""
        self._tokenizer, self._decode = tokenizer, decode

    def observe(self, rollouts: Sequence[Rollout], feedback: Sequence[Feedback]) -> Metrics:
        """Have the baselines written and judged; count the regions."""
        pairs = list(zip(rollouts, feedback, strict=True))
        regions = [(r, self._region(r, judged)) for r, judged in pairs]
        found = [(r, region) for r, region in regions if region is not None]
        written = [r for r, region in found if region.stop <= len(self._text(r.state.prefix))]
        metrics = {
            "rltf/located_frac": sum(region.kind == "line" for _, region in found) / len(pairs),
            "rltf/whole_frac": sum(region.kind == "whole" for _, region in found) / len(pairs),
            "rltf/in_prefix_frac": len(written) / len(pairs),
            "rltf/outcome/mean": sum(self._outcome(judged) for _, judged in pairs) / len(pairs),
        }
        return metrics | (self._write_baselines(rollouts) if self.relative else {})

    def __call__(self, rollout: Rollout, feedback: Feedback) -> list[float]:
        """The outcome, less the baseline, and the penalties."""
        outcome = self._outcome(feedback)
        if self.relative:
            outcome -= self._baselines[rollout.state.problem.id]
        count = len(rollout.actions)
        paid = [outcome] * count if self.paid_on == "every" else [0.0] * (count - 1) + [outcome]
        return [pay - penalty for pay, penalty in zip(paid, self._penalties(rollout, feedback), strict=True)]

    def state_dict(self) -> StateDict:
        """The baselines of the latest step."""
        return {"baselines": dict(self._baselines)}

    def load_state_dict(self, state: StateDict) -> None:
        """Go back to saved baselines."""
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

    def _penalties(self, rollout: Rollout, feedback: Feedback) -> list[float]:
        """What each new token is to pay."""
        region = self._region(rollout, feedback) if self.penalty else None
        penalties = [0.0] * len(rollout.tokens)
        if region is not None:
            blamed = tokens_over(self._spans(rollout), region.start, region.stop)
            for index in blamed:
                penalties[index] = self.penalty / (len(blamed) if self.penalty_on == "region" else 1)
        return penalties[len(rollout.state.prefix) :]

    def _spans(self, rollout: Rollout) -> list[tuple[int, int]]:
        return token_spans(rollout.tokens, rollout.response, self._text)

    def _region(self, rollout: Rollout, feedback: Feedback) -> Region | None:
        return responsible(ProgramEvidence.of(feedback.evidence), rollout.response)

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens)))
