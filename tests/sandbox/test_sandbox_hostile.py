"""Two hundred hostile programs get at nothing, leave nothing behind, and do not disturb the program after them."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import fixtures.hostile
from fixtures.sandbox import working
from rrl.sandbox.isolation import LEVELS

pytestmark = pytest.mark.clock

SOURCE = Path(__file__).resolve().parents[2] / "src" / "rrl"
THIRDS = [(level, f"quick {third} 3") for third, level in enumerate(LEVELS)]
"""By default each program is tried once."""
SLOW = [pytest.param(level, speed, marks=pytest.mark.slow) for level in LEVELS for speed in ("quick", "slow")]
NOBODY = 61184 + 4077
"""A user that no one is, also in a container that has 65,536 of them."""


def test_there_are_enough_of_them_and_all_compile() -> None:
    programs = fixtures.hostile.programs(1)
    assert len(programs) > (200 if os.uname().machine == "x86_64" else 90)
    for name, source in programs.items():
        if name not in ("a deep source",):
            compile(source, name, "exec")
    assert set(programs) >= fixtures.hostile.SLOW


@pytest.mark.parametrize(("level", "speed"), [*THIRDS, *SLOW])
def test_hostile_programs_achieve_nothing(level: str, speed: str) -> None:
    assert _reported([sys.executable, str(Path(fixtures.hostile.__file__)), working(level), speed], SOURCE.parent) == []


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    """The program and its fixtures where every user can read them."""
    folder = Path(tempfile.mkdtemp(prefix="rrl-copy-"))
    folder.chmod(0o755)
    shutil.copytree(SOURCE, folder / "rrl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(fixtures.hostile.__file__, folder / "hostile.py")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="the tests above are run by an ordinary user already")
@pytest.mark.parametrize(("level", "speed"), [("rlimits", "quick 0 8"), *SLOW])
def test_hostile_programs_of_an_ordinary_user_achieve_nothing(copy: Path, level: str, speed: str) -> None:
    python = _python_for_everybody()
    words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", python, str(copy / "hostile.py")]
    assert _reported([*words, working(level), speed], copy) == []


def _reported(command: list[str], path: Path) -> list[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def _python_for_everybody() -> str:
    """An interpreter that another user may start."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        code = "import os, sys; sys.exit(sys.version_info < (3, 10) or not os.path.exists(sys._base_executable))"
        words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", python, "-c", code]
        if shutil.which("setpriv") and subprocess.run(words, capture_output=True).returncode == 0:
            return python
    pytest.skip("there is no interpreter that another user may start")
