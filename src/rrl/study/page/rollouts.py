"""The rollouts that a page keeps: whole problems, the same in all steps and runs, until the page is full."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from rrl.records.files import by_step, step_of
from rrl.study.page.rows import unfit

Row = dict[str, Any]
SOURCES = {"training": "rollouts", "evaluation": "evaluations"}
"""Where responses come from, and the folders of a run that hold them."""
RULE = (
    "all rollouts of a problem or none, the same problems in all steps and runs: those with the smallest SHA-256 of "
    "their id that fit into {megabytes:g} MB of records (keep=)"
)


@dataclass(frozen=True)
class Dump:
    """A file of responses: of which run on the page, from training or evaluation, at which step."""

    run: int
    source: str
    step: int
    path: Path


@dataclass
class Census:
    """What all files hold, before anything is left out."""

    sizes: Counter[str]
    steps: list[dict[str, Any]]
    faults: list[str]


def dumps_of(run: int, folder: Path) -> list[Dump]:
    """A run's files of responses in the order of their steps."""
    return [
        Dump(run, source, step_of(path), path)
        for source, inner in SOURCES.items()
        for path in by_step(folder / inner)
        if path.suffix == ".jsonl"
    ]


def census(dumps: Sequence[Dump], names: Sequence[str]) -> Census:
    """Count all rollouts: bytes by problem, verdicts by step. ``names`` are those of the runs."""
    found = Census(Counter(), [], [])
    for dump in dumps:
        verdicts: Counter[str] = Counter()
        score, torn, foreign = 0.0, 0, Counter[str]()
        for _, row, size in _lines(dump.path, found.faults, names[dump.run]):
            lacks = None if row is None else unfit(row)
            torn, foreign = torn + (row is None), foreign + Counter([lacks] if lacks else [])
            if row is not None and not lacks:
                verdicts[row["verdict"]] += 1
                score += row["score"]
                found.sizes[str(row["problem"]["id"])] += size
        found.faults += _faults(f"{names[dump.run]}: {dump.path.parent.name}/{dump.path.name}", torn, foreign)
        total = verdicts.total()
        about = {"run": dump.run, "source": dump.source, "step": dump.step, "of": total, "verdicts": dict(verdicts)}
        found.steps.append({**about, "score": round(score / total, 6) if total else None})
    return found


def _faults(where: str, torn: int, foreign: Mapping[str, int]) -> list[str]:
    faults = [f"{where}: {torn} torn lines; left out; copy the file again, or resume the run"] if torn else []
    return faults + [
        f"{where}: {count} rows without a valid {key!r}, of another version of rrl; left out; expected what this "
        "version writes; make the page with the version in the run's manifest.json"
        for key, count in foreign.items()
    ]


def chosen(sizes: Mapping[str, int], most: int) -> list[str]:
    """The problems that fit into ``most`` bytes, by the rule."""
    kept, used = [], 0
    for problem in sorted(sizes, key=lambda name: sha256(name.encode("utf-8", "backslashreplace")).digest()):
        if used + sizes[problem] <= most:
            kept.append(problem)
            used += sizes[problem]
    return kept


def kept_rows(dump: Dump, problems: Mapping[str, int]) -> list[Row]:
    """The rows of these problems, each with ``p``, the problem's number, and ``r``, its own in the file."""
    rows = ((number, row) for number, row, _ in _lines(dump.path, [], "") if row is not None and not unfit(row))
    return [
        {"r": number, "p": problems[problem], **row}
        for number, row in rows
        if (problem := str(row["problem"]["id"])) in problems
    ]


def _lines(path: Path, faults: list[str], name: str) -> Iterator[tuple[int, Row | None, int]]:
    """Number, content (None: no whole row) and bytes of each line."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file):
                yield number, _row(line), len(line)
    except OSError as error:
        faults.append(f"{name}: {path.name} cannot be read ({error.strerror}); left out; make it readable")


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
