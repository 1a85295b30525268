"""The rehearsal of the reproductions on the real files: every cell gets a number, also after a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rrl.study.reproduce import ARMS

pytestmark = [pytest.mark.slow, pytest.mark.process]
DATA = Path(os.environ.get("RRL_DATA", Path(__file__).parents[3] / "shared" / "data"))
FILES = {"gsm8k": "gsm8k", "math": "math", "code": "apps/train_subset.jsonl.gz", "dialogue": "hh-rlhf"}


def command(task: str, folder: Path) -> list[str]:
    if not (DATA / FILES[task]).exists():
        pytest.skip(f"no {FILES[task]} in {DATA}: set RRL_DATA to the folder that holds it")
    options = ["scale=rehearsal", "seeds=0", "limit=2", "jobs=2", f"out={folder}", f"data={DATA / FILES[task]}"]
    return [sys.executable, "-m", "rrl.cli.reproduce", f"task={task}", *options]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a task's rehearsal, made at its first use."""
    done: dict[str, Path] = {}

    def make(task: str) -> Path:
        if task not in done:
            folder = tmp_path_factory.mktemp(task) / "out"
            subprocess.run(command(task, folder), check=True)
            done[task] = folder
        return done[task]

    return make


@pytest.mark.parametrize("task", ARMS)
def test_every_cell_of_every_table_gets_a_number(task: str, rehearsed: Callable[[str], Path]) -> None:
    folder = rehearsed(task)
    arms = json.loads((folder / "table.json").read_text())["arms"]
    assert list(arms) == ["sft", *ARMS[task]]
    assert all(0 <= row["ours"]["mean"] <= 100 and row["problems"] >= 2 for row in arms.values())
    assert all(row["minus"][other] is not None for row in arms.values() for other in ("ppo", "redraw")
               if row is not arms[other] and row is not arms["sft"])  # fmt: skip
    assert (folder / "report.html").stat().st_size > 10_000


def test_the_same_command_again_does_nothing(rehearsed: Callable[[str], Path]) -> None:
    folder = rehearsed("gsm8k")
    before = (folder / "ppo-s0" / "status.json").read_bytes()
    said = subprocess.run(command("gsm8k", folder), check=True, capture_output=True, text=True).stdout
    assert "begins" not in said
    assert (folder / "ppo-s0" / "status.json").read_bytes() == before


def test_a_kill_in_the_middle_and_the_same_command_end_with_the_same_table(
    rehearsed: Callable[[str], Path], tmp_path: Path
) -> None:
    whole, folder = rehearsed("gsm8k"), tmp_path / "out"
    child = subprocess.Popen(command("gsm8k", folder))
    try:
        saved = folder / "rrl-s0" / "checkpoints" / "step-000003"
        until = time.monotonic() + 600
        while not saved.exists() and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    os.kill(json.loads((folder / "rrl-s0" / "status.json").read_text())["pid"], signal.SIGKILL)
    assert not (folder / "rrl-s0" / "result.json").exists()

    subprocess.run(command("gsm8k", folder), check=True)

    assert (folder / "table.md").read_text() == (whole / "table.md").read_text()
    for run in ("sft", *(f"{arm}-s0" for arm in ARMS["gsm8k"])):
        ours, theirs = (json.loads((place / run / "result.json").read_text()) for place in (folder, whole))
        assert ours == theirs
    assert json.loads((folder / "rrl-s0" / "manifest.json").read_text())["resumed"]
