"""Controls of retrospective replay: each changes one thing, so that the effect of that thing can be measured."""

from dataclasses import replace

from rrl.parts.samplers.demands import needs_failures
from rrl.parts.samplers.retrospective import Retrospective
from rrl.parts.samplers.rows import StoredState
from rrl.types import Feedback, State


class Redraw(Retrospective):
    """Starts from the prompts of the remembered states: the same problems on the same schedule, the prefix emptied."""

    replays = "prompts"

    def _state(self, stored: StoredState) -> State:
        return replace(super()._state(stored), prefix=())


class Practice(Retrospective):
    """Starts from the prompts of the remembered states as from any other prompt: a choice of problems, no replay.

    What comes of it counts for the problem, and states are collected from its failures. ``Redraw`` gives up both, to
    be the same as replay in all but the prefix; here nothing is given up. No state is ever visited, so that one leaves
    when its problem is mastered, or for want of room.
    """

    replays = "nothing"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.siblings is not None:
            raise ValueError("siblings: nothing is replayed; expected none, or another sampler as sampler=redraw")

    def _state(self, stored: StoredState) -> State:
        return State(self._problems[stored.problem_id], ())


class SuccessPrefix(Retrospective):
    """Collects states from solved responses in place of failed ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if fault := needs_failures(self.selection, "solved responses"):
            raise ValueError(f"selection: {fault}; expected another rule, or sampler=retrospective")

    def _collects(self, judged: Feedback) -> bool:
        return judged.solved


class SuccessRedraw(Redraw, SuccessPrefix):
    """The control of ``SuccessPrefix``: the same problems on the same schedule, the prefix emptied."""
