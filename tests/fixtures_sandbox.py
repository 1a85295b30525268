"""Sandboxes for tests: small limits, one for each isolation that works here."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rrl.errors import DataError
from rrl.sandbox.inside.request import packed
from rrl.sandbox.isolation import choose
from rrl.sandbox.judge import run_of
from rrl.sandbox.limits import Limits
from rrl.sandbox.runs import Job, Run
from rrl.sandbox.sandbox import Sandbox
from rrl.sandbox.server import Server

LIMITS = Limits(
    wall_seconds=10.0, cpu_seconds=0.4, memory_mb=128, processes=8, open_files=32, file_mb=4, output_kb=64
)  # fmt: skip
"""Little time to compute and, so that a busy machine changes no verdict, much time to do it in."""


def other(**changes: Any) -> Limits:
    """The same limits with changes."""
    return Limits(**{**vars(LIMITS), **changes})


@cache
def working(level: Any) -> Any:
    """The level, where it works; else the test is skipped."""
    try:
        return choose(LIMITS, level)[0]
    except DataError as error:
        pytest.skip(str(error))


def run(sandbox: Sandbox, source: str, given: Any = "", function: str | None = None) -> Run:
    """One run."""
    [found] = sandbox.submit(Job(source, function, (given,))).result()
    return found


def ask(server: Server, source: str) -> Run:
    """One run on a server."""
    return run_of(*server.ask(packed(source, None, "")), LIMITS, prints=True)


def told(found: Run) -> tuple[str, str | None]:
    return found.status, found.error


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    tree: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        tree.setdefault(parent, []).append(int(path.parent.name))
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += tree.get(found[-1], [])
    return found
