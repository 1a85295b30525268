"""What a run began with, by its manifest: the moment, and what a resumed one must find again."""

import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rrl.errors import DataError
from rrl.own_parts import changes
from rrl.records import read_object
from rrl.rundir import write_json
from rrl.templates import FORMAT, this_moment

log = logging.getLogger(__name__)
BEGINNING = ("data", "model", "tokenizer")
"""Parts of the manifest that a run must find again when it is resumed."""


def moment(folder: Path) -> datetime:
    """When the run in ``folder`` began, or now where none has; clocks in chat templates stand at it."""
    before, _ = read_object(folder / "manifest.json")
    return datetime.strptime(before["started"], FORMAT) if "started" in before else this_moment()


def write_manifest(folder: Path, about: dict[str, Any], started: datetime) -> None:
    """What the run began with; raises DataError when a resumed one would go on with something else."""
    before, _ = read_object(folder / "manifest.json")
    if not before:
        write_json(folder / "manifest.json", {**about, "started": started.strftime(FORMAT)})
        return
    sums = {name: (_sums(before.get(name, about[name])), _sums(about[name])) for name in BEGINNING}
    faults = [
        f"{name}: not what the run in {str(folder)!r} began with (SHA-256 {old}, now {new}); expected the same; bring "
        "it back, or begin a new run"
        for name, (old, new) in sums.items()
        if old != new
    ]
    if faults:
        raise DataError(*faults)
    if _prompts(before) != _prompts(about):
        log.warning("prompts: of the same data, but not those that the run began with; another version, or a template "
                    "that depends on more than the conversation and the time")  # fmt: skip
    for text in changes(before.get("parts", {}), about["parts"]):
        log.warning("%s", text)
    again = {key: about[key] for key in ("command", "started", "packages", "git_commit", "parts")}
    write_json(folder / "manifest.json", before | {"resumed": [*before.get("resumed", []), again]})


def _sums(about: Mapping[str, Any]) -> str:
    """The hashes in a part of the manifest, in short."""
    found = [about["sha256"]] if "sha256" in about else [part["sha256"] for part in about.values()]
    return ", ".join(digest[:12] for digest in found)


def _prompts(about: Mapping[str, Any]) -> list[Any]:
    return [part.get("prompts_sha256") for part in about["data"].values()]
