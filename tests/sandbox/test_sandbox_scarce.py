"""Where this process may have too little itself, the sandbox says so, and what helps, before a run."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.sandbox import working
from rrl.sandbox.isolation import LEVELS

pytestmark = pytest.mark.clock

SCRIPT = """
import resource, sys
from fixtures.sandbox import other, run
from rrl.sandbox.sandbox import Sandbox

what, most, level = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
resource.setrlimit(what, (most, most))
sandbox = Sandbox(limits=other(processes=64, open_files=64), workers=1, isolation=level)
try:
    sandbox.start()
    print(run(sandbox, "print(42)").value, end="")
except Exception as error:
    print(type(error).__name__, error)
finally:
    sandbox.close()
"""


def outcome(what: int, most: int, level: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, str(what), str(most), level]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("level", LEVELS)
def test_few_open_files_are_enough_as_long_as_programs_may_have_theirs(level: str) -> None:
    assert [outcome(resource.RLIMIT_NOFILE, most, working(level)) for most in (900, 70)] == ["42\n", "42\n"]


@pytest.mark.parametrize("level", ["bubblewrap", "rlimits"])
@pytest.mark.parametrize(
    ("what", "most", "key", "letter"),
    [
        (resource.RLIMIT_NOFILE, 50, "open_files=64", "n"),
        (resource.RLIMIT_FSIZE, 2**20, "file_mb=4", "f"),
        (resource.RLIMIT_NPROC, 30, "processes=64", "u"),
    ],
)
def test_what_programs_cannot_be_given_is_told_with_the_key_and_the_command(
    level: str, what: int, most: int, key: str, letter: str
) -> None:
    said = outcome(what, most, working(level))
    if said == "42\n" and _raises_limits():
        pytest.skip("a privileged process may raise its limits")
    assert said.startswith("DataError")
    assert f"sandbox.limits.{key} is more than this process may have (ulimit -H{letter}" in said
    assert "apt-get install bubblewrap" not in said


def _raises_limits() -> bool:
    """Whether this process has CAP_SYS_RESOURCE."""
    words = Path("/proc/self/status").read_text().split()
    return bool(int(words[words.index("CapEff:") + 1], 16) >> 24 & 1)
