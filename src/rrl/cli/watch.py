"""rrl-watch: running runs with their curves, verdicts, replay and last responses, live on the terminal."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rrl.cli import shell
from rrl.cli.status import check_folders, find_runs
from rrl.errors import ConfigError
from rrl.records.watching import Watcher

HELP = """
rrl-watch shows the running runs below a folder while they train: curves of reward and accuracy, the last step's
verdicts, the memory of states, and a response of each verdict from the last dump. Runs are only read.

  rrl-watch               the runs below runs/
  rrl-watch DIR ...       the runs below other folders, or one run
  ... every=2             seconds between looks

q quits; j, k and the arrows move. Without a terminal it prints once.
"""
ONCE = 80
"""Columns without a terminal."""


def main() -> None:
    sys.exit(shell.run_command(_watch, HELP))


def _watch(arguments: Sequence[str]) -> None:
    from rrl.cli.screen import Screen, page

    given, rest = shell.options(arguments, ("every",))
    unknown = [text for text in rest if text.startswith("-")]
    if unknown:
        raise ConfigError(*(f"{text}: no such option; expected folders, every= or --help" for text in unknown))
    folders = [Path(text).expanduser() for text in rest] or [Path("runs")]
    check_folders(folders, [])
    every, watcher = _seconds(given["every"] or "2"), Watcher(lambda: find_runs(folders))
    if os.environ.get("TERM", "dumb") == "dumb" or not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("\n".join(line.plain for line in page(watcher.look(), 0, ONCE, sys.maxsize)))
        print("rrl-watch: there is no terminal to show this on: printed once", file=sys.stderr)
        return
    first, key, views = 0, "", watcher.look()
    with Screen() as screen:
        while key != "quit":
            screen.show(page(views, first, screen.width, screen.height, screen.levels))
            key = screen.wait(every)
            running = sum(view.state.state == "running" for view in views)
            first = max(0, min(first + {"up": -1, "down": 1}.get(key, 0), running - 1))
            views = views if key else watcher.look()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise ConfigError(f"every: expected a number of seconds from 0.1 to 3600, got {text!r}")
    return seconds


if __name__ == "__main__":
    main()
