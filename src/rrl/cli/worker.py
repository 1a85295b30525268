"""One rank of a run: started by a launcher with the run's directory, reads the resolved configuration, trains.

Not a command for people: ``rrl-train launcher.num_processes=2`` starts it.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rrl.cli import shell
from rrl.cli.streams import open_streams
from rrl.config.choices import take_own_parts
from rrl.errors import UsageError
from rrl.processes.environment import OWN, PARENT
from rrl.processes.launch import take_devices, take_signals
from rrl.processes.stopping import Interrupted, leave_with_starter


def main() -> None:
    """Entry point: ``python -m rrl.cli.worker RUN PARTS``, where PARTS is the parent's RRL_PARTS if it has any."""
    open_streams()
    folder, *parts = sys.argv[1:]
    os.environ |= {OWN: parts[0]} if parts else {}
    os.environ.setdefault(PARENT, "0")
    take_devices()
    take_signals()
    shell.quieten()
    shell.leave(shell.guarded(lambda: work_together(lambda: _saved(Path(folder)))))


def work_together(choose: Callable[[], tuple[dict[str, Any], Path] | None]) -> None:
    """Train with the other ranks what the first one chooses: a configuration and a directory, or None for nothing."""
    leave_with_starter()
    from rrl.processes.distributed import from_first, leave_process_group, start_process_group

    start_process_group()
    chosen = _said_once(lambda: from_first(choose))
    if chosen is None:
        return
    config, folder = chosen
    from rrl.config.check import check
    from rrl.records.display import display
    from rrl.runs.experiment import train

    take_own_parts()
    parts = check(config)  # where a package is missing, its machine says so
    shown = display(config["algo"], every=parts.run.log_seconds)
    try:
        _said_once(lambda: train(config, parts, folder, shown))
    except Interrupted:
        leave_process_group()  # all ranks leave this way, and the launcher kills what is left when one has
        raise
    leave_process_group()


def _said_once(work: Callable[[], Any]) -> Any:
    """What it returns. A fault that a user can mend is every rank's, and it is the first one that prints it."""
    from rrl.processes.distributed import rank

    try:
        return work()
    except (UsageError, KeyboardInterrupt):
        if rank() > 0:
            time.sleep(1)  # a launcher ends all ranks when one has left: let the first one speak
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        raise


def _saved(folder: Path) -> tuple[dict[str, Any], Path]:
    from rrl.config.saved import read_config

    return read_config(folder), folder


if __name__ == "__main__":
    main()
