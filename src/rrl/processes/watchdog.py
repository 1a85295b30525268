"""A thread that ends its process when a phase takes too long, or another rank gives no sign of life."""

import faulthandler
import json
import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from rrl.processes.clock import Clock
from rrl.processes.distributed import rank, world_size
from rrl.processes.signs_of_life import SignsOfLife
from rrl.records.files import read_object, write_whole
from rrl.records.status import write_state

log = logging.getLogger(__name__)
EVERY, GRACE = 0.5, 3.0
"""Seconds between checks, and those in which the other ranks write their stacks."""
SILENCE, SHORTEST = 1 / 30, 30.0
"""The part of a phase's limit for which a rank may give no sign of life, and the least that it may, in seconds."""


class Watchdog:
    """Ends the run when a phase lasts longer than ``limit`` seconds (None: never), or a rank is silent for part of it.

    The first rank that detects it writes an alarm into the run's directory; every rank then writes its stacks and its
    last finished phase to its log ``file``, and exits. This works while the main thread hangs; where that thread blocks
    the others (a regular expression does), faulthandler writes the stacks.
    """

    def __init__(self, folder: Path, clock: Clock, limit: float | None, file: IO[Any]) -> None:
        self._folder, self._clock, self._limit, self._file = folder, clock, limit, file
        self._alarm = folder / "logs" / "alarm.json"
        self._over = threading.Event()
        self._signs = SignsOfLife()
        if limit is not None:
            self._leave_in(limit + 2 * GRACE)  # until the thread's first check
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def dismiss(self) -> None:
        self._over.set()
        self._signs.end()
        self._thread.join(GRACE)
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            if self._limit is not None:
                self._check(self._limit)
            if os.path.exists(self._alarm):
                self._end(read_object(self._alarm)[0].get("reason", "a phase takes too long"))

    def _check(self, limit: float) -> None:
        self._leave_in(limit + 2 * GRACE)  # until the next check
        reason = self._fault(limit)
        if reason is not None and not os.path.exists(self._alarm):
            self._leave_in(2 * GRACE)  # even if the run's directory is on a host that has gone
            with suppress(OSError):  # a full disk must not delay the exit; two ranks may write at once
                write_whole(self._alarm, json.dumps({"reason": reason}).encode(), durable=False)
                write_state(self._folder, "failed", f"watchdog: {reason}", world_size())
            self._end(reason)

    def _fault(self, limit: float) -> str | None:
        phase, seconds = self._clock.current()
        if seconds > limit:
            return f"rank {rank()} of {world_size()}: {phase} lasts {seconds:.0f} s (run.phase_limit: {limit:g})"
        peer, silence = self._signs.longest_silence(EVERY)
        if silence <= min(limit, max(SHORTEST, SILENCE * limit)):
            return None
        return (
            f"rank {rank()} of {world_size()}: no sign of life of rank {peer} for {silence:.0f} s (run.phase_limit: "
            f"{limit:g}); its host or the network is gone, or its process is stopped"
        )

    def _end(self, reason: str) -> None:
        """Report where this rank is, wait for the others to do so, and exit."""
        self._leave_in(2 * GRACE)  # even if reporting hangs, as on a pipe that is not read
        phase, seconds = self._clock.current()
        log.error(
            "watchdog: %s; rank %d is in %s for %.0f s; last finished phase: %s; stacks: %s; fix what hangs, or raise "
            "run.phase_limit; continue from the last checkpoint: rrl-train resume=%s",
            reason, rank(), phase or "preparation", seconds, self._clock.finished or "none", self._file.name,
            self._folder,
        )  # fmt: skip
        faulthandler.dump_traceback(self._file, all_threads=True)
        time.sleep(GRACE)
        os._exit(1)

    def _leave_in(self, seconds: float) -> None:
        """Schedule stacks and exit code 1, independent of Python's threads; replaces an earlier schedule."""
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._file)
