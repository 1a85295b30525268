"""The manifest: everything that a result depends on, written at the start, and checked at a resume."""

import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from rrl.config.own_parts import changes, own_files
from rrl.errors import DataError
from rrl.processes.machine import installed_version
from rrl.records.files import read_object
from rrl.records.fingerprints import fingerprint, tokenizer_fingerprint
from rrl.records.run_directory import write_json
from rrl.records.secrecy import redacted
from rrl.training.templates import FORMAT, this_moment
from rrl.types import Problem

log = logging.getLogger(__name__)
PACKAGES = ("rrl", "torch", "transformers", "deepspeed", "hydra-core", "omegaconf", "wandb", "datasets", "peft")
BEGINNING = ("data", "model", "tokenizer")
"""Parts of the manifest that must be the same in a resumed run."""


def moment(folder: Path) -> datetime:
    """When the run in ``folder`` began, or now for a new run; the time in chat templates."""
    before, _ = read_object(folder / "manifest.json")
    return datetime.strptime(before["started"], FORMAT) if "started" in before else this_moment()


def manifest(
    config: Mapping[str, Any], data: Mapping[str, Sequence[Problem]], model: str, tokenizer: Any
) -> dict[str, Any]:
    """Versions, seeds, hardware, commit, and hashes of parts, data, ``model`` and tokenizer."""
    import torch

    return {
        "command": [Path(sys.argv[0]).name, *map(redacted, sys.argv[1:])],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "seed": config["seed"],
        "hardware": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "parts": own_files(config),
        "data": {
            split: {
                "problems": len(problems),
                "sha256": fingerprint(asdict(problem.example) for problem in problems),
                "prompts_sha256": fingerprint(problem.prompt for problem in problems),
            }
            for split, problems in data.items()
        },
        "model": {"sha256": model},
        "tokenizer": {"size": len(tokenizer), "sha256": tokenizer_fingerprint(tokenizer)},
    }


def _git_commit() -> str | None:
    here = Path(__file__).resolve().parents[1]
    if (here / "conf").is_dir():
        return None  # installed: a repository around it is another project's
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write_manifest(folder: Path, about: dict[str, Any], started: datetime) -> None:
    """Write the manifest of a new run, or add to it; raises DataError when a resumed run has other BEGINNING parts."""
    before, _ = read_object(folder / "manifest.json")
    if not before:
        write_json(folder / "manifest.json", {**about, "started": started.strftime(FORMAT)})
        return
    sums = {name: (_short_sums(before.get(name, about[name])), _short_sums(about[name])) for name in BEGINNING}
    faults = [
        f"{name}: not what the run in {str(folder)!r} began with (SHA-256 {old}, now {new}); expected the same; "
        "restore it, or begin a new run"
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


def _short_sums(about: Mapping[str, Any]) -> str:
    """The hashes in a part of the manifest, shortened."""
    found = [about["sha256"]] if "sha256" in about else [part["sha256"] for part in about.values()]
    return ", ".join(digest[:12] for digest in found)


def _prompts(about: Mapping[str, Any]) -> list[Any]:
    return [part.get("prompts_sha256") for part in about["data"].values()]
