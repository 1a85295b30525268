"""A run at one of its checkpoints, assembled as a resume does it, to write from its states and to score them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from rrl.config.check import Parts
from rrl.contracts import border
from rrl.errors import ConfigError
from rrl.interfaces import StateSampler
from rrl.processes.clock import Clock
from rrl.processes.distributed import seed_everything, spread
from rrl.runs.assemble import make_trainer, prepare
from rrl.runs.checkpoint import Checkpoints
from rrl.runs.manifest import moment
from rrl.training.loop import Loop
from rrl.types import Judged, State, Verdict


@dataclass
class AuditedRun:
    """A run whose trainer can ``go_to`` its checkpoints; counts the tokens that it generates and scores."""

    folder: Path
    parts: Parts
    trainer: Loop
    tokenizer: Any
    generated: int = field(default=0, init=False)
    scored: int = field(default=0, init=False)

    def go_to(self, step: int) -> None:
        """Restore the checkpoint of this step.

        Raises DataError where it is damaged, ConfigError where another number of processes wrote it.
        """
        try:
            Checkpoints(self.folder, keep_last=1, keep_best=0).restore_step(self.trainer, step)
        except ConfigError as error:
            remedy = f"remedy: torchrun --nproc-per-node=NUMBER -m rrl.cli.audit {self.folder}"
            raise ConfigError(*error.faults, remedy) from error

    def remembered(self) -> list[State]:
        """The states that the sampler could go back to."""
        return border.remembered(self.trainer.sampler, self.trainer.limits)

    def successes(self, states: Sequence[State], count: int, seed: int) -> list[list[bool]]:
        """Whether each of ``count`` continuations of each state is right, those left out that cannot be judged."""
        return [[each.feedback.solved for each in row] for row in self.continued(states, count, seed)]

    def continued(self, states: Sequence[State], count: int, seed: int) -> list[list[Judged]]:
        """``count`` continuations of each state, judged, those left out that cannot be judged."""
        engine, task = self.trainer.engine, self.trainer.task
        repeated = [state for state in states for _ in range(count)]
        generator = torch.Generator().manual_seed(seed)
        rollouts = border.rollouts(engine, repeated, None, generator, border.begin(task))
        feedback = spread(rollouts, partial(border.feedback, task))
        self.generated += sum(len(rollout.actions) for rollout in rollouts)
        judged = list(map(Judged, rollouts, feedback))
        rows = [judged[i : i + count] for i in range(0, len(judged), count)]
        return [[each for each in row if each.feedback.verdict is not Verdict.ERROR] for row in rows]

    def scores(self, states: Sequence[State]) -> tuple[list[float], list[float]]:
        """The mean log-probability (nats) of a token of each state's prefix, and the critic's value of each state."""
        scores = self.trainer.policy.inspect(states)
        self.scored += sum(len(state.problem.prompt) + len(state.prefix) for state in states)
        return [fmean(each.logprobs) for each in scores], [each.values[-1] for each in scores]


def assembled(folder: Path, config: Mapping[str, Any], parts: Parts) -> AuditedRun:
    """The run without its warm start, whose weights those of a checkpoint replace anyway."""
    parts = replace(parts, warmstart=None)
    parts.run.limit_threads()
    seed_everything(parts.run.seed)
    parts.prompts.template.stand(moment(folder))
    prepared = prepare(config, parts, lambda progress, metrics: None)
    return AuditedRun(folder, parts, make_trainer(parts, prepared, Clock()), prepared.tokenizer)


def remembers(parts: Parts) -> bool:
    """Whether the run's sampler has states to go back to."""
    return type(parts.sampler).remembered is not StateSampler.remembered
