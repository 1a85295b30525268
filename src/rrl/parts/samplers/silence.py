"""Says when no state is found, or nothing comes again, for many steps: why, and which metric to look at."""

import logging
from dataclasses import astuple, dataclass
from typing import Any, Literal

from rrl.interfaces import Selection
from rrl.parts.samplers.demands import examines, reads_errors

log = logging.getLogger(__name__)
PATIENCE = 20
"""Steps without a state before it is said."""
Cause = Literal["gate", "no cuts", "rule", "nothing offered"]
REASONS: dict[Cause, str] = {
    "gate": (
        "the critic explains less than selection.min_explained_variance={rule.min_explained_variance} of the returns; "
        "look at critic/vf_explained_var; lower that bound, or train the critic longer (trainer.critic_warmup)"
    ),
    "no cuts": (
        "data.cut_points={cut_points} allows no cut in any of them; look at the responses in rollouts/; use "
        "data.cut_points=token"
    ),
    "rule": ("{rule} finds none; look at replay/buffer_size and {metric}; move its bounds, or use another selection"),
    "nothing offered": (
        "the memory is empty, {evictions} states were forgotten, and no response can be collected from, so that all "
        "starts are prompts; look at replay/evictions and critic/score/fresh/mean; change sampler.schedule.collect, "
        "sampler.max_problem_success or data.level_weights"
    ),
}


@dataclass
class Finds:
    """Of one step: responses that could be collected from, those looked at, those with a legal cut, with a state."""

    offered: int
    looked_at: int = 0
    cuttable: int = 0
    found: int = 0

    def cause(self, *, gated: bool, remembered: int) -> Cause | None:
        """Why no state was found; None where one was, or the memory holds some and nothing was offered."""
        if self.found:
            return None
        if gated and self.offered:
            return "gate"
        if self.looked_at:
            return "rule" if self.cuttable else "no cuts"
        return None if remembered else "nothing offered"


@dataclass
class Silence:
    """The steps without a state so far, those of them in a row with the present cause, and what was said last."""

    steps: int = 0
    alike: int = 0
    cause: Cause | None = None
    told: Cause | None = None

    def heed(self, step: int, finds: Finds, cause: Cause | None, **about: Any) -> None:
        """Warn after ``PATIENCE`` steps, and again when another cause has lasted as long, or after a state was found.

        A step in which nothing was offered, while there are states, neither counts nor ends the silence.
        """
        if finds.found:
            self.steps, self.alike, self.cause, self.told = 0, 0, None, None
        elif cause is not None:
            self.steps, self.alike = self.steps + 1, self.alike + 1 if cause == self.cause else 1
            self.cause = cause
            if cause != self.told and (self.alike if self.told else self.steps) >= PATIENCE:
                self.told = cause
                log.warning(
                    "step %d: no state was found in %d steps: %s; reported again only when this changes",
                    step, self.steps, REASONS[cause].format(metric=metric(about["rule"]), **about),
                )  # fmt: skip

    def plain(self) -> list[Any]:
        """As plain data, for a checkpoint."""
        return list(astuple(self))


@dataclass
class Standstill:
    """The steps in a row in which a sampler brought nothing back."""

    steps: int = 0

    def heed(self, came: bool, why: str) -> None:
        """Warn after ``PATIENCE`` steps, and again only after something came."""
        self.steps = 0 if came else self.steps + 1
        if self.steps == PATIENCE:
            log.warning("in %d steps %s; reported again only when this changes", PATIENCE, why)


def metric(rule: Selection) -> str:
    """What shows why a rule finds nothing."""
    if reads_errors(rule):
        return "evidence.error_free of the rollouts in rollouts/"
    if examines(rule):
        return "replay/localized_frac or replay/recoverable_frac"
    return "critic/values/mean" if rule.needs_critic else "actor/entropy"
