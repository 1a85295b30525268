"""Worker processes that can be killed: each item that is submitted gets a reply, within its limits.

A worker is a clean interpreter that runs ``python -m module``, whose main program is ``worker_process.serve``. It stays
warm from item to item, and is replaced when it dies of one.
"""

import json
import os
import signal
import sys
import time
from collections import Counter
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from rrl.processes.pool import Pool, Worker
from rrl.processes.warm_child import Lost, WarmChild
from rrl.ranges import at_least_one, check_ranges
from rrl.records.texts import ended_with

End = Literal["done", "raised", "memory", "time_out", "crashed", "killed", "stalled", "unavailable"]

PAUSES = (0.1, 0.3, 1.0)
"""Seconds between attempts to start a worker; after the last, no worker is started until a restart."""
BEGUN, NOT_BEGUN = 2, 4
"""The most workers that may die of an item: after it reported a phase, which may be its fault, and before."""
ENDS: dict[int, End] = {-signal.SIGPROF: "time_out", -signal.SIGKILL: "killed"}
"""By exit code; any other is a crash."""


@dataclass(frozen=True, kw_only=True)
class WorkerLimits:
    """Of one item: ``seconds`` of processor time, ``patience`` seconds by the clock, ``memory_mb`` of address space."""

    seconds: float
    patience: float
    memory_mb: int

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= self.patience:
            raise ValueError(
                f"seconds, patience: expected 0 < seconds <= patience, got {self.seconds} and {self.patience}"
            )
        check_ranges(self, at_least_one("memory_mb"))


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of an item: the value of the work, or the reason why there is none, and the last phase reported.

    ``raised``, ``memory`` and ``time_out`` (processor time) are the item's fault, and so is ``crashed`` (twice, by
    a signal or an exit of its own). ``killed`` (twice, from outside), ``stalled`` (out of patience without having used
    its processor time) and ``unavailable`` (no worker starts, several times in a row) are not.
    """

    end: End
    value: Any = None
    phase: str = ""
    message: str = ""


class Workers:
    """A pool of ``count`` workers (None: one for each core) on ``module``, started at the first item."""

    def __init__(self, module: str, count: int | None, limits: WorkerLimits) -> None:
        self._module = module
        self._pool = Pool(partial(_Process, module, limits), count)

    def submit(self, item: Any) -> "Future[Reply]":
        """Submit an item, plain data; returns at once. The future always results in a reply."""
        return self._pool.submit(partial(_reply, self._module, json.dumps(item).encode()))

    def restart(self) -> None:
        """Replace every worker by a new one when it is next needed; an item in work is given to the new one."""
        self._pool.restart()

    def close(self) -> None:
        """End all workers; items not yet done end as ``unavailable``. The pool can be used again."""
        self._pool.close()


class _Died(Lost):
    """The process died of an item, or was ended because it ran out of patience."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.message)
        self.reply = reply


def _reply(module: str, item: bytes, worker: Worker[Reply]) -> Reply:
    """The reply to one item; tries another process when one died without reaching a limit."""
    deaths = Counter[bool]()  # after and before the item was begun
    pauses = iter(PAUSES)
    while not worker.broken:
        try:
            return worker.ask(item)
        except _Died as death:
            reply, pauses = death.reply, iter(PAUSES)
            deaths[bool(reply.phase)] += 1
            given_up = deaths[True] == BEGUN or deaths[False] == NOT_BEGUN
            if reply.end not in ("crashed", "killed") or given_up:
                return reply
        except OSError as error:
            pause = next(pauses, None)
            if pause is None:
                worker.broken = f"{module} does not start: {error}"
            else:
                time.sleep(pause)
        except CancelledError:
            return Reply("unavailable", message="the workers were closed")
    return Reply("unavailable", message=worker.broken)


class _Process(WarmChild[Reply]):
    parting: ClassVar[float] = 0.1  # it may compute on and on

    def __init__(self, module: str, limits: WorkerLimits) -> None:
        self._patience = limits.patience
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        super().__init__(
            [sys.executable, "-m", module, str(limits.seconds), str(limits.memory_mb)],
            cwd=package,  # python -m looks there first: nothing of the user's working directory is in the way
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        )

    def _answer(self, request: bytes) -> Reply:
        phase, deadline = "", time.monotonic() + self._patience
        try:
            self._send(request, deadline)
            while "phase" in (message := self._receive(deadline)):
                phase = message["phase"]
            return Reply(message["end"], message.get("value"), phase, message.get("message", ""))
        except TimeoutError:
            why = f"no answer within {self._patience:g} s by the clock"
            raise _Died(Reply("stalled", phase=phase, message=why)) from None
        except ConnectionError:
            code = self.end()
            raise _Died(Reply(ENDS.get(code, "crashed"), phase=phase, message=ended_with(code))) from None
