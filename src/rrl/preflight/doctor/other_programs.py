"""Other programs, run with a time limit: their output or, in one line, why they failed."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

PATIENCE = 300
"""The time limit of a program, in seconds."""


def probe(name: str, *arguments: str) -> tuple[dict[str, Any], str]:
    """The result of the program ``name`` of ``probes.py``, or nothing and the reason."""
    printed, error = output_of([sys.executable, "-m", "rrl.preflight.doctor.probes", name, *arguments])
    return ({}, error) if printed is None else (json.loads(printed.splitlines()[-1]), "")


def output_of(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[str | None, str]:
    """The output of a command, or None and why it failed."""
    try:
        done = subprocess.run(
            command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return None, f"{command[0]} took longer than {PATIENCE} s"
    except OSError as error:
        return None, str(error)
    if done.returncode == 0:
        return done.stdout, ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return None, lines[-1].strip() if lines else f"{command[0]} ended with code {done.returncode}"
