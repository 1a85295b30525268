"""The records of a sweep and its jobs: files in the sweep's directory, and a table."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rrl.processes.stopping import stop_requested
from rrl.records.files import accuracy_of
from rrl.records.run_directory import write_json
from rrl.records.secrecy import referenced
from rrl.records.texts import aligned

OVER = ("finished", "pruned")
"""States of completed jobs."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The content of ``sweep.json``, which all jobs share.

    ``program`` runs each job, ``fixed`` are the keys with one value for all jobs, ``devices`` are leased to jobs (null
    where a cluster assigns them). ``search`` has the settings of ``search.Optuna`` and the values it chooses among;
    null where all combinations are run.
    """

    folder: str
    command: Sequence[str]
    program: Sequence[str]
    fixed: Sequence[str]
    devices: Sequence[str] | None
    search: Mapping[str, Any] | None

    @property
    def jobs(self) -> Path:
        """The folder of the jobs' records and logs."""
        return Path(self.folder) / "jobs"

    def stops(self) -> int:
        """1: a stop of the sweep is requested; 2: killing its running jobs is; else 0."""
        return stop_requested(Path(self.folder))

    def leaves(self, job: "SweepJob") -> bool:
        """Whether a resumed sweep leaves the job as it is: completed jobs, and in a search failed ones."""
        return job.state in OVER or (self.search is not None and job.state == "failed")


@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """The content of ``jobs/<name>.json``.

    ``state`` is waiting, running, finished, pruned (by a search), failed, interrupted or not started. ``overrides`` are
    those that differ between jobs; times are seconds since 1970; ``trial`` is the job's number in a search.
    """

    name: str
    overrides: Sequence[str]
    state: str
    reason: str | None = None
    host: str | None = None
    pid: int | None = None
    devices: Sequence[str] = ()
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    accuracy: float | None = None
    reward: float | None = None
    trial: int | None = None


def read_sweep(folder: Path) -> Sweep:
    return Sweep(folder=str(folder), **json.loads((folder / "sweep.json").read_text(encoding="utf-8")))


def write_sweep(sweep: Sweep) -> None:
    """Write ``sweep.json``, with references to secrets, so that the sweep can be resumed from it."""
    record = asdict(sweep) | {"command": referenced(sweep.command)}
    write_json(Path(sweep.folder) / "sweep.json", {k: v for k, v in record.items() if k != "folder"})


def read_jobs(folder: Path) -> list[SweepJob]:
    """All recorded jobs of a sweep, in their order."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "jobs").glob("*.json")]
    return sorted((SweepJob(**record) for record in records), key=lambda job: int(job.name.partition("_")[0]))


def read_job(sweep: Sweep, number: int) -> SweepJob | None:
    """The recorded job of this number, if any."""
    paths = [path for mark in ("", "_*") for path in sweep.jobs.glob(f"{number}{mark}.json")]
    return SweepJob(**json.loads(paths[0].read_text(encoding="utf-8"))) if paths else None


def write_job(sweep: Sweep, job: SweepJob) -> SweepJob:
    """Write ``jobs/<name>.json``; returns the job."""
    write_json(sweep.jobs / f"{job.name}.json", asdict(job))
    return job


def write_best(sweep: Sweep, jobs: Sequence[SweepJob]) -> None:
    """Write the finished job of the highest accuracy, if any, into ``best.json``."""
    found = [(job.accuracy, job) for job in jobs if job.state == "finished" and job.accuracy is not None]
    if found:
        accuracy, job = max(found, key=lambda pair: pair[0])
        content = {"job": job.name, "accuracy": accuracy, "overrides": list(job.overrides)}
        write_json(Path(sweep.folder) / "best.json", content)


def job_name(number: int, overrides: Sequence[str]) -> str:
    """A job's folder: its number and overrides, in characters that neither shells nor overrides quote."""
    texts = [re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII).strip("-") for text in overrides]
    return "_".join([str(number), *texts])[:120]


def report(jobs: Sequence[SweepJob], folder: Path) -> str:
    """All jobs as a table, and the reason and log of each unfinished one."""
    if not jobs:
        return "no job was started"
    rows = [("job", "overrides", "state", "accuracy", "reward", "seconds")]
    rows += [
        (job.name, " ".join(job.overrides), job.state, _decimals(job.accuracy), _decimals(job.reward), _duration(job))
        for job in jobs
    ]  # fmt: skip
    table = f"\n{aligned(rows, left=len(rows[0]))}"
    bad = [job for job in jobs if job.state not in OVER]
    reasons = [f"  {job.name}: {job.state}: {_reason_and_log(job, folder / 'jobs' / f'{job.name}.log')}" for job in bad]
    return "\n".join([table, f"\n{len(bad)} of {len(jobs)} jobs did not finish:", *reasons]) if bad else table


def _decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _duration(job: SweepJob) -> str:
    return "-" if job.started is None or job.ended is None else f"{job.ended - job.started:.0f}"


def _reason_and_log(job: SweepJob, log: Path) -> str:
    orphan = f"; process {job.pid} on {job.host} may still run" if job.pid else ""
    return (job.reason or f"its launcher ended before it{orphan}") + (f" ({log})" if job.started else "")


def last_accuracy(folder: Path) -> float | None:
    """The held-out accuracy in a finished run's last evaluation, as ``accuracy_of``."""
    path = folder / "result.json"
    return accuracy_of(json.loads(path.read_text(encoding="utf-8"))["after"]) if path.is_file() else None


def last_line(path: Path) -> str:
    """The last line of a log that is not blank."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")
