"""The policy in training as the author of what a selection rule has written while a step is observed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from rrl.contracts import border
from rrl.interfaces import Author, Render
from rrl.processes.distributed import spread
from rrl.training.loop import Loop
from rrl.types import Example, Judged, Problem, Rollout, Sampling, State


@dataclass(frozen=True, kw_only=True)
class LoopAuthor(Author):
    """Writes by the engine of a loop, which counts the tokens; timed as the phase ``examine``."""

    loop: Loop
    tokenizer: Any
    render: Render

    def replies(self, questions: Sequence[str], longest: int, temperature: float, seed: int) -> list[Rollout | None]:
        loop = self.loop
        prompts = self.render(questions) if questions else []
        fits = [len(prompt) + longest <= loop.limits.prompt + loop.limits.response for prompt in prompts]
        states = [_asking(prompt) for prompt, fitting in zip(prompts, fits, strict=True) if fitting]
        how = replace(loop.engine.sampling, temperature=temperature, max_new_tokens=longest, stop=())
        with loop.clock.phase("examine"):
            written = iter(self._written(states, seed, how))
        return [next(written) if fitting else None for fitting in fits]

    def judged(self, states: Sequence[State], seed: int) -> list[Judged]:
        task = self.loop.task
        with self.loop.clock.phase("examine"):
            rollouts = self._written(states, seed, None, written=border.begin(task))
            return list(map(Judged, rollouts, spread(rollouts, partial(border.feedback, task))))

    def _written(self, states: Sequence[State], seed: int, how: Sampling | None, **options: Any) -> list[Rollout]:
        if not states:
            return []
        generator, vocabulary = torch.Generator().manual_seed(seed), self.loop.limits.vocabulary
        rollouts = border.rollouts(self.loop.engine, states, how, generator, vocabulary=vocabulary, **options)
        self.loop.tokens_generated += sum(len(rollout.actions) for rollout in rollouts)
        return rollouts


def _asking(prompt: tuple[int, ...]) -> State:
    return State(Problem(Example("", "", question="", reference="", answer=""), prompt, ()))
