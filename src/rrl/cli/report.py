"""rrl-report: compare arms over seeds at equal budgets of generated tokens."""

import glob
import sys
from collections.abc import Sequence
from pathlib import Path

from rrl.cli import shell

HELP = """
rrl-report compares arms (groups of run directories, one per seed) at equal budgets of generated tokens.

  rrl-report out=DIR ppo='runs/ppo-s*' rrl='runs/rrl-s*'     the first arm is the one the others are compared with
  ... level=L10 mode=mean@4 tokens=100000,200000,300000      what is compared, and where

It writes report.json, report.md and curves.png into the new folder DIR and prints the table.
"""
SETTINGS = {"out": "", "level": "L10", "mode": "mean@4", "tokens": "100000,200000,300000"}


def main() -> None:
    """Entry point."""
    sys.exit(shell.run(_report, HELP))


def _report(arguments: Sequence[str]) -> None:
    from rrl.plots import learning_curves
    from rrl.report import as_markdown, compare
    from rrl.rundir import writable, write_json

    arms, settings = _read(arguments)
    out = writable(Path(settings["out"]).expanduser(), "out")
    result = compare(arms, settings["mode"], settings["level"], _numbers(settings["tokens"]))
    write_json(out / "report.json", result)
    (out / "report.md").write_text(as_markdown(result))
    learning_curves(arms, result["mode"], [result["level"]], "held-out accuracy", out / "curves.png")
    print(as_markdown(result))


def _read(arguments: Sequence[str]) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """The run directories of each arm, and the settings."""
    from rrl.errors import ConfigError

    given = dict(argument.partition("=")[::2] for argument in arguments)
    settings = {key: given.get(key, default) for key, default in SETTINGS.items()}
    arms = {arm: sorted(map(Path, glob.glob(pattern))) for arm, pattern in given.items() if arm not in SETTINGS}
    faults = [f"{arm}: no run matches {given[arm]!r}; expected run directories" for arm in arms if not arms[arm]]
    if not arms:
        faults.append("no arm given; expected NAME=PATTERN, as in ppo='runs/ppo-s*'")
    if not settings["out"]:
        faults.append("out: missing; expected a new folder")
    elif Path(settings["out"]).expanduser().exists():
        faults.append(f"out: {settings['out']!r} exists; expected a new folder; give another name or move it away")
    if not _numbers(settings["tokens"]):
        faults.append(f"tokens: expected whole numbers, got {settings['tokens']!r}")
    if faults:
        raise ConfigError(*faults)
    return arms, settings


def _numbers(text: str) -> list[int]:
    """Numbers separated by commas; none when one of them is no number."""
    parts = text.split(",")
    return [int(part) for part in parts] if all(part.strip().isdigit() for part in parts) else []


if __name__ == "__main__":
    main()
