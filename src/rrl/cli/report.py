"""rrl-report: compare arms over seeds at equal budgets of generated tokens."""

import glob
import sys
from collections.abc import Sequence

from rrl.cli import shell

HELP = """
rrl-report compares arms (groups of run directories, one per seed) at equal budgets of generated tokens.

  rrl-report out=DIR ppo='runs/ppo-s*' rrl='runs/rrl-s*'     the first arm is the one the others are compared with
  ... level=L10 mode=mean@4 tokens=100000,200000,300000      what is compared, and where

It writes report.json, report.md and curves.png into the new folder DIR and prints the table.
"""
SETTINGS = {"out": None, "level": "L10", "mode": "mean@4", "tokens": "100000,200000,300000"}


def main() -> None:
    """Entry point."""
    sys.exit(shell.run(_report, HELP))


def _report(arguments: Sequence[str]) -> None:
    from pathlib import Path

    from rrl.errors import ConfigError
    from rrl.plots import learning_curves
    from rrl.report import as_markdown, compare
    from rrl.rundir import write_json

    given = dict(argument.partition("=")[::2] for argument in arguments)
    settings = {**SETTINGS, **{key: value for key, value in given.items() if key in SETTINGS}}
    arms = {arm: sorted(map(Path, glob.glob(pattern))) for arm, pattern in given.items() if arm not in SETTINGS}
    faults = [f"{arm}: no run matches {given[arm]!r}; expected run directories" for arm in arms if not arms[arm]]
    faults += [] if arms else ["no arm given; expected NAME=PATTERN, as in ppo='runs/ppo-s*'"]
    faults += [] if settings["out"] else ["out: missing; expected a new folder"]
    faults += (
        [f"tokens: expected whole numbers, got {settings['tokens']!r}"] if not _numbers(settings["tokens"]) else []
    )
    if faults:
        raise ConfigError(*faults)
    marks = _numbers(settings["tokens"])
    result = compare(arms, str(settings["mode"]), str(settings["level"]), marks)
    out = Path(str(settings["out"]))
    write_json(out / "report.json", result)
    (out / "report.md").write_text(as_markdown(result))
    learning_curves(arms, result["mode"], [result["level"]], "held-out accuracy", out / "curves.png")
    print(as_markdown(result))


def _numbers(text: str | None) -> list[int]:
    parts = str(text).split(",")
    return [int(part) for part in parts] if all(part.strip().isdigit() for part in parts) else []


if __name__ == "__main__":
    main()
