"""Measuring a model on held-out problems: one code path inside training and from the command line."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from rrl.contracts import border
from rrl.interfaces import RolloutEngine, Task
from rrl.processes.distributed import spread
from rrl.ranges import at_least_one, between, check_ranges, not_negative
from rrl.training.figures import doubts, report
from rrl.types import Judged, Metrics, Problem, Sampling, State, Verdict

log = logging.getLogger(__name__)
Answers = Mapping[str, Sequence[Sequence[Judged]]]
"""The judged responses to each problem, by mode: greedy or mean@n."""
SHOWN = 4
"""Problems of which a result shows the first response."""
PLAIN = ("error_frac", "length", "truncated", "unparseable")


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
        """The figures of all responses, with 95 % intervals; always starts from prompts alone."""
        return self.figures(self.answers(problems, task, engine, engine.sampling), engine.sampling)

    def answers(self, problems: Sequence[Problem], task: Task, engine: RolloutEngine, shape: Sampling) -> Answers:
        """One response to each problem, and ``n`` sampled ones, judged; ``shape`` says how, but for the temperature."""
        found: dict[str, list[list[Judged]]] = {}
        for mode, (sampling, n) in self._modes(shape).items():
            generator = torch.Generator().manual_seed(self.seed)
            states = [State(problem) for problem in problems for _ in range(n)]
            rollouts = border.rollouts(engine, states, sampling, generator, border.begin(task))
            feedback = spread(rollouts, partial(border.feedback, task))
            judged = [Judged(*pair) for pair in zip(rollouts, feedback, strict=True)]
            found[mode] = [judged[i : i + n] for i in range(0, len(judged), n)]
            failed = sum(f.verdict is Verdict.ERROR for f in feedback)
            if failed:
                log.warning("evaluation: the verifier failed on %d of %d responses", failed, len(feedback))
        return found

    def figures(self, answers: Answers, shape: Sampling) -> dict[str, Any]:
        """The figures of the responses that ``answers`` has collected; logs warnings of figures in doubt."""
        modes = self._modes(shape)
        problems = len(answers["greedy"])
        result: dict[str, Any] = {"split": self.split, "seed": self.seed, "problems": problems, "warnings": []}
        for mode, rows in answers.items():
            firsts = [row[0].rollout for row in rows[:SHOWN]]
            result[mode] = {
                **report(rows, self.seed),
                "sampling": asdict(modes[mode][0]),
                "samples": [{"question": r.state.problem.example.question, "response": r.response} for r in firsts],
            }
            result["warnings"] += doubts(mode, rows)
        for text in result["warnings"]:
            log.warning("evaluation: %s", text)
        return result

    def _modes(self, shape: Sampling) -> dict[str, tuple[Sampling, int]]:
        """How responses are drawn, and how many to each problem."""
        if self.temperature is not None:
            shape = replace(shape, temperature=self.temperature)
        modes = {"greedy": (replace(shape, temperature=0.0), 1)}
        return modes | ({f"mean@{self.n}": (shape, self.n)} if self.n else {})


def evaluation_metrics(result: dict[str, Any], source: str) -> Metrics:
    """The result as flat metrics; docs/evaluation.md explains them.

    ``val-core/<source>/<figure>/<mode>`` with the figures acc, error_frac (responses that the verifier failed on),
    length, truncated, unparseable and, of sampled modes, pass@k and maj@n; ``val/<source>/<level>/acc/<mode>``,
    ``val/<source>/<kind>:<stratum>/acc/<mode>``.
    """
    metrics: Metrics = {}
    for mode, part in result.items():
        if isinstance(part, dict):
            figures = {
                "acc": part["accuracy"],
                **{name: part[name] for name in PLAIN if name in part},
                **_of_several(part),
            }
            metrics |= {f"val-core/{source}/{name}/{mode}": value for name, value in figures.items()}
            metrics |= {f"val/{source}/{level}/acc/{mode}": x["accuracy"] for level, x in part["levels"].items()}
            for kind, strata in part["strata"].items():
                metrics |= {f"val/{source}/{kind}:{name}/acc/{mode}": x["accuracy"] for name, x in strata.items()}
    return metrics


def _of_several(part: Mapping[str, Any]) -> Metrics:
    """pass@k from k = 2 on (pass@1 is the accuracy) and maj@n, where a mode has several responses to a problem."""
    found = {f"pass@{k}": mean["value"] for k, mean in part.get("pass@k", {}).items() if k != "1"}
    vote = part.get("maj@n", {}).get("value")
    return found if vote is None else {**found, "maj@n": vote}
