"""Which phase a step is in, how many seconds each phase took, and how much memory."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rrl.processes.machine import peak, restart_peak
from rrl.types import Metrics


class Clock:
    """Adds up wall seconds by phase, and keeps peaks of memory; ``show`` is told each phase's name as it begins.

    ``finished`` is the phase that came to its end last ("" before any has). ``current`` is for a watchdog.
    """

    def __init__(self, show: Callable[[str], None] = lambda phase: None) -> None:
        self._show = show
        self._seconds: dict[str, float] = {}
        self._peaks: dict[str, float] = {}
        self._now: tuple[str, float] | None = None
        self.finished = ""

    def enter(self, name: str) -> None:
        """What comes before the first phase is current from here on; it is not timed."""
        self._now = (name, time.perf_counter())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside; the same phase may come several times. It stays current when it fails."""
        self._show(name)
        restart_peak()
        begin = time.perf_counter()
        self._now = (name, begin)
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begin
        self._peaks[name] = max(self._peaks.get(name, 0.0), (peak() or 0) / 2**30)
        self.finished = name
        self.enter(f"what follows {name}")

    def current(self) -> tuple[str, float]:
        """The phase that goes on, or what follows the last one, and its seconds so far; ("", 0) before any."""
        now = self._now
        return ("", 0.0) if now is None else (now[0], time.perf_counter() - now[1])

    def take(self) -> Metrics:
        """Seconds by phase since the last call, as ``timing_s/<phase>``, and forget them."""
        metrics = {f"timing_s/{name}": seconds for name, seconds in self._seconds.items()}
        self._seconds = {}
        return metrics

    def peaks(self) -> Metrics:
        """The highest peak of this process's memory in each phase since the last call, in GiB, and forget them.

        Named ``perf/max_memory/<phase>``; without those that nobody tells.
        """
        metrics = {f"perf/max_memory/{name}": size for name, size in self._peaks.items() if size}
        self._peaks = {}
        return metrics
