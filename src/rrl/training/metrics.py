"""Numbers that describe a batch of judged rollouts; fresh and replayed starts are always kept apart."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from torch import Tensor

from rrl.functional import explained_variance, kl_estimate, masked_mean
from rrl.types import Batch, Judged, Metrics, Verdict


def rollout_metrics(judged: Sequence[Judged]) -> Metrics:
    """Scores, verdicts, lengths and the realised mixture of levels."""
    rollouts, feedback = [each.rollout for each in judged], [each.feedback for each in judged]
    fresh = [each.feedback.score for each in judged if each.rollout.state.fresh]
    replayed = [each.feedback.score for each in judged if each.rollout.state.replayed]
    metrics = {
        "replay/ratio": len(replayed) / len(rollouts),
        **_spread("response_length", [float(len(r.tokens)) for r in rollouts]),
        **_spread("prompt_length", [float(len(r.state.problem.prompt)) for r in rollouts]),
        "response_length/clip_ratio": fmean(not r.finished for r in rollouts),
    }
    outcomes = Counter(str(f.evidence["outcome"]) for f in feedback if "outcome" in f.evidence)
    metrics |= {f"outcome/{name}": count / len(feedback) for name, count in outcomes.items()}
    metrics |= {f"verdict/{v.value}": fmean(f.verdict is v for f in feedback) for v in Verdict}
    if fresh:
        metrics["critic/score/fresh/mean"] = fmean(fresh)
    if replayed:
        metrics["critic/score/replayed/mean"] = fmean(replayed)
    if fresh and replayed:
        metrics["replay/gain_vs_fresh"] = fmean(replayed) - fmean(fresh)
    return metrics | _spread("critic/score", [f.score for f in feedback]) | _levels(judged)


def _levels(judged: Sequence[Judged]) -> Metrics:
    counts = Counter(each.rollout.state.problem.level for each in judged)
    metrics = {f"data/level_share/{level}": count / len(judged) for level, count in counts.items()}
    scored = [(each.rollout.state, each.feedback.score) for each in judged]
    for level in counts:
        for kind in ("fresh", "replayed"):
            scores = [score for state, score in scored if state.problem.level == level and getattr(state, kind)]
            if scores:
                metrics[f"data/level_score/{level}/{kind}"] = fmean(scores)
    return metrics


def exploration_metrics(problems: Counter[int]) -> Metrics:
    """Shares of the problems tried so far that were solved never and just once; ``problems`` are counted by solves."""
    tried = problems.total()
    return {"explore/unsolved_frac": problems[0] / tried, "explore/solved_once_frac": problems[1] / tried}


def mismatch_metrics(batch: Batch, rows: Tensor) -> Metrics:
    """Distances of the engine's log-probabilities from the policy's at the acted tokens of these ``rows`` [batch]."""
    read = batch.mask & rows.unsqueeze(1)
    difference = (batch.engine_logprobs.exp() - batch.old_logprobs.exp()).abs()
    return {
        "training/rollout_probs_diff_mean": float(masked_mean(difference, read)),
        "training/rollout_probs_diff_max": float(difference[read].max()),
        "training/rollout_kl": float(masked_mean(kl_estimate(batch.engine_logprobs, batch.old_logprobs, "k3"), read)),
    }


def batch_metrics(batch: Batch) -> Metrics:
    """Rewards, advantages, returns, values and rows without signal, after credit assignment."""
    metrics: Metrics = {}
    for name in ("rewards", "advantages", "returns", "values"):
        cells = getattr(batch, name)[batch.mask]
        metrics |= {
            f"critic/{name}/mean": float(cells.mean()),
            f"critic/{name}/max": float(cells.max()),
            f"critic/{name}/min": float(cells.min()),
        }
    metrics["critic/vf_explained_var"] = float(explained_variance(batch.values, batch.returns, batch.mask))
    silent = (batch.advantages.abs() * batch.mask).sum(1) < 1e-8
    metrics["explore/zero_signal_frac"] = float(silent.float().mean())
    if batch.ref_logprobs.any():
        metrics["actor/ref_kl"] = float((batch.old_logprobs - batch.ref_logprobs)[batch.mask].mean())
    return metrics


def _spread(name: str, numbers: Sequence[float]) -> Metrics:
    return {f"{name}/mean": fmean(numbers), f"{name}/max": max(numbers), f"{name}/min": min(numbers)}
