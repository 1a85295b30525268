"""When retrospective replay collects states, and how large a share of starts they are."""

from dataclasses import dataclass

from rrl.ranges import between, check_ranges


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Times are shares of training, 0 to 1.

    States are collected from ``collect_from`` to ``collect_until``. The share of replayed starts rises linearly from 0
    at ``ramp_from`` to ``share`` at ``ramp_until``, stays, and falls from ``decay_from`` to 0 at ``decay_until``.
    """

    collect_from: float
    collect_until: float
    share: float
    ramp_from: float
    ramp_until: float
    decay_from: float
    decay_until: float

    def __post_init__(self) -> None:
        times = [self.ramp_from, self.ramp_until, self.decay_from, self.decay_until]
        check_ranges(self, between(0, 1, *self.__dataclass_fields__))
        if times != sorted(times) or self.collect_from > self.collect_until:
            raise ValueError(
                "ramp_from <= ramp_until <= decay_from <= decay_until and collect_from <= collect_until: expected, "
                f"got {times} and {[self.collect_from, self.collect_until]}"
            )

    def cautions(self) -> list[str]:
        """Schedules under which nothing is replayed."""
        if self.share == 0:
            return ["share: 0, so that nothing is replayed; sampler=problems is the same"]
        if self.ramp_from >= 1 or self.decay_until <= self.collect_from:
            return [
                f"decay_until: {self.decay_until}, collect_from: {self.collect_from}, ramp_from: {self.ramp_from}, so "
                "that replay is over before it begins; expected a decay after the first states, as with decay_until=1"
            ]
        return []

    def collecting(self, progress: float) -> bool:
        """Whether states are remembered at this moment."""
        return self.collect_from <= progress <= self.collect_until

    def share_at(self, progress: float) -> float:
        """The share of replayed starts at this moment."""
        return (
            self.share
            * _rise(progress, self.ramp_from, self.ramp_until)
            * (1 - _rise(progress, self.decay_from, self.decay_until))
        )


def _rise(progress: float, begin: float, end: float) -> float:
    if progress < begin or begin >= 1:
        return 0.0
    return 1.0 if progress >= end else (progress - begin) / (end - begin)
