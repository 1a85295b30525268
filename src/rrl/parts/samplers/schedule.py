"""When retrospective replay collects states, and how large a share of starts they are."""

from dataclasses import dataclass
from itertools import pairwise

from rrl.ranges import refuse


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Times are shares of training, 0 to 1.

    ``share`` is the share of replayed starts: a number, or points [time, share] in the order of time. It is linear
    between two points, that of the first point before it and that of the last point after it. States are collected
    from the first to the second time of ``collect``.
    """

    share: float | tuple[tuple[float, float], ...]
    collect: tuple[float, float]

    def __post_init__(self) -> None:
        points, (begin, end) = [list(point) for point in self._points], self.collect
        given = points if isinstance(self.share, tuple) else self.share
        inside = all(0 <= number <= 1 for point in points for number in point)
        rising = all(earlier < later for (earlier, _), (later, _) in pairwise(points))
        numbers = f"share: expected a number from 0 to 1, or points [time, share] of such numbers, got {given}"
        times = f"share: expected points whose times rise, as in [[0, 0], [0.3, 0.5]], got {given}"
        window = f"collect: expected two times from 0 to 1, the earlier one first, got {[begin, end]}"
        refuse({numbers: not points or not inside, times: not rising, window: not 0 <= begin <= end <= 1})

    def cautions(self) -> list[str]:
        """A schedule under which nothing is replayed."""
        begin = self.collect[0]
        shares = [self.share_at(begin), *(share for time, share in self._points if time > begin)]
        if begin < 1 and any(shares):
            return []
        states = f"states, which are collected from {begin} on"
        return [f"share: 0 while there are {states}: nothing is replayed; sampler=problems is the same"]

    def share_at(self, progress: float) -> float:
        """The share of replayed starts at this moment."""
        for (begin, low), (end, high) in pairwise(self._points):
            if progress < end:
                return low + (high - low) * max(0.0, progress - begin) / (end - begin)
        return self._points[-1][1]

    @property
    def _points(self) -> tuple[tuple[float, float], ...]:
        return self.share if isinstance(self.share, tuple) else ((0.0, self.share),)
