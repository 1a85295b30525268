"""The Makefile's targets that need data say so before they install anything."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("target", ["reproduce-rehearsal", "study-apps", "study-math", "study-gsm8k"])
def test_a_target_without_its_data_is_refused_by_name(target: str) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make", target], cwd=ROOT, env=own, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"DATA=: missing; expected where the data lie, as in make {target} DATA=FOLDER")
