"""What the tests of sweeps share."""

import copy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.sweeps import FAKE, FORK, TRAIN, popen
from rrl.config import multirun
from rrl.study import sweep_plan, sweeps

QUICK_PYTHON = (sys.executable, "-I", "-S")  # without the installed packages


@pytest.fixture
def locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of device locks for this test alone, here and in its processes."""
    folder = tmp_path_factory.mktemp("locks")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def fake(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, locks: Path) -> None:
    """Jobs run a quick program in place of rrl-train; a fork composes few keys for them; there is no device."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "fake.py").write_text(FAKE)
    (folder / "train.yaml").write_text(TRAIN)
    monkeypatch.setattr(sweeps, "PROGRAM", (*QUICK_PYTHON, str(folder / "fake.py")))
    monkeypatch.setattr(sweeps, "LAUNCH", (FORK, str(folder)))
    monkeypatch.setattr(sweeps, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": popen}))
    monkeypatch.setattr(sweeps, "PAUSE", 0.05)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def own_launcher(fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher with the whole configuration, as it is."""
    monkeypatch.setattr(sweeps, "LAUNCH", (sys.executable, "-c", "from rrl.study.sweep_jobs import launch; launch()"))


@pytest.fixture(autouse=True)
def settings_of_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra's settings are composed once for equal arguments."""
    monkeypatch.setattr(sweep_plan, "settings", lambda overrides: copy.deepcopy(_settings(tuple(overrides))))


@cache
def _settings(overrides: Sequence[str]) -> tuple[Any, Any]:
    return multirun.settings(overrides)
