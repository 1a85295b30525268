"""Rollouts that were written ahead of their step, as plain data for a checkpoint."""

from collections.abc import Mapping
from typing import Any

from rrl.types import Problem, Rollout, State


def plain(rollout: Rollout) -> tuple[Any, ...]:
    """The rollout, with the id of its problem."""
    state = rollout.state
    start = (state.problem.id, state.prefix, state.replayed_from, state.help)
    return (
        *start,
        rollout.actions,
        rollout.logprobs,
        rollout.kept,
        rollout.finished,
        rollout.response,
        rollout.version,
    )


def rollout_of(row: tuple[Any, ...], problems: Mapping[str, Problem]) -> Rollout:
    """The rollout that ``plain`` made this row of."""
    name, prefix, replayed_from, help_, *written = row
    return Rollout(State(problems[name], prefix, replayed_from, help_), *written)
