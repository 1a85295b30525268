"""The present phase of a step, and the seconds and memory that each phase took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rrl.processes.machine import peak, restart_peak
from rrl.types import Metrics


class Clock:
    """Adds up wall seconds and keeps memory peaks by phase; calls ``show`` with the name of each phase that begins.

    ``finished`` is the last phase that ended ("" before any has). ``current`` is for a watchdog.
    """

    def __init__(self, show: Callable[[str], None] = lambda phase: None) -> None:
        self._show = show
        self._seconds: dict[str, float] = {}
        self._peaks: dict[str, float] = {}
        self._now: tuple[str, float] | None = None
        self._open: str | None = None
        self.finished = ""

    def enter(self, name: str) -> None:
        """Make ``name`` current without timing it, for work outside of phases."""
        self._now = (name, time.perf_counter())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block, and add it to earlier ones of this phase; the phase stays current when the block fails.

        A phase within another one interrupts that: its time and memory are its own alone.
        """
        outer, self._open = self._open, name
        if outer is not None:
            self._leave(outer)
        self._begin(name)
        try:
            yield
        finally:
            self._open = outer
        self._leave(name)
        self.finished = name
        if outer is None:
            self.enter(f"what follows {name}")
        else:
            self._begin(outer)

    def _begin(self, name: str) -> None:
        self._show(name)
        restart_peak()
        self.enter(name)

    def _leave(self, name: str) -> None:
        """Add what the phase took since it began or was interrupted."""
        assert self._now is not None, "the phase has begun"
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - self._now[1]
        self._peaks[name] = max(self._peaks.get(name, 0.0), (peak() or 0) / 2**30)

    def current(self) -> tuple[str, float]:
        """The current phase, or "what follows" the last one, and its seconds so far; ("", 0) before any."""
        now = self._now
        return ("", 0.0) if now is None else (now[0], time.perf_counter() - now[1])

    def take(self) -> Metrics:
        """Seconds by phase since the last call, as ``timing_s/<phase>``."""
        metrics = {f"timing_s/{name}": seconds for name, seconds in self._seconds.items()}
        self._seconds = {}
        return metrics

    def peaks(self) -> Metrics:
        """The known memory peaks of this process since the last call, in GiB, as ``perf/max_memory/<phase>``."""
        metrics = {f"perf/max_memory/{name}": size for name, size in self._peaks.items() if size}
        self._peaks = {}
        return metrics
