"""What is known of a sweep and of each of its jobs: files in the sweep's directory, and a table for people."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rrl.processes.stopping import asked_to_stop
from rrl.records.files import accuracy_of
from rrl.records.run_directory import write_json
from rrl.records.secrecy import referenced

OVER = ("finished", "pruned")
"""States of jobs that have nothing left to do."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What all jobs of a sweep share: ``sweep.json``.

    ``program`` is run for each job, ``fixed`` are the keys that all jobs have alike, ``devices`` are lent to jobs (null
    where a cluster hands them out). ``search`` has the settings of ``search.Optuna`` and the values it chooses among;
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
        """Where records and logs of the jobs lie."""
        return Path(self.folder) / "jobs"

    def stops(self) -> int:
        """Whether the sweep was asked to stop (1), and its running jobs to be killed (2)."""
        return asked_to_stop(Path(self.folder))

    def leaves(self, job: "Job") -> bool:
        """Whether the job stays as it is when the sweep goes on; what failed in a search has told what it could."""
        return job.state in OVER or (self.search is not None and job.state == "failed")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as ``jobs/<name>.json`` has it.

    ``state`` is waiting, running, finished, pruned (by a search), failed, interrupted or not started.
    ``overrides`` are those that differ between jobs; times are seconds since 1970; ``trial`` is the number of its
    trial in a search.
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
    """The sweep that was started in a folder."""
    return Sweep(folder=str(folder), **json.loads((folder / "sweep.json").read_text(encoding="utf-8")))


def write_sweep(sweep: Sweep) -> None:
    """Write ``sweep.json``; secrets of the command by reference, so that the sweep can go on by it."""
    record = asdict(sweep) | {"command": referenced(sweep.command)}
    write_json(Path(sweep.folder) / "sweep.json", {k: v for k, v in record.items() if k != "folder"})


def read_jobs(folder: Path) -> list[Job]:
    """All jobs of a sweep that are known so far, in their order."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "jobs").glob("*.json")]
    return sorted((Job(**record) for record in records), key=lambda job: int(job.name.partition("_")[0]))


def read_job(sweep: Sweep, number: int) -> Job | None:
    """The job of this number, if there is a record of it."""
    paths = [path for mark in ("", "_*") for path in sweep.jobs.glob(f"{number}{mark}.json")]
    return Job(**json.loads(paths[0].read_text(encoding="utf-8"))) if paths else None


def write_job(sweep: Sweep, job: Job) -> Job:
    """Write ``jobs/<name>.json``; the job itself."""
    write_json(sweep.jobs / f"{job.name}.json", asdict(job))
    return job


def write_best(sweep: Sweep, jobs: Sequence[Job]) -> None:
    """The finished job of the highest accuracy in ``best.json``; nothing where there is none."""
    found = [(job.accuracy, job) for job in jobs if job.state == "finished" and job.accuracy is not None]
    if found:
        accuracy, job = max(found, key=lambda pair: pair[0])
        content = {"job": job.name, "accuracy": accuracy, "overrides": list(job.overrides)}
        write_json(Path(sweep.folder) / "best.json", content)


def name(number: int, overrides: Sequence[str]) -> str:
    """A job's folder: its number and what differs, in characters that no shell or override has to quote."""
    told = [re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII).strip("-") for text in overrides]
    return "_".join([str(number), *told])[:120]


def report(jobs: Sequence[Job], folder: Path) -> str:
    """All jobs as a table, and the reason and log of each that did not finish."""
    if not jobs:
        return "no job was started"
    rows = [("job", "overrides", "state", "accuracy", "reward", "seconds")]
    rows += [
        (job.name, " ".join(job.overrides), job.state, _number(job.accuracy), _number(job.reward), _seconds(job))
        for job in jobs
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    bad = [job for job in jobs if job.state not in OVER]
    reasons = [f"  {job.name}: {job.state}: {_reason(job, folder / 'jobs' / f'{job.name}.log')}" for job in bad]
    return "\n".join(["", *lines, *([f"\n{len(bad)} of {len(jobs)} jobs did not finish:", *reasons] if bad else [])])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _seconds(job: Job) -> str:
    return "-" if job.started is None or job.ended is None else f"{job.ended - job.started:.0f}"


def _reason(job: Job, log: Path) -> str:
    orphan = f"; process {job.pid} on {job.host} may still run" if job.pid else ""
    return (job.reason or f"its launcher ended before it{orphan}") + (f" ({log})" if job.started else "")


def last_accuracy(folder: Path) -> float | None:
    """The held-out accuracy of a finished run: of its last evaluation, sampled if there is such, else greedy."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    return accuracy_of(json.loads(path.read_text(encoding="utf-8"))["after"])


def last_line(path: Path) -> str:
    """The last words of a log."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "without a word")
