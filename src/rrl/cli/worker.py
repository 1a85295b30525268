"""One rank of a run: a launcher starts it with the run's directory; it reads the resolved configuration and trains.

Not a user's command: ``rrl-train launcher.num_processes=2`` starts it.
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
from rrl.processes.environment import PARENT
from rrl.processes.launch import take_devices, take_signals
from rrl.processes.stopping import Interrupted, leave_with_starter


def main() -> None:
    """Entry point: ``python -m rrl.cli.worker RUN NAME=VALUE ...`` with variables of the parent's environment."""
    open_streams()
    folder, *given = sys.argv[1:]
    os.environ |= dict(text.split("=", 1) for text in given)
    os.environ.setdefault(PARENT, "0")
    take_devices()
    take_signals()
    shell.quieten()
    shell.exit_at_once(shell.guarded(lambda: work_together(lambda: _saved(Path(folder)))))


def work_together(choose: Callable[[], tuple[dict[str, Any], Path] | None]) -> None:
    """Train with the other ranks what the first one chooses: a configuration and a directory, or None."""
    leave_with_starter()
    from rrl.processes.distributed import from_first, leave_process_group, start_process_group

    start_process_group()
    chosen = _printed_once(lambda: from_first(choose))
    if chosen is None:
        return
    config, folder = chosen
    from rrl.config.check import check
    from rrl.records.display import display
    from rrl.runs.experiment import train

    take_own_parts()
    parts = check(config)  # on every machine, because a package may be missing on one
    shown = display(config["algo"])
    try:
        _printed_once(lambda: train(config, parts, folder, shown))
    except Interrupted:
        leave_process_group()  # together, because a launcher kills the other ranks when one has ended
        raise
    leave_process_group()


def _printed_once(work: Callable[[], Any]) -> Any:
    """The result of the work; a fault that a user can fix is raised on every rank, and printed by the first one."""
    from rrl.processes.distributed import rank

    try:
        return work()
    except (UsageError, KeyboardInterrupt):
        if rank() > 0:
            time.sleep(1)  # a launcher kills the other ranks when one has ended: let the first one print
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        raise


def _saved(folder: Path) -> tuple[dict[str, Any], Path]:
    from rrl.config.saved import read_config

    return read_config(folder), folder


if __name__ == "__main__":
    main()
