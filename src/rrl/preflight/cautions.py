"""Warnings about valid settings under which a run has no effect, shown in the plan and at the start.

A part returns its own from a method ``cautions``; here are those that depend on the length of the run.
"""

from collections.abc import Iterator

from rrl.config.check import Parts
from rrl.config.effects import collected
from rrl.training.course import Between, Course

SHORT = 20
"""Steps; a shorter run is a trial, which needs no evaluation or checkpoint on the way."""


def cautions(parts: Parts, course: Course) -> list[str]:
    """The warnings for a run of this course."""
    own = [f"{path}.{text}" for path, texts in collected(parts, "cautions") for text in texts]
    return [*own, *_not_offloaded(parts), *_all_or_nothing(parts), *_no_states(parts), *_too_late(parts, course)]


def _not_offloaded(parts: Parts) -> Iterator[str]:
    """A warning where the reference is to rest in main memory, and the run has none of its own."""
    own = parts.policy.lora is None and parts.objective.needs_reference
    if parts.policy.offloads("reference") and not own:
        yield "offload.reference: true, and the run has no frozen reference of its own; use offload=optimizer or none"


def _all_or_nothing(parts: Parts) -> Iterator[str]:
    """A warning where the pass rate of one rollout, 0 or 1, lies outside the window of rates that come again."""
    low, high = getattr(parts.sampler, "window", (0.0, 1.0))  # of prompt_replay alone
    if getattr(parts.sampler, "momentum", None) == 0 and getattr(parts.trainer, "n", 0) == 1 and 0 < low <= high < 1:
        yield (
            "sampler.momentum: 0, and with trainer.n=1 every pass rate is 0 or 1, outside sampler.window: no problem "
            "comes again; expected momentum above 0, as in 0.7, or a greater trainer.n"
        )


def _no_states(parts: Parts) -> Iterator[str]:
    """Warnings where something is made of replayed starts, or of their prefixes, of which the sampler draws none."""
    name, remedy = type(parts.sampler).__name__, "use one that replays, as in sampler=reanalyse"
    replays, siblings = parts.sampler.replays, getattr(parts.trainer, "siblings", None)
    if siblings is not None and not hasattr(parts.sampler, "siblings"):
        yield f"siblings.n_replayed: {siblings.n_replayed}, and {name} starts nothing again; {remedy}, or siblings=none"
    rollouts = getattr(parts.trainer, "train_batch_size", 0) * getattr(parts.trainer, "n", 0)
    if siblings is not None and siblings.n_replayed > rollouts:
        few = f"more than the {rollouts:,} rollouts of a step; expected fewer, as in 4"
        yield f"siblings.n_replayed: {siblings.n_replayed:,} is {few}"
    coefficient = getattr(parts.objective, "recovery_coef", 0)
    if coefficient and replays != "prefixes":
        yield f"objective.recovery_coef: {coefficient}, and {name} starts from no prefix; {remedy}, or 0"
    apart = getattr(parts.objective, "advantage_norm", None)
    if apart in ("origin", "siblings") and replays == "nothing":
        yield f"objective.advantage_norm: {apart}, and {name} starts nothing again; {remedy}, or batch"
    elif apart == "siblings" and (siblings.n_replayed if siblings else getattr(parts.trainer, "n", 0)) == 1:
        yield "objective.advantage_norm: siblings, and every start has one rollout; use siblings=replayed, or origin"


def _too_late(parts: Parts, course: Course) -> Iterator[str]:
    """Warnings for what would happen only after the end of the run."""
    steps, run = course.steps, parts.run
    warmup = getattr(parts.trainer, "critic_warmup", 0)  # not every trainer has one
    if warmup and parts.policy.critic is not None and warmup >= _estimate(steps):
        yield f"trainer.critic_warmup: {warmup}, and {_length(steps)}: the actor never moves; lower it, or train longer"
    rise = parts.policy.lr_warmup_steps
    if rise and rise >= _estimate(course.optimised):
        yield (
            f"policy.lr_warmup_steps: {rise}, and {_length(course.optimised, 'optimiser steps')}: the learning rate "
            "never reaches policy.actor_lr; lower it, or train longer"
        )
    for key, what in (("save_freq", "saved"), ("test_freq", "measured")):
        every = getattr(run, key)
        if every is not None and steps.most > SHORT and every > steps.most:
            yield f"run.{key}: {every}, and {_length(steps)}: nothing is {what} on the way; lower it"
    if steps.most == 1 and getattr(parts.trainer, "total_training_steps", None) != 1:
        yield "trainer.total_tokens: reached in the first step; raise it, or give trainer.total_training_steps"


def _estimate(number: Between) -> int:
    return number.most if number.likely is None else number.likely


def _length(number: Between, unit: str = "steps") -> str:
    about = "" if number.least == number.most else "about "
    return f"the run has {about}{_estimate(number):,} {unit}"
