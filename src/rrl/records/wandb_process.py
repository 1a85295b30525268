"""Weights & Biases in a process of its own: takes lines of JSON and passes them on. The only file that imports wandb.

W&B brings a service process, threads and exit hooks that wait for one another. Here they may hang or die as they
like: training, which starts this as ``python -m rrl.records.wandb_process``, neither waits for them nor ends
with them.
"""

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

AXIS = "training/global_step"
STARTING = 10
"""How many times the patience a start may take: it imports much and training does not wait for it."""
Say = Callable[[str], None]
"""Tells training a line that a person should read."""


def main() -> None:
    """Serve standard input until it says finish, or ends."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # schedulers signal every process; this one ends after training
        signal.signal(ignored, signal.SIG_IGN)
    voice = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # W&B and its service print where nobody reads
    try:
        serve(sys.stdin, lambda line: print(" ".join(line.split()), file=voice))
    except Exception as error:
        # The end of this process is the repair: training is told why and goes on. W&B's exit hooks would wait.
        print("failed:", " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":"), file=voice)
        os._exit(1)


def serve(lines: Iterable[str], say: Say) -> None:
    """Pass calls on to W&B: a start, then the others; without a finish, training was killed and the run has failed."""
    calls = (json.loads(line) for line in lines if line.endswith("\n"))
    start = next(calls)
    patience = start["patience"]
    with _within(STARTING * patience):
        run = begin(start, say)
    for call in calls:
        with _within(patience):
            _CALLS[call["call"]](run, call)
        if call["call"] == "finish":
            return
    with _within(patience):
        run.finish(exit_code=1)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block when it takes longer."""

    def give_up(*_: Any) -> None:
        raise TimeoutError(f"no answer within {seconds:g} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(math.ceil(seconds))
    yield
    signal.alarm(0)


def begin(start: Mapping[str, Any], say: Say) -> Any:
    """A run of W&B; offline where it should be online and nothing answers."""
    import wandb

    if start["mode"] == "online":
        try:
            return _init(start, "online")
        except wandb.Error as error:
            say(f"{error}; this part of the run is kept offline; upload it by wandb sync, see docs/records.md")
            wandb.teardown()
            return _init(start, "offline")
    return _init(start, start["mode"])


def _init(start: Mapping[str, Any], mode: Any) -> Any:
    """``resume`` is "allow": the same id goes on where it was, a new id begins."""
    import wandb

    sys.argv = list(start["command"])  # W&B keeps the arguments of the process that it runs in
    given = {name: start[name] for name in ("id", "name", "project", "entity", "group", "tags", "config")}
    settings = wandb.Settings(
        console="off",
        silent=True,
        disable_git=True,
        program=os.path.basename(sys.argv[0]),
        init_timeout=start["patience"] / 2,
        x_stats_pid=start["pid"],
    )
    run = wandb.init(**given, dir=start["folder"], mode=mode, resume="allow", settings=settings)
    run.define_metric(AXIS)
    run.define_metric("*", step_metric=AXIS)
    return run


def _log(run: Any, call: Mapping[str, Any]) -> None:
    run.log({**call["metrics"], AXIS: call["step"]})


def _samples(run: Any, call: Mapping[str, Any]) -> None:
    import wandb

    rows: Sequence[Mapping[str, Any]] = call["rows"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = wandb.Table(columns=["step", *columns], data=[[call["step"], *map(row.get, columns)] for row in rows])
    run.log({"samples": table, AXIS: call["step"]})


def _summary(run: Any, call: Mapping[str, Any]) -> None:
    run.summary.update(call["result"])


def _finish(run: Any, call: Mapping[str, Any]) -> None:
    run.finish(exit_code=0 if call["complete"] else 1)


_CALLS: Mapping[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "log": _log,
    "samples": _samples,
    "summary": _summary,
    "finish": _finish,
}

if __name__ == "__main__":
    main()
