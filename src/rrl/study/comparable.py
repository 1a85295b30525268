"""Runs that can be compared, because they were measured on the same questions; every other one is named."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rrl.errors import DataError
from rrl.records.files import last_rows, read_object
from rrl.study.comparison import Measure, seed_of

OTHER = "were measured on other questions than {first}; expected the same task, split and evaluation.limit"


def comparable(arms: Mapping[str, Sequence[Path]], measure: Measure) -> tuple[dict[str, list[Path]], list[str]]:
    """The arms' runs that can be compared with the first, and a line for each one that is left out.

    A run is left out where the measure cannot be taken of it, or where it was measured on other questions. Raises
    DataError where none is left.
    """
    left_out = [line for folders in arms.values() for folder in folders for line in _cannot(folder, measure)]
    usable = {arm: [folder for folder in folders if not _cannot(folder, measure)] for arm, folders in arms.items()}
    asked = {folder: questions(folder) for folders in usable.values() for folder in folders}
    first = next((folder for folder, found in asked.items() if found is not None), None)
    other = [folder for folder, found in asked.items() if first is not None and found not in (None, asked[first])]
    left_out += [
        f"left out: {folder}: its accuracies {OTHER.format(first=first)}; compare it on its own: rrl-report {folder}"
        for folder in other
    ]
    kept = {arm: [folder for folder in folders if folder not in other] for arm, folders in usable.items()}
    if not any(kept.values()):
        raise DataError(*left_out)
    return {arm: folders for arm, folders in kept.items() if folders}, left_out


def _cannot(folder: Path, measure: Measure) -> list[str]:
    """Why the measure cannot be taken of a run."""
    try:
        measure.points(folder)
        seed_of(folder)
    except DataError as error:
        return [f"left out: {fault}" for fault in error.faults]
    return []


def questions(folder: Path) -> str | None:
    """What a run was measured on: the content and number of its questions. None where its records do not say."""
    manifest, _ = read_object(folder / "manifest.json")
    rows, _ = last_rows(folder / "evaluations.jsonl")
    row: Mapping[str, Any] = rows[0] if rows else {}
    data = manifest.get("data")
    split = data.get(str(row.get("split"))) if isinstance(data, dict) else None
    return f"{row.get('problems')} of {split['sha256']}" if isinstance(split, dict) and "sha256" in split else None
