"""The time of the next request: so many begin in a minute, and none while the endpoint has requested a wait."""

import threading
from collections.abc import Callable


class Stopped(Exception):
    """The work is to stop."""


class Pace:
    """Shared by all threads that ask one endpoint.

    Requests begin at least ``interval`` seconds apart by ``clock``. ``wait(seconds)`` sleeps, and returns true as soon
    as the work is to stop.
    """

    def __init__(self, interval: float, clock: Callable[[], float], wait: Callable[[float], bool]) -> None:
        self._interval, self._clock, self._wait = interval, clock, wait
        self._free = clock()
        self._lock = threading.Lock()

    def turn(self) -> None:
        """Return when it is this thread's turn. Raises Stopped."""
        while (delay := self._take()) > 0:
            self.rest(delay)

    def hold(self, seconds: float) -> None:
        """Let no thread have its turn for so long."""
        with self._lock:
            self._free = max(self._free, self._clock() + seconds)

    def rest(self, seconds: float) -> None:
        """Let this thread wait. Raises Stopped."""
        if self._wait(seconds):
            raise Stopped

    def _take(self) -> float:
        """Zero when the turn is taken, else the seconds until there may be one."""
        with self._lock:
            now = self._clock()
            if now < self._free:
                return self._free - now
            self._free = now + self._interval
            return 0.0
