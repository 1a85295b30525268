"""One run as the page shows it: read from its folder alone, with a line for everything that cannot be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrl.records.files import modes, read_object, read_yaml, whole_rows
from rrl.records.secrecy import hidden
from rrl.records.status import RunState, read_state
from rrl.study.comparison import is_evaluation
from rrl.study.page.curves import curves, phases


@dataclass(frozen=True, kw_only=True)
class RunRecords:
    """A run's records but its rollouts. ``name`` is unique on the page; ``faults`` names each thing that is missing.

    ``curves`` and ``phases`` are all that is kept of metrics.jsonl, which may be long.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    state: RunState
    curves: Mapping[str, Any]
    phases: Mapping[str, float]
    evaluations: Sequence[Mapping[str, Any]]
    faults: Sequence[str]

    @property
    def seed(self) -> int | None:
        """The seed in its manifest or configuration."""
        found = self.manifest.get("seed", self.config.get("seed"))
        return found if isinstance(found, int) else None

    @property
    def is_comparable(self) -> bool:
        """Whether it can be in a table of results."""
        return self.state.state == "finished" and bool(self.evaluations) and isinstance(self.manifest.get("seed"), int)

    @property
    def modes(self) -> list[str]:
        """The ways of sampling of its last evaluation."""
        return modes(self.evaluations[-1]) if self.evaluations else []


def read_runs(folders: Sequence[Path], points: int) -> list[RunRecords]:
    """All runs, with ``points`` rows of each one's metrics, named with as many parents as tell each from the others."""
    return [_read_run(folder, name, points) for folder, name in zip(folders, _names(folders), strict=True)]


def _names(folders: Sequence[Path]) -> list[str]:
    paths = [folder.absolute().parts for folder in folders]
    for depth in range(1, max(map(len, paths), default=0) + 1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _read_run(folder: Path, name: str, points: int) -> RunRecords:
    config, _ = read_yaml(folder / "config.yaml")  # the state names its faults
    manifest, manifest_faults = read_object(folder / "manifest.json")
    state = read_state(folder)
    metrics = _rows(folder / "metrics.jsonl")
    evaluations = [row for row in _rows(folder / "evaluations.jsonl") if is_evaluation(row)]
    faults = [*state.faults, *manifest_faults, *_gaps(state, manifest.get("seed"), metrics, evaluations)]
    if not (folder / "config.yaml").exists():
        faults = ["no config.yaml, so no run is there; in no table; expected the directory of a run"]
    return RunRecords(
        folder=folder,
        name=name,
        config=hidden(config) if isinstance(config, dict) else {},
        manifest=hidden(manifest),
        state=state,
        curves=curves(metrics, evaluations, points),
        phases=phases(metrics),
        evaluations=evaluations,
        faults=[f"{name}: {fault}" for fault in faults],
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return sorted(whole_rows(path), key=lambda row: int(row["step"]))
    except OSError:
        return []  # the state of the run names it


def _gaps(state: RunState, seed: Any, metrics: Sequence[Any], evaluations: Sequence[Any]) -> list[str]:
    """What the page shows less of, and how to get it; and what the run warned of."""
    gaps = []
    if state.state not in ("finished", "running"):
        why = "" if state.reason is None else f" ({state.reason.splitlines()[0]})"
        gaps.append(f"{state.state}{why}; in the curves, in no table; continue it: rrl-train resume={state.folder}")
    if state.state == "running":
        gaps.append("still running; in the curves, in no table; make the page again at its end")
    if state.state == "finished" and seed is None:
        gaps.append("no seed in manifest.json; in no table; restore the file from a copy")
    if not metrics:
        gaps.append("no whole row in metrics.jsonl; without curves; restore the file from a copy")
    if not evaluations:
        remedy = f"in no table; measure its model: rrl-evaluate from_run={state.folder}"
        gaps.append(f"no evaluation of this version of rrl in evaluations.jsonl; {remedy}")
    return [*gaps, *(f"warning: {text}" for text in state.warnings)]
