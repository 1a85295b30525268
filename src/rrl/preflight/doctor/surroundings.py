"""The checks of rrl-doctor outside of libraries: processes, clusters, sandboxes, disks, the hub."""

import json
import os
import shutil
import socket
import tempfile
import urllib.request
from pathlib import Path

from rrl.preflight.doctor.other_programs import output_of, probe
from rrl.preflight.doctor.report import Finding, fine, limited, missing
from rrl.processes.environment import PROBE
from rrl.processes.launch import runner
from rrl.processes.machine import in_words
from rrl.records.files import CACHE, nearest_there
from rrl.records.run_directory import cache_folder

LITTLE = 5 * 2**30
"""Bytes of free disk space below which there is a warning."""
HUB = "https://huggingface.co"
SECONDS = 10.0
"""The time limit for the hub's answer."""


def launcher(*, deep: bool) -> list[Finding]:
    """Whether processes of this machine can communicate; ``deep`` starts two."""
    try:
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
    except OSError as error:
        why = f"several processes connect at 127.0.0.1, which cannot be used: {error}"
        return [limited("launcher", "one process only", why, "ip link set lo up")]
    if not deep:
        return [fine("launcher", "loopback works; rrl-doctor --deep starts two processes")]
    found, why = _two_processes()
    if found == {"processes": 2, "sum": 3.0}:
        return [fine("launcher", "two processes, started by DeepSpeed's launcher, added up their numbers")]
    return [limited("launcher", "one process only", why or f"two processes found {found}", "use one process")]


def _two_processes() -> tuple[dict[str, float] | None, str]:
    """The result of two processes that DeepSpeed's launcher starts, or None and the reason."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found"
        _, error = output_of(runner(2, None, "rrl.preflight.doctor.probes", "talk"), {PROBE: str(found)})
        return (json.loads(found.read_text()), "") if found.is_file() else (None, error or "there was no result")


def slurm() -> list[Finding]:
    """Whether jobs can be submitted to a cluster from here."""
    if shutil.which("srun") is None:
        why, remedy = "only a SLURM cluster has it", "none needed: launcher.num_processes and torchrun work without it"
        return [missing("slurm", "no srun", why, remedy)]
    job = os.environ.get("SLURM_JOB_ID")
    return [fine("slurm", f"srun is here, {f'in job {job}' if job else 'outside a job'}")]


def sandbox() -> list[Finding]:
    """The isolation of a model's programs: starts the best one, and lets a program try to get out."""
    found, why = probe("sandbox")
    if not found:
        return [missing("sandbox", "no isolation works", why, "tasks that run programs need Linux and its /proc")]
    level, reasons, reached = found["level"], found["reasons"], found["open"]
    detail = f"{level}: {'programs reach ' + ', '.join(reached) if reached else 'no way out was found'}"
    if level == "bubblewrap" and not reached:
        return [fine("sandbox", detail)]
    why = "; ".join(f"{better} does not work: {reason}" for better, reason in reasons.items())
    return [limited("sandbox", detail, why or "see docs/sandbox.md", "apt-get install bubblewrap")]


def disk() -> list[Finding]:
    """The folders of runs and warm starts."""
    return [_disk_space("runs", Path("runs"), "run.dir"), _disk_space("cache", cache_folder(), CACHE)]


def _disk_space(what: str, folder: Path, key: str) -> Finding:
    there = nearest_there(folder)
    if not os.access(there, os.W_OK):
        return missing(what, str(folder), f"this user may not write in {there}", f"set {key}", needed=True)
    free = shutil.disk_usage(there).free
    detail = f"{folder}: {in_words(free)} free"
    if free < LITTLE:
        return limited(what, detail, "a run's checkpoints may not fit; dry_run=true prints their size", f"set {key}")
    return fine(what, detail, needed=True)


def hub(*, deep: bool) -> list[Finding]:
    """Whether the hub of models and data answers; only ``deep`` contacts it."""
    remedy = "give local folders: model.path=FOLDER data.path=FOLDER"
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", ""):
        return [limited("hub", "off by HF_HUB_OFFLINE", "what is not in the local cache cannot be loaded", remedy)]
    if not deep:
        return [fine("hub", "not contacted; rrl-doctor --deep does")]
    try:
        with urllib.request.urlopen(os.environ.get("HF_ENDPOINT", HUB), timeout=SECONDS):
            return [fine("hub", "answers")]
    except (OSError, ValueError) as error:
        return [limited("hub", "does not answer", f"{error}: only local folders and the local cache load", remedy)]
