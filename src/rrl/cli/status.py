"""rrl-status: the states of the runs below a folder, or of one run."""

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
from rrl.records.texts import aligned, visible

HELP = """
rrl-status lists the runs below a folder, the latest first: state, step, last reward, budget used, time since then.

  rrl-status                the runs below runs/, including those of demos and sweeps
  rrl-status DIR ...        the runs below other folders
  rrl-status RUN            one run: how it ended, its last checkpoint, how to resume it
  rrl-status DIR --json     a list of objects, for programs

States: running; finished; interrupted (saved and stopped on request); failed (with a reason);
killed (without a report); unknown (without a status.json).
"""
DEEPEST = 5
"""Levels of folders to search for runs."""
COLUMNS = ("run", "state", "step", "reward", "tokens", "used", "age")
LONGEST_REASON = 60


def main() -> None:
    sys.exit(shell.run_command(_status, HELP))


def _status(arguments: Sequence[str]) -> None:
    folders = [Path(argument).expanduser() for argument in arguments if not argument.startswith("-")] or [Path("runs")]
    check_folders(folders, [argument for argument in arguments if argument.startswith("-") and argument != "--json"])
    found = list(find_runs(folders))
    states = sorted(map(read_state, found), key=when, reverse=True)
    if "--json" in arguments:
        print(json.dumps([asdict(state) for state in states], indent=2, default=str))
    elif found == folders and len(folders) == 1:
        print(visible(_details(states[0])))
    elif states:
        print(visible(aligned([COLUMNS, *map(_cells, states)], left=2)))
    else:
        print(f"no runs below {', '.join(map(str, folders))}; rrl-train makes one")


def check_folders(folders: Sequence[Path], options: Sequence[str]) -> None:
    faults = [f"{option}: no such option; expected folders, --json or --help" for option in options]
    faults += [
        f"{folder}: no such folder; expected a run's directory or a folder of runs, without a key before it; rrl-train "
        "makes them below runs"
        for folder in folders
        if not folder.is_dir()
    ]
    if faults:
        raise ConfigError(*faults)


def find_runs(folders: Sequence[Path]) -> Iterator[Path]:
    """The directories of runs among and below the folders, each once; those of runs are not searched."""
    seen: set[Path] = set()
    for _ in range(DEEPEST + 1):
        here = {folder.resolve(): folder for folder in reversed(folders)}
        fresh = [folder for real, folder in reversed(here.items()) if real not in seen]
        seen |= here.keys()
        names = {folder: _entries(folder) for folder in fresh}
        runs = [f for f in fresh if "config.yaml" in names[f] and {"status.json", "metrics.jsonl"} & set(names[f])]
        yield from runs
        folders = [f / name for f in fresh if f not in runs for name in names[f] if (f / name).is_dir()]


def _entries(folder: Path) -> list[str]:
    """The names in a folder, without hidden ones; none in an unreadable folder."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []


def when(state: RunState) -> float:
    """The start of the run, or the time of its configuration where that is unknown."""
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
        done_of_total(state.step, state.total_steps),
        "-" if state.reward is None else f"{state.reward:.3f}",
        done_of_total(state.tokens, state.total_tokens),
        "-" if state.share is None else f"{100 * state.share:.0f} %",
        "-" if state.age is None else span(state.age),
    )


def done_of_total(done: int | None, total: int | None) -> str:
    return ("-" if done is None else f"{done:,}") + ("" if total is None else f"/{total:,}")


def span(seconds: float) -> str:
    """A time in its largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _details(state: RunState) -> str:
    """One run in full, with the next command."""
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
        ("next", _next_command(state)),
        *(("warning", text) for text in state.warnings),
        *(("damaged", fault) for fault in state.faults),
    ]
    return "\n".join(f"{name:<13}{text}" for name, text in rows)


def _next_command(state: RunState) -> str:
    if state.state == "finished":
        return f"rrl-evaluate from_run={state.folder}"
    if state.state in ("interrupted", "failed", "killed"):
        return f"rrl-train resume={state.folder}" + ("" if state.checkpoint else "   (from its beginning)")
    return "-"


if __name__ == "__main__":
    main()
