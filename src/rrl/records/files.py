"""Record files that survive a kill: taken back without hole or double, on disk, whole or absent, free of secrets."""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

from rrl.errors import DataError

ROWS = ("metrics.jsonl", "evaluations.jsonl")
"""The files of rows with a ``step``; the first has one row for every step from 0 on."""
TAIL = 2**14
"""Bytes at the end of a file that are looked at first: some rows of metrics."""

Rows = list[tuple[int, bytes]]
"""Steps and their lines as they stand in the file."""


def rewind(folder: Path, step: int | None) -> None:
    """Take a run's records back to the checkpoint of ``step``, as if nothing had been done since.

    metrics.jsonl and evaluations.jsonl keep their whole rows up to ``step``; rollouts of later steps and result.json
    are removed. None or -1 begins anew: nothing is kept. Raises DataError, with every file as it was, when a row is
    missing or double, for then the records do not tell what the checkpoint went through.
    """
    last = -1 if step is None else step
    kept = {folder / name: _rows_until(folder / name, last) for name in ROWS}
    faults = _missing(folder / ROWS[0], kept[folder / ROWS[0]], last)
    faults += [fault for path, rows in kept.items() for fault in _double(path, rows)]
    if faults:
        raise DataError(*faults)
    for path, rows in kept.items():
        if path.exists():
            write_whole(path, b"".join(line + b"\n" for _, line in rows))
    late = [path for path in by_step(folder / "rollouts") if step_of(path) > last]
    for path in (*late, folder / "result.json"):
        path.unlink(missing_ok=True)
    put_on_disk(folder)


def sync(folder: Path) -> None:
    """Have every row on disk, so that no checkpoint is newer than the records after a loss of power."""
    for name in ROWS:
        if (folder / name).exists():
            put_on_disk(folder / name)
    put_on_disk(folder)


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write aside and rename, so that the file is the old or the new one, whole, however many write it at once.

    It is on disk before it has its name, and its name after, unless it need not be ``durable``.
    """
    aside = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        aside.write_bytes(content)
        if durable:
            put_on_disk(aside)
        aside.replace(path)
    finally:
        with suppress(OSError):  # it is there only where something failed
            aside.unlink()
    if durable:
        put_on_disk(path.parent)


def nearest_there(folder: Path) -> Path:
    """The folder itself or, where it is not there yet, the nearest one above it; a link to nowhere is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))


def read_object(path: Path) -> tuple[dict[str, Any], list[str]]:
    """A JSON object and no fault; or nothing, with a fault unless the file is not there."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError) as error:
        return {}, [fault(path, error)]
    return (content, []) if isinstance(content, dict) else ({}, [f"{path.name} is no JSON object"])


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file in order, but those that are not whole; none where there is no file."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return [row for line in lines if (row := _row(line)) is not None]


def modes(evaluation: Mapping[str, Any]) -> list[str]:
    """The ways of sampling that a row of evaluations.jsonl has an accuracy of: greedy last, where there are others."""
    return sorted((name for name, part in evaluation.items() if isinstance(part, dict)), key="greedy".__eq__)


def accuracy_of(evaluation: Mapping[str, Any]) -> float:
    """The accuracy that ranks checkpoints and jobs: sampled where there is such, else greedy."""
    return float(evaluation[modes(evaluation)[0]]["accuracy"])


def by_step(folder: Path) -> list[Path]:
    """What a folder holds by names like step-000050 or step-000050.jsonl, in the order of their steps."""
    return sorted((path for path in folder.glob("step-*") if step_of(path) >= 0), key=step_of)


def step_name(step: int) -> str:
    """As in step-000050."""
    return f"step-{step:06d}"


def step_of(path: Path) -> int:
    """The step in such a name; -1 in another."""
    found = re.fullmatch(r"step-(\d+)(?:\.jsonl)?", path.name)
    return int(found[1]) if found else -1


def last_rows(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Some whole rows from the end of a file of any length, latest first; a fault where it has content but none."""
    try:
        with path.open("rb") as file:
            end, size = file.seek(0, os.SEEK_END), TAIL
            while True:
                start = file.seek(max(0, end - size))
                lines = file.read(end - start).split(b"\n")  # the first may be cut, and then is no row
                rows = [row for line in reversed(lines) if (row := _row(line)) is not None]
                if rows or start == 0:
                    return rows, [f"{path.name} has no whole row"] if end and not rows else []
                size *= 4
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [fault(path, error)]


def fault(path: Path, error: Exception) -> str:
    """Why a file cannot be read, in a line."""
    why = error.strerror if isinstance(error, OSError) else str(error).split("\n")[0]
    return f"{path.name} cannot be read ({why})"


def _rows_until(path: Path, last: int) -> Rows:
    """The whole rows of steps 0 to ``last``; a line that a kill has torn is none."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    rows = ((_row(line), line) for line in lines)
    return [(row["step"], line) for row, line in rows if row is not None and 0 <= row["step"] <= last]


def _row(line: bytes) -> dict[str, Any] | None:
    """The row, or None where a line is not whole: torn by a kill, being written, zeros after a loss of power."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int else None


def _missing(path: Path, rows: Rows, last: int) -> list[str]:
    missing = sorted(set(range(last + 1)) - {step for step, _ in rows})
    if not missing:
        return []
    return [
        f"{path}: no whole row of step {_spans(missing)}; expected one for each step from 0 to {last}; bring the file "
        "back from a copy, resume from an earlier checkpoint, or begin a new run"
    ]


def _double(path: Path, rows: Rows) -> list[str]:
    double = sorted(step for step, count in Counter(step for step, _ in rows).items() if count > 1)
    if not double:
        return []
    return [
        f"{path}: more than one row of step {_spans(double)}; expected one; delete the wrong ones, resume from an "
        "earlier checkpoint, or begin a new run"
    ]


def _spans(numbers: Sequence[int], most: int = 5) -> str:
    """Ascending numbers in a few words, as in 3, 7-9."""
    starts = [numbers[0], *(after for before, after in pairwise(numbers) if after > before + 1)]
    ends = [*(before for before, after in pairwise(numbers) if after > before + 1), numbers[-1]]
    spans = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    return ", ".join(spans[:most]) + (", ..." if len(spans) > most else "")


def put_on_disk(path: Path) -> None:
    """Have a file's content, or a folder's names, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
