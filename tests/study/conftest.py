"""What the tests of sweeps share."""

import sys
import tempfile
from pathlib import Path

import pytest

from fixtures.sweeps import FAKE
from rrl.study import sweeps


@pytest.fixture
def locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of device locks for this test alone, here and in its processes."""
    folder = tmp_path_factory.mktemp("locks")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def fake(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, locks: Path) -> None:
    """Jobs run a quick program in place of rrl-train; there is no device."""
    program = tmp_path_factory.mktemp("program") / "fake.py"
    program.write_text(FAKE)
    monkeypatch.setattr(sweeps, "PROGRAM", (sys.executable, str(program)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
