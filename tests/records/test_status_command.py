"""rrl-status: runs are listed with their state, one is reported in full with the way on."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.status import HOST, make_run
from rrl.cli import shell, status
from rrl.cli.screen import block
from rrl.records.status import write_state
from rrl.records.watching import FollowedRun

pytestmark = pytest.mark.clock


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of every state, the latest last in the alphabet, in folders and sweeps; other folders beside them."""
    monkeypatch.chdir(tmp_path)
    for day, (name, reported, reason) in enumerate(
        [
            ("a", "finished", None),
            ("b-sweep/0", "running", None),
            ("b-sweep/1", "failed", "loss is nan\nat step 3"),
            ("demo/c/rrl", "interrupted", "asked to"),
        ],
        start=1,
    ):
        folder = make_run(Path("runs") / name)
        write_state(folder, reported, reason)  # type: ignore[arg-type]
        reported_all = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps({**reported_all, "started": f"2030-01-0{day}T00:00:00+00:00"}))
    make_run(Path("runs/d-old"), steps=None, tokens=None)
    make_run(Path("runs/a/checkpoints/step-000001"))  # what lies in a run is no run
    make_run(Path("runs/e-only-planned"), done=None)
    make_run(Path("runs/.hidden/run"))
    for path in (tmp_path / "runs").rglob("metrics.jsonl"):
        os.utime(path, (time.time() + 3600, time.time() + 3600))  # a clock that is behind: the age is 0
    return tmp_path / "runs"


def test_runs_are_listed_with_their_state_the_latest_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status._status([])
    assert capsys.readouterr().out.splitlines() == [
        "run              state                  step  reward       tokens  used  age",
        "runs/demo/c/rrl  interrupted          40/100   0.400  2,000/6,000  40 %  0 s",
        "runs/b-sweep/1   failed: loss is nan  40/100   0.400  2,000/6,000  40 %  0 s",
        "runs/b-sweep/0   killed               40/100   0.400  2,000/6,000  40 %  0 s",
        "runs/a           finished             40/100   0.400  2,000/6,000  40 %  0 s",
        "runs/d-old       unknown                  40   0.400        2,000     -  0 s",
    ]


def test_programs_get_the_same_as_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status._status(["--json", "runs/b-sweep", "runs/a"])
    reported = json.loads(capsys.readouterr().out)
    assert [(row["folder"], row["state"], row["step"], row["reward"], row["share"]) for row in reported] == [
        ("runs/b-sweep/1", "failed", 40, 0.4, 0.4),
        ("runs/b-sweep/0", "killed", 40, 0.4, 0.4),
        ("runs/a", "finished", 40, 0.4, 0.4),
    ]
    assert reported[0]["reason"] == "loss is nan\nat step 3"


def test_one_run_is_reported_in_full_with_the_way_on(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "b-sweep/1/checkpoints/step-000030").mkdir(parents=True)
    status._status(["runs/b-sweep/1/"])
    reported = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert re.fullmatch(r" *\d s ago", reported.pop("last row"))
    assert {name: text.strip() for name, text in reported.items()} == {
        "run": "runs/b-sweep/1",
        "state": "failed",
        "reason": "loss is nan at step 3",
        "started": "2030-01-03T00:00:00+00:00",
        "process": f"{os.getpid()} on {HOST}, 1 in all",
        "step": "40/100",
        "last reward": "0.400",
        "tokens": "2,000/6,000",
        "budget used": "40 %",
        "checkpoint": "runs/b-sweep/1/checkpoints/step-000030",
        "next": "rrl-train resume=runs/b-sweep/1",
    }


def test_the_last_different_warnings_of_the_log_are_shown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = runs / "a/logs/rank-0.log"
    log.parent.mkdir()
    said = ["one", "WARNING", "two", "three", "two", "four", "four"]
    log.write_text(
        "".join(f"2030-01-01T00:00:00+0000 WARNING {text}\n" for text in said) + "x INFO five\n\nTraceback\n"
    )
    status._status(["runs/a"])
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert shown == ["warning      three", "warning      two", "warning      four"]
    assert "four" in "\n".join(map(str, block(FollowedRun(runs / "a").look(), 80)))


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("a", "rrl-evaluate from_run=runs/a"),
        ("b-sweep/0", "rrl-train resume=runs/b-sweep/0   (from its beginning)"),
        ("d-old", "-"),
    ],
)
def test_the_way_on_depends_on_the_state(name: str, way: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status._status([f"runs/{name}"])
    assert f"next         {way}" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "reported"), [([], "no runs below runs; rrl-train makes one\n"), (["--json"], "[]\n")]
)
def test_a_folder_without_runs_is_reported(
    arguments: list[str],
    reported: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    status._status(arguments)
    assert capsys.readouterr().out == reported


def test_folders_that_are_not_there_are_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert shell.guarded(lambda: status._status(["nowhere", "file", "--jsn"])) == 2
    faults = capsys.readouterr().err.splitlines()[1:]
    assert [fault.split(":")[0].strip() for fault in faults] == ["--jsn", "nowhere", "file"]


def test_links_are_followed_and_circles_end(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "circle").symlink_to(runs)
    (runs / "elsewhere").symlink_to(make_run(runs.parent / "disk" / "far").parent)
    status._status([])
    out = capsys.readouterr().out
    assert "runs/elsewhere/far " in out
    assert len(out.splitlines()) == 1 + 5 + 1


def test_nothing_heavy_is_loaded_for_it(run: Path) -> None:
    program = (
        f"import sys; sys.argv = ['rrl-status', {str(run.parent)!r}]\n"
        "from rrl.cli import status\n"
        "try: status.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print('loaded:', *{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    table, _, loaded = done.stdout.partition("loaded:")
    assert "one" in table
    assert not set(loaded.split()) & {"torch", "numpy", "hydra", "omegaconf", "wandb", "transformers", "deepspeed"}
