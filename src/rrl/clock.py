"""Which phase a step is in, and how many seconds each phase took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rrl.types import Metrics


class Clock:
    """Adds up wall seconds by phase; ``show`` is told each phase's name as it begins."""

    def __init__(self, show: Callable[[str], None] = lambda phase: None) -> None:
        self._show = show
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside; the same phase may come several times."""
        self._show(name)
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begin

    def take(self) -> Metrics:
        """Seconds by phase since the last call, as ``timing_s/<phase>``, and forget them."""
        metrics = {f"timing_s/{name}": seconds for name, seconds in self._seconds.items()}
        self._seconds = {}
        return metrics
