"""What rules share that have more written before they cut: which failures, and the metrics of what it costs."""

from collections.abc import Sequence
from random import Random

from rrl.types import Metrics, Rollout


def chosen(legal: Sequence[Sequence[int]], most: int, rng: Random) -> list[int]:
    """The numbers of the responses to examine, in order: at most so many, drawn evenly of those that can be cut."""
    able = [number for number, cuts in enumerate(legal) if cuts]
    return sorted(rng.sample(able, min(most, len(able))))


def costs(examined: int, written: Sequence[Rollout]) -> Metrics:
    """How many responses were examined, and the new tokens of what was written for it."""
    tokens = sum(len(rollout.actions) for rollout in written)
    return {"replay/examined": float(examined), "replay/examine_tokens": float(tokens)}


def share(part: int, whole: int) -> float:
    """0 of none."""
    return part / max(1, whole)
