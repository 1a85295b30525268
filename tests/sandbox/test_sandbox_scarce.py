"""Where this process may have too little itself, the sandbox says so, and what helps, before a run."""

import os
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from fixtures.sandbox import working
from rrl.sandbox.isolation import LEVELS

pytestmark = pytest.mark.clock

SCRIPT = """
import os, resource, sys
from fixtures.sandbox import other, run
from rrl.sandbox.sandbox import Sandbox

def said(what, most):
    resource.setrlimit(what, (most, most))
    sandbox = Sandbox(limits=other(processes=64, open_files=64), workers=1, isolation=sys.argv[1])
    try:
        sandbox.start()
        return run(sandbox, "print(42)").value
    except Exception as error:
        return f"{type(error).__name__} {error}"
    finally:
        sandbox.close()

for pair in sys.argv[2:]:
    if os.fork() == 0:
        print(said(*map(int, pair.split())), end=chr(0), flush=True)
        os._exit(0)
    os.wait()
"""
LIMITS = [(resource.RLIMIT_NOFILE, 900), (resource.RLIMIT_NOFILE, 70), (resource.RLIMIT_NOFILE, 50),
          (resource.RLIMIT_FSIZE, 2**20), (resource.RLIMIT_NPROC, 30)]  # fmt: skip


@cache
def outcomes(level: str) -> dict[tuple[int, int], str]:
    """What a process under each of the limits says, each a fork of one that has imported everything."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, level, *(f"{what} {most}" for what, most in LIMITS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return dict(zip(LIMITS, done.stdout.split("\0")[:-1], strict=True))


@pytest.mark.parametrize(
    "level", [pytest.param(level, marks=pytest.mark.slow if level == "namespaces" else []) for level in LEVELS]
)
def test_few_open_files_are_enough_as_long_as_programs_may_have_theirs(level: str) -> None:
    found = outcomes(working(level))
    assert [found[resource.RLIMIT_NOFILE, most] for most in (900, 70)] == ["42\n", "42\n"]


@pytest.mark.parametrize("level", ["bubblewrap", "rlimits"])
@pytest.mark.parametrize(
    ("what", "most", "key", "letter"),
    [
        (resource.RLIMIT_NOFILE, 50, "open_files=64", "n"),
        (resource.RLIMIT_FSIZE, 2**20, "file_mb=4", "f"),
        (resource.RLIMIT_NPROC, 30, "processes=64", "u"),
    ],
)
def test_what_programs_cannot_be_given_is_reported_with_the_key_and_the_command(
    level: str, what: int, most: int, key: str, letter: str
) -> None:
    said = outcomes(working(level))[what, most]
    if said == "42\n" and _raises_limits():
        pytest.skip("a privileged process may raise its limits")
    assert said.startswith("DataError")
    assert f"sandbox.limits.{key} is more than this process may have (ulimit -H{letter}" in said
    assert "apt-get install bubblewrap" not in said


def _raises_limits() -> bool:
    """Whether this process has CAP_SYS_RESOURCE."""
    words = Path("/proc/self/status").read_text().split()
    return bool(int(words[words.index("CapEff:") + 1], 16) >> 24 & 1)
