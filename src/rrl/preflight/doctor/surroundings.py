"""What rrl-doctor looks at around the program: other processes, clusters, sandboxes, disks, the hub."""

import json
import os
import shutil
import socket
import tempfile
import urllib.request
from pathlib import Path

from rrl.preflight.doctor.other_programs import ask, probe
from rrl.preflight.doctor.report import Finding, fine, limited, missing
from rrl.processes.environment import PROBE
from rrl.processes.launch import runner
from rrl.processes.machine import in_words
from rrl.records.files import nearest_there

LITTLE = 5 * 2**30
"""Bytes of free disk below which it is worth saying."""
HUB = "https://huggingface.co"
SECONDS = 10.0
"""The time that the hub has to answer."""


def launcher(*, deep: bool) -> list[Finding]:
    """Whether processes of this machine can talk to each other; ``deep`` starts two."""
    try:
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
    except OSError as error:
        why = f"several processes meet at 127.0.0.1, which cannot be used: {error}"
        return [limited("launcher", "one process only", why, "ip link set lo up")]
    if not deep:
        return [fine("launcher", "loopback works; rrl-doctor --deep starts two processes")]
    found, why = _two_processes()
    if found == {"processes": 2, "sum": 3.0}:
        return [fine("launcher", "two processes, started by DeepSpeed's launcher, added up their numbers")]
    return [limited("launcher", "one process only", why or f"two processes found {found}", "keep to one")]


def _two_processes() -> tuple[dict[str, float] | None, str]:
    """What the first of two processes found, as DeepSpeed's launcher starts them, or else why not."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found"
        _, error = ask(runner(2, None, "rrl.preflight.doctor.probes", "talk"), {PROBE: str(found)})
        return (json.loads(found.read_text()), "") if found.is_file() else (None, error or "no process told anything")


def slurm() -> list[Finding]:
    """Whether jobs can be sent to a cluster from here."""
    if shutil.which("srun") is None:
        why = "only a SLURM cluster has it"
        return [missing("slurm", "no srun", why, "nothing is needed: launcher.num_processes and torchrun do without")]
    job = os.environ.get("SLURM_JOB_ID")
    return [fine("slurm", f"srun is here, {f'in job {job}' if job else 'outside a job'}")]


def sandbox() -> list[Finding]:
    """How programs that a model wrote are kept apart: the best isolation is started, and a program tries to get out."""
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
    """Where runs and warm starts are written."""
    cache = Path(os.environ.get("RRL_CACHE", "~/.cache/rrl")).expanduser()
    return [_room("runs", Path("runs"), "run.dir"), _room("cache", cache, "run.cache_dir")]


def _room(what: str, folder: Path, key: str) -> Finding:
    there = nearest_there(folder)
    if not os.access(there, os.W_OK):
        return missing(what, str(folder), f"this user may not write in {there}", f"set {key}", needed=True)
    free = shutil.disk_usage(there).free
    detail = f"{folder}: {in_words(free)} free"
    if free < LITTLE:
        return limited(what, detail, "a run's checkpoints may not fit; dry_run=true tells their size", f"set {key}")
    return fine(what, detail, needed=True)


def hub(*, deep: bool) -> list[Finding]:
    """Whether the hub of models and data answers; only ``deep`` asks it."""
    remedy = "give local folders: model.path=FOLDER data.path=FOLDER"
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", ""):
        return [limited("hub", "off by HF_HUB_OFFLINE", "what is not in the local cache cannot be loaded", remedy)]
    if not deep:
        return [fine("hub", "not asked; rrl-doctor --deep asks")]
    try:
        with urllib.request.urlopen(os.environ.get("HF_ENDPOINT", HUB), timeout=SECONDS):
            return [fine("hub", "answers")]
    except (OSError, ValueError) as error:
        return [limited("hub", "does not answer", f"{error}: only local folders and the local cache load", remedy)]
