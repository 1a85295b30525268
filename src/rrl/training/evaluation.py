"""Measuring a model on held-out problems: one code path inside training and from the command line."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

import torch

from rrl.contracts import border
from rrl.interfaces import RolloutEngine, Task
from rrl.processes.distributed import spread
from rrl.ranges import at_least_one, between, check_ranges, not_negative
from rrl.training.intervals import normal, wilson
from rrl.types import Metrics, Problem, Sampling, State, Verdict

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Measures one greedy response a problem, and ``n`` sampled ones.

    ``split`` names the task's problems, of which ``limit`` of each level are used (null: all), evenly from their other
    strata; ``temperature`` is that of the samples (null: the engine's); ``seed`` fixes them, the same at every
    evaluation.
    """

    split: str
    limit: int | None
    n: int
    temperature: float | None
    seed: int

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("limit"), not_negative("n"), between(0, 100, "temperature"))

    def idle(self) -> dict[str, str]:
        """Keys without effect, and why."""
        return {} if self.n else {"temperature": "evaluation.n is 0"}

    def choose(self, problems: Sequence[Problem]) -> list[Problem]:
        """The first ``limit`` problems of each level, its strata taking turns; in their order."""
        if self.limit is None:
            return list(problems)
        turns = Counter[tuple[Any, ...]]()
        levels = defaultdict[str, list[tuple[int, int]]](list)
        for number, problem in enumerate(problems):
            stratum = (problem.level, *problem.example.strata.items())
            levels[problem.level].append((turns[stratum], number))
            turns[stratum] += 1
        chosen = [number for level in levels.values() for _, number in sorted(level)[: self.limit]]
        return [problems[number] for number in sorted(chosen)]

    def responses(self, problems: int) -> int:
        """The number of responses to so many problems."""
        return problems * (1 + self.n)

    def measure(self, problems: Sequence[Problem], task: Task, engine: RolloutEngine) -> dict[str, Any]:
        """Accuracy overall, by level and by stratum with 95 % intervals; always starts from prompts alone."""
        shape = engine.sampling
        if self.temperature is not None:
            shape = replace(shape, temperature=self.temperature)
        result: dict[str, Any] = {"split": self.split, "seed": self.seed, "problems": len(problems)}
        result["greedy"] = self._mode(problems, task, engine, replace(shape, temperature=0.0), 1)
        if self.n:
            result[f"mean@{self.n}"] = self._mode(problems, task, engine, shape, self.n)
        return result

    def _mode(
        self, problems: Sequence[Problem], task: Task, engine: RolloutEngine, sampling: Sampling, n: int
    ) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(self.seed)
        states = [State(problem) for problem in problems for _ in range(n)]
        rollouts = border.rollouts(engine, states, sampling, generator, border.begin(task))
        feedback = spread(rollouts, partial(border.feedback, task))
        known = [f for f in feedback if f.verdict is not Verdict.ERROR]
        failed = len(feedback) - len(known)
        if failed:
            log.warning("evaluation: the verifier failed on %d of %d responses", failed, len(feedback))
        answers = [feedback[i : i + n] for i in range(0, len(feedback), n)]
        outcomes = [[float(f.solved) for f in row if f.verdict is not Verdict.ERROR] for row in answers]
        judged = [problem for problem, row in zip(problems, outcomes, strict=True) if row]
        solved = [row for row in outcomes if row]
        strata = [problem.example.strata for problem in judged]
        kinds = sorted({kind for row in strata for kind in row})
        return {
            **accuracy(solved),
            "score": fmean(f.score for f in known) if known else 0.0,
            "error_frac": 1 - len(known) / len(feedback),
            "levels": _by([problem.level for problem in judged], solved, lambda level: (len(level), level)),
            "strata": {kind: _by([row.get(kind) for row in strata], solved, str) for kind in kinds},
            "verdicts": {v.value: sum(f.verdict is v for f in feedback) for v in Verdict},
            "truncated": fmean(not r.finished for r in rollouts),
            "sampling": asdict(sampling),
            "samples": [
                {"question": r.state.problem.example.question, "response": r.response} for r in rollouts[: 4 * n : n]
            ],
        }


def accuracy(scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Mean of per-problem means with its 95 % interval.

    One 0/1 score a problem: Wilson's interval (Wilson, JASA 1927). Several: the normal interval with problems as
    the independent units, because responses to one problem are not independent; Wilson's again where all problems
    agree, because without a deviation the normal interval would have no width. Without problems the accuracy is 0
    with the interval [0, 1].
    """
    if not scores:
        return {"accuracy": 0.0, "interval95": [0.0, 1.0], "n_problems": 0, "n_samples": 0}
    means = [fmean(row) for row in scores]
    n, mean = len(means), fmean(means)
    of_shares = all(len(row) == 1 for row in scores) or len(set(means)) == 1 < n
    interval = wilson(mean, n) if of_shares else normal(means)
    return {"accuracy": mean, "interval95": interval, "n_problems": n, "n_samples": max(map(len, scores))}


def _by(names: Sequence[str | None], scores: Sequence[Sequence[float]], order: Callable[[str], Any]) -> dict[str, Any]:
    """Accuracy of the problems of each name; those without one are left out."""
    found = sorted({name for name in names if name is not None}, key=order)
    return {name: accuracy([row for row, own in zip(scores, names, strict=True) if own == name]) for name in found}


def evaluation_metrics(result: dict[str, Any], source: str) -> Metrics:
    """The result as flat metrics.

    ``val-core/<source>/acc/<mode>``, ``val-core/<source>/error_frac/<mode>`` (responses that the verifier failed on),
    ``val/<source>/<level>/acc/<mode>``, ``val/<source>/<kind>:<stratum>/acc/<mode>``.
    """
    metrics: Metrics = {}
    for mode, part in result.items():
        if isinstance(part, dict):
            metrics[f"val-core/{source}/acc/{mode}"] = part["accuracy"]
            metrics[f"val-core/{source}/error_frac/{mode}"] = part["error_frac"]
            metrics |= {f"val/{source}/{level}/acc/{mode}": x["accuracy"] for level, x in part["levels"].items()}
            for kind, strata in part["strata"].items():
                metrics |= {f"val/{source}/{kind}:{name}/acc/{mode}": x["accuracy"] for name, x in strata.items()}
    return metrics
