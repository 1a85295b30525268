"""Watches a process from a thread of its own, and ends it when a phase takes too long."""

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
from rrl.records.files import read_object, write_whole
from rrl.records.status import write_state

log = logging.getLogger(__name__)
EVERY, GRACE = 0.5, 3.0
"""Seconds between looks, and those that the other ranks get to tell where they are."""


class Watchdog:
    """Ends the run when a phase lasts longer than ``limit`` seconds (None: it may).

    The rank that finds it raises an alarm in the run's directory; every rank then writes its stacks and its last
    finished phase to its log ``file``, and leaves. All of this works while the main thread hangs; should that thread
    not even let others run (a regular expression does not), the stacks are written without Python's help.
    """

    def __init__(self, folder: Path, clock: Clock, limit: float | None, file: IO[Any]) -> None:
        self._folder, self._clock, self._limit, self._file = folder, clock, limit, file
        self._alarm = folder / "logs" / "alarm.json"
        self._over = threading.Event()
        if limit is not None:
            self._leave_in(limit + 2 * GRACE)  # before the thread has come by for the first time
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def dismiss(self) -> None:
        """Watch no longer."""
        self._over.set()
        self._thread.join(GRACE)
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            if self._limit is not None:
                self._look(self._limit)
            if os.path.exists(self._alarm):
                self._end(read_object(self._alarm)[0].get("reason", "a phase takes too long"))

    def _look(self, limit: float) -> None:
        self._leave_in(limit + 2 * GRACE)  # unless this thread comes by again
        phase, seconds = self._clock.current()
        if seconds > limit and not os.path.exists(self._alarm):
            reason = f"rank {rank()} of {world_size()}: {phase} lasts {seconds:.0f} s (run.phase_limit: {limit:g})"
            with suppress(OSError):  # a full disk is no reason to hang; two ranks may tell at once
                self._raise_alarm(reason)
            self._end(reason)

    def _raise_alarm(self, reason: str) -> None:
        write_whole(self._alarm, json.dumps({"reason": reason}).encode(), durable=False)
        write_state(self._folder, "failed", f"watchdog: {reason}", world_size())

    def _end(self, reason: str) -> None:
        """Tell where this rank is, leave the others the time to do so, and go."""
        self._leave_in(2 * GRACE)  # though telling hangs, as it does on a pipe that nobody reads
        phase, seconds = self._clock.current()
        log.error(
            "watchdog: %s; rank %d is in %s for %.0f s; last finished phase: %s; stacks: %s; mend what hangs, or raise "
            "run.phase_limit; go on from the last checkpoint: rrl-train resume=%s",
            reason, rank(), phase or "preparation", seconds, self._clock.finished or "none", self._file.name,
            self._folder,
        )  # fmt: skip
        faulthandler.dump_traceback(self._file, all_threads=True)
        time.sleep(GRACE)
        os._exit(1)

    def _leave_in(self, seconds: float) -> None:
        """Write the stacks and exit with code 1 then, whatever Python does; takes the place of an earlier time."""
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._file)
