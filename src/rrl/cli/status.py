"""rrl-status: what becomes of the runs below a folder, or of one run."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from rrl.cli import shell
from rrl.errors import ConfigError
from rrl.records.status import RunState, read_state
from rrl.records.texts import visible

HELP = """
rrl-status lists the runs below a folder, the latest first: state, step, last reward, budget used, time since then.

  rrl-status                the runs below runs/, those of demos and sweeps too
  rrl-status DIR ...        the runs below other folders
  rrl-status RUN            one run: how it ended, its last checkpoint, how to resume it
  rrl-status DIR --json     a list of objects, for programs

States: running; finished; interrupted (it saved and stopped when asked to); failed (it told why);
killed (it told nothing); unknown (it has no status.json).
"""
DEEPEST = 5
"""Folders below the one given in which runs are looked for."""
COLUMNS = ("run", "state", "step", "reward", "tokens", "used", "age")
LONGEST_REASON = 60


def main() -> None:
    """Entry point."""
    sys.exit(shell.run(_status, HELP))


def _status(arguments: Sequence[str]) -> None:
    folders = [Path(argument).expanduser() for argument in arguments if not argument.startswith("-")] or [Path("runs")]
    _refuse(folders, [argument for argument in arguments if argument.startswith("-") and argument != "--json"])
    found = list(_runs(folders))
    states = sorted(map(read_state, found), key=_when, reverse=True)
    if "--json" in arguments:
        print(json.dumps([asdict(state) for state in states], indent=2, default=str))
    elif found == folders and len(folders) == 1:
        print(visible(_details(states[0])))
    elif states:
        print(visible(_table([COLUMNS, *map(_cells, states)])))
    else:
        print(f"no runs below {', '.join(map(str, folders))}; rrl-train makes one")


def _refuse(folders: Sequence[Path], options: Sequence[str]) -> None:
    faults = [f"{option}: no such option; expected folders, --json or --help" for option in options]
    faults += [
        f"{folder}: no such folder; expected a run's directory or a folder of runs, without a key before it; rrl-train "
        "makes them below runs"
        for folder in folders
        if not folder.is_dir()
    ]
    if faults:
        raise ConfigError(*faults)


def _runs(folders: Sequence[Path]) -> Iterator[Path]:
    """The directories of runs among and below the folders, each once; what lies in a run is not looked at."""
    seen: set[Path] = set()
    for _ in range(DEEPEST + 1):
        here = {folder.resolve(): folder for folder in reversed(folders)}
        fresh = [folder for real, folder in reversed(here.items()) if real not in seen]
        seen |= here.keys()
        names = {folder: _names(folder) for folder in fresh}
        runs = [f for f in fresh if "config.yaml" in names[f] and {"status.json", "metrics.jsonl"} & set(names[f])]
        yield from runs
        folders = [f / name for f in fresh if f not in runs for name in names[f] if (f / name).is_dir()]


def _names(folder: Path) -> list[str]:
    """What lies in a folder, without hidden things; nothing where we may not look."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []


def _when(state: RunState) -> float:
    """When the run began, as well as that is known."""
    try:
        return datetime.fromisoformat(str(state.started)).timestamp()
    except ValueError:
        return (state.folder / "config.yaml").stat().st_mtime


def _cells(state: RunState) -> tuple[str, ...]:
    notes = [state.reason] if state.reason and state.state == "failed" else []
    note = "; ".join([*notes, *state.faults]).split("\n")[0]
    short = note if len(note) <= LONGEST_REASON else note[: LONGEST_REASON - 3] + "..."
    return (str(state.folder), f"{state.state}: {short}" if short else state.state, *_figures(state))


def _figures(state: RunState) -> tuple[str, ...]:
    return (
        _of(state.step, state.total_steps),
        "-" if state.reward is None else f"{state.reward:.3f}",
        _of(state.tokens, state.total_tokens),
        "-" if state.share is None else f"{100 * state.share:.0f} %",
        "-" if state.age is None else _span(state.age),
    )


def _of(done: int | None, total: int | None) -> str:
    """What is done and, where there is a limit, of how much."""
    shown = "-" if done is None else f"{done:,}"
    return shown if total is None else f"{shown}/{total:,}"


def _span(seconds: float) -> str:
    """A time in its largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    layout = "  ".join(f"{{:{'<' if i < 2 else '>'}{width}}}" for i, width in enumerate(widths))
    return "\n".join(layout.format(*row).rstrip() for row in rows)


def _details(state: RunState) -> str:
    """All about one run, and what to do next."""
    step, reward, tokens, used, age = _figures(state)
    rows = [
        ("run", str(state.folder)),
        ("state", state.state),
        ("reason", " ".join((state.reason or "-").split())),
        ("started", state.started or "-"),
        ("process", f"{state.pid} on {state.host}, {state.processes} in all" if state.pid else "-"),
        ("step", step),
        ("last reward", reward),
        ("tokens", tokens),
        ("budget used", used),
        ("last row", f"{age} ago"),
        ("checkpoint", str(state.checkpoint or "none")),
        ("next", _next(state)),
        *(("damaged", fault) for fault in state.faults),
    ]
    return "\n".join(f"{name:<13}{text}" for name, text in rows)


def _next(state: RunState) -> str:
    if state.state == "finished":
        return f"rrl-evaluate from_run={state.folder}"
    if state.state in ("interrupted", "failed", "killed"):
        return f"rrl-train resume={state.folder}" + ("" if state.checkpoint else "   (from its beginning)")
    return "-"


if __name__ == "__main__":
    main()
