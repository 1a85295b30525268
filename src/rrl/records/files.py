"""Record files that survive a kill: rewound without gaps or duplicates, written whole or not at all."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

from rrl.errors import DataError

CACHE = "RRL_CACHE"
"""The environment variable that names the folder of what is kept from run to run."""
ROWS = ("metrics.jsonl", "evaluations.jsonl")
"""The files of rows with a ``step`` of their own; the first has one row for every step from 0 on."""
STATES = "states.jsonl"
"""The file of rows with a ``step``, any number of them a step."""
DUMPS = ("rollouts", "evaluations")
"""The folders of files by step."""
TAIL = 2**14
"""Bytes at the end of a file that are read first: some rows of metrics."""

Rows = list[tuple[int, bytes]]
"""Steps and their lines in the file."""


def rewind(folder: Path, step: int | None) -> None:
    """Rewind a run's records to the checkpoint of ``step``.

    metrics.jsonl, evaluations.jsonl and states.jsonl keep their whole rows up to ``step``; files of later steps in
    rollouts/ and evaluations/ and result.json are removed. None or -1 keeps nothing. Raises DataError, and changes no
    file, when a row of a step is missing or duplicated: the records then do not describe the checkpoint's history.
    """
    last = -1 if step is None else step
    kept = {folder / name: _rows_until(folder / name, last) for name in ROWS}
    counts = {path: Counter(step for step, _ in rows) for path, rows in kept.items()}
    metrics, every = folder / ROWS[0], f"one for each step from 0 to {last}; restore the file from a copy"
    faults = _faults_at(metrics, "no whole row", sorted(set(range(last + 1)) - counts[metrics].keys()), every)
    for path, found in counts.items():
        repeated = sorted(step for step, count in found.items() if count > 1)
        faults += _faults_at(path, "more than one row", repeated, "one; delete the wrong ones")
    if faults:
        raise DataError(*faults)
    for path, rows in {**kept, folder / STATES: _rows_until(folder / STATES, last)}.items():
        if path.exists():
            write_whole(path, b"".join(line + b"\n" for _, line in rows))
    late = [path for name in DUMPS for path in by_step(folder / name) if step_of(path) > last]
    for path in (*late, folder / "result.json"):
        path.unlink(missing_ok=True)
    put_on_disk(folder)


def sync(folder: Path) -> None:
    """Flush every row to disk, so that no checkpoint is newer than the records after a loss of power."""
    for name in (*ROWS, STATES):
        if (folder / name).exists():
            put_on_disk(folder / name)
    put_on_disk(folder)


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a temporary file and rename it: the file is the old or the new one, even with concurrent writers.

    If ``durable``, the content is flushed to disk before the rename, and the rename after it.
    """
    aside = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        aside.write_bytes(content)
        if durable:
            put_on_disk(aside)
        aside.replace(path)
    finally:
        with suppress(OSError):  # it exists only where something failed
            aside.unlink()
    if durable:
        put_on_disk(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which gets the name ``path`` once all is written; nothing of it stays otherwise."""
    aside = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def nearest_there(folder: Path) -> Path:
    """The folder or, where it does not exist yet, its nearest existing parent; a dangling link exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))


def read_object(path: Path) -> tuple[dict[str, Any], list[str]]:
    """A JSON object and no fault; or an empty one, with a fault unless the file does not exist."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError) as error:
        return {}, [fault(path, error)]
    return (content, []) if isinstance(content, dict) else ({}, [f"{path.name} is no JSON object"])


def read_yaml(path: Path) -> tuple[Any, list[str]]:
    """What a YAML file says, references as they are; or None and a fault."""
    import yaml

    try:
        return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), []
    except (OSError, yaml.YAMLError, ValueError) as error:
        return None, [fault(path, error)]


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a file in order; none where there is no file."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return [row for line in lines if (row := row_of(line)) is not None]


def modes(evaluation: Mapping[str, Any]) -> list[str]:
    """The ways of sampling in a row of evaluations.jsonl, greedy last."""
    return sorted((name for name, part in evaluation.items() if isinstance(part, dict)), key="greedy".__eq__)


def accuracy_of(evaluation: Mapping[str, Any]) -> float:
    """The accuracy that ranks checkpoints and jobs: the sampled one if any, else the greedy one."""
    return float(evaluation[modes(evaluation)[0]]["accuracy"])


def by_step(folder: Path) -> list[Path]:
    """The entries of a folder named like step-000050 or step-000050.jsonl, in the order of their steps."""
    return sorted((path for path in folder.glob("step-*") if step_of(path) >= 0), key=step_of)


def step_name(step: int) -> str:
    """As in step-000050."""
    return f"step-{step:06d}"


def step_of(path: Path) -> int:
    """The step in such a name; -1 for any other name."""
    found = re.fullmatch(r"step-(\d+)(?:\.jsonl)?", path.name)
    return int(found[1]) if found else -1


def last_rows(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Some whole rows from the end of a file, latest first; a fault where it has content but no whole row."""
    try:
        with path.open("rb") as file:
            end, size = file.seek(0, os.SEEK_END), TAIL
            while True:
                start = file.seek(max(0, end - size))
                lines = file.read(end - start).split(b"\n")  # the first may be cut off
                rows = [row for line in reversed(lines) if (row := row_of(line)) is not None]
                if rows or start == 0:
                    return rows, [f"{path.name} has no whole row"] if end and not rows else []
                size *= 4
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [fault(path, error)]


def fault(path: Path, error: Exception) -> str:
    """Why a file cannot be read, in one line."""
    why = error.strerror if isinstance(error, OSError) else str(error).split("\n")[0]
    return f"{path.name} cannot be read ({why})"


def _rows_until(path: Path, last: int) -> Rows:
    """The whole rows of steps 0 to ``last``."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    rows = ((row_of(line), line) for line in lines)
    return [(row["step"], line) for row, line in rows if row is not None and 0 <= row["step"] <= last]


def row_of(line: bytes) -> dict[str, Any] | None:
    """The row; None where the line is incomplete: cut by a kill, being written, zeros after a loss of power."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int else None


def _faults_at(path: Path, what: str, steps: Sequence[int], expected: str) -> list[str]:
    """The fault of a file at these steps, if there are any."""
    remedy = "resume from an earlier checkpoint, or begin a new run"
    return [f"{path}: {what} of step {_spans(steps)}; expected {expected}, {remedy}"] if steps else []


def _spans(numbers: Sequence[int], most: int = 5) -> str:
    """Ascending numbers as ranges, as in 3, 7-9."""
    starts = [numbers[0], *(after for before, after in pairwise(numbers) if after > before + 1)]
    ends = [*(before for before, after in pairwise(numbers) if after > before + 1), numbers[-1]]
    spans = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    return ", ".join(spans[:most]) + (", ..." if len(spans) > most else "")


def put_on_disk(path: Path) -> None:
    """Flush a file's content, or a folder's names, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
