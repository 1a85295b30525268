"""Weights & Biases in a separate process: passes lines of JSON to it. The only file that imports wandb.

W&B starts a service process, threads and exit hooks that wait for one another. If they hang or die here, training,
which starts this as ``python -m rrl.records.wandb_process``, is not affected.
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
"""The limit of a start, in multiples of the patience: it imports much, and training does not wait for it."""
Say = Callable[[str], None]
"""Sends training a message to the user."""


def main() -> None:
    """Serve standard input until a finish, or its end."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)  # schedulers signal every process; this one ends after training
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discard what W&B and its service print
    try:
        serve(sys.stdin, lambda line: print(" ".join(line.split()), file=output))
    except Exception as error:
        # Report the failure to training, which continues, and exit without W&B's exit hooks, which would wait.
        print("failed:", " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":"), file=output)
        os._exit(1)


def serve(lines: Iterable[str], say: Say) -> None:
    """Pass calls on to W&B: a start, then the others; an end without a finish marks the W&B run as failed."""
    calls = (json.loads(line) for line in lines if line.endswith("\n"))
    start = next(calls)
    patience = start["patience"]
    with _time_limit(STARTING * patience):
        run = open_run(start, say)
    for call in calls:
        with _time_limit(patience):
            _CALLS[call["call"]](run, call)
        if call["call"] == "finish":
            return
    with _time_limit(patience):
        run.finish(exit_code=1)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in a block that takes longer."""

    def give_up(*_: Any) -> None:
        raise TimeoutError(f"no answer within {seconds:g} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(math.ceil(seconds))
    yield
    signal.alarm(0)


def open_run(start: Mapping[str, Any], say: Say) -> Any:
    """A W&B run; offline where the server does not answer."""
    import wandb

    if start["mode"] == "online":
        try:
            return _init(start, "online")
        except wandb.Error as error:
            say(f"{error}; this part of the run is kept offline; upload it with wandb sync, see docs/records.md")
            wandb.teardown()
            return _init(start, "offline")
    return _init(start, start["mode"])


def _init(start: Mapping[str, Any], mode: Any) -> Any:
    """``resume`` is "allow": a known id continues its run, a new id begins one."""
    import wandb

    sys.argv = list(start["command"])  # W&B records the arguments of its process
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


def _log_samples(run: Any, call: Mapping[str, Any]) -> None:
    import wandb

    rows: Sequence[Mapping[str, Any]] = call["rows"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = wandb.Table(columns=["step", *columns], data=[[call["step"], *map(row.get, columns)] for row in rows])
    run.log({"samples": table, AXIS: call["step"]})


_CALLS: Mapping[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "log": lambda run, call: run.log({**call["metrics"], AXIS: call["step"]}),
    "samples": _log_samples,
    "summary": lambda run, call: run.summary.update(call["result"]),
    "finish": lambda run, call: run.finish(exit_code=0 if call["complete"] else 1),
}

if __name__ == "__main__":
    main()
