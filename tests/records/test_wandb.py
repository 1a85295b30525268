"""Weights & Biases: what is kept of a run, and that nothing that breaks there costs the run anything."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fixtures.launch import until
from fixtures.tracking import CONFIG, KEY, histories, rows, service, wandb, warnings
from fixtures.wandb_files import items, of_kind, offline_runs
from rrl.records.tracking import Tracker

# --- Weights & Biases: what is kept -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that was stopped after step 2, taken back to step 1, and resumed to its end, offline."""
    folder = tmp_path_factory.mktemp("wandb") / "name-of-run"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_RUN_GROUP"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(folder.parent))
        patch.setattr(sys, "argv", ["/bin/rrl-train", "algo=rrl", f"x={KEY}"])
        patch.setenv("SOME_TOKEN", KEY)
        first = Tracker(folder, wandb(), CONFIG, None)
        for step in range(3):
            first.log(step, {"x": 1.5 * step, "group/y": float("nan") if step == 1 else 0.25})
        first.samples(5, [{"response": "a\nb", "score": 1.0}, {"response": "c", "level": "L3"}])
        first.finish()
        patch.setenv("WANDB_RUN_GROUP", "g")  # as jobs of a sweep have it
        second = Tracker(folder, wandb(group=None), CONFIG, 1)
        for step in (2, 3):
            second.log(step, {"x": 10.0 * step})
        second.summary({"steps": 3, "after": {"greedy": {"accuracy": 0.5}}})
        second.finish()
    yield folder


def test_every_metric_is_kept_on_the_axis_of_steps(kept: Path) -> None:
    axis = "training/global_step"
    first, second = offline_runs(kept)
    logged = [{k: v for k, v in row.items() if k in (axis, "x", "group/y")} for row in histories(first)[:3]]
    assert logged[0] == {axis: 0, "x": 0, "group/y": 0.25}
    assert logged[1].pop("group/y") != 0.25  # not a number
    assert logged[1:] == [{axis: 1, "x": 1.5}, {axis: 2, "x": 3, "group/y": 0.25}]
    assert [(row[axis], row["x"]) for row in histories(second)] == [(2, 20), (3, 30)]
    for run in (first, second):
        assert {(m.name or m.glob_name, m.step_metric) for m in of_kind(run, "metric")} == {(axis, ""), ("*", axis)}


def test_a_resumed_run_keeps_its_id_name_and_configuration(kept: Path) -> None:
    abouts = [about for run in offline_runs(kept) for about in of_kind(run, "run")]
    assert len(abouts) == 2
    for about in abouts:
        assert about.run_id == json.loads((kept / "wandb-run.json").read_text())["id"]
        assert (about.display_name, about.project, about.run_group, list(about.tags)) == (
            "name-of-run", "p", "g", ["a", "b"],
        )  # fmt: skip
        config = items(about.config.update)
        assert {name: config[name] for name in CONFIG} == CONFIG


def test_samples_are_a_table_under_their_step(kept: Path) -> None:
    row = histories(offline_runs(kept)[0])[3]
    assert (row["training/global_step"], row["samples/_type"], row["samples/nrows"]) == (5, "table-file", 2)
    (file,) = kept.glob(f"wandb/offline-run-*/files/{row['samples/path']}")
    table = json.loads(file.read_text())
    assert table["columns"] == ["step", "response", "score", "level"]
    assert table["data"] == [[5, "a\nb", 1.0, None], [5, "c", None, "L3"]]


def test_the_summary_is_the_result_and_only_a_complete_run_ends_well(kept: Path) -> None:
    first, second = offline_runs(kept)
    summary = {k: v for record in of_kind(second, "summary") for k, v in items(record.update).items()}
    assert (summary["steps"], summary["after"]) == (3, {"greedy": {"accuracy": 0.5}})
    assert [of_kind(run, "exit")[0].exit_code for run in (first, second)] == [1, 0]


def test_the_command_is_kept_without_secrets(kept: Path) -> None:
    about = next(e for e in of_kind(offline_runs(kept)[0], "environment") if e.program)
    assert (about.program, list(about.args)) == ("rrl-train", ["algo=rrl", "x=<SOME_TOKEN>"])


# --- Weights & Biases: what breaks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("victim", "blow", "patience", "why"),
    [
        (
            "service",
            signal.SIGKILL,
            30.0,
            r"\(\w+Error[:)]",
        ),
        pytest.param("process", signal.SIGKILL, 30.0, "its process ended with SIGKILL", marks=pytest.mark.slow),
        pytest.param("service", signal.SIGSTOP, 2.0, " within 2", marks=pytest.mark.slow),
        ("process", signal.SIGSTOP, 1.0, "it did not end within 1 s"),
    ],
)
def test_when_weights_and_biases_breaks_in_the_middle_the_run_goes_on_and_says_so_once(
    victim: str,
    blow: signal.Signals,
    patience: float,
    why: str,
    home: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = Tracker(folder, wandb(patience=patience), CONFIG, None)
    tracker.log(0, {"x": 0.0})
    process, core = service(tracker)
    try:
        (core if victim == "service" else process).send_signal(blow)
        wide = {f"metric/{number}": 1.0 for number in range(200)}
        for step in range(1, 100):  # more than pipes and sockets hold
            tracker.log(step, wide)
            time.sleep(0.01)
        tracker.summary({})
        tracker.finish()
    finally:
        for left in (process, core):
            if left.is_running():
                left.kill()
    assert [row["step"] for row in rows(folder)] == list(range(100))
    (reported,) = warnings(caplog)
    assert reported.startswith("logger: WandB fails (")
    assert re.search(why, reported)
    assert reported.endswith("); the run continues with metrics.jsonl alone")


def test_weights_and_biases_that_cannot_even_be_imported_stops_nothing(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (home / "wandb.py").write_text("raise OSError('half\\ninstalled')")
    monkeypatch.setenv("PYTHONPATH", str(home))
    tracker = Tracker(folder, wandb(), CONFIG, None)
    tracker.log(0, {"x": 0.0})
    tracker.finish()
    assert rows(folder) == [{"step": 0, "x": 0.0}]
    assert warnings(caplog) == [
        "logger: WandB fails (OSError: half installed); the run continues with metrics.jsonl alone"
    ]


def test_what_weights_and_biases_does_not_take_waits_up_to_a_bound(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rrl.records.sidecar.MOST_WAITING", 2**20)
    (home / "wandb.py").write_text("import time\ntime.sleep(100)")
    monkeypatch.setenv("PYTHONPATH", str(home))
    tracker = Tracker(folder, wandb(), CONFIG, None)
    for step in range(100):
        tracker.samples(step, [{"response": "x" * 2**19}])
    assert warnings(caplog) == [
        "logger: WandB fails (it has not taken 1 MiB); the run continues with metrics.jsonl alone"
    ]


def test_ctrl_c_reaches_training_alone(home: Path, folder: Path) -> None:
    tracker = Tracker(folder, wandb(), CONFIG, None)
    own = tracker._sink._process._process  # type: ignore[union-attr]
    assert os.getpgid(own.pid) != os.getpgid(0)
    own.kill()
    tracker.finish()


KILLED = """
import os, sys, time
from pathlib import Path
from rrl.records.tracking import Tracker, WandB
folder = Path(sys.argv[1])
tracker = Tracker(folder, WandB(project="p", entity=None, group=None, tags=(), patience=30.0), {}, None)
tracker.log(0, {"x": 1.5})
while not list(folder.glob("wandb/offline-run-*/*.wandb")): time.sleep(0.05)
print(tracker._sink._process._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_its_process_ignores_the_signals_that_schedulers_send_to_all() -> None:
    """The bits of INT, USR1, USR2 and TERM: numbers 2, 10, 12 and 15."""
    command = [sys.executable, "-m", "rrl.records.wandb_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:

        def ignored() -> int:
            text = Path(f"/proc/{process.pid}/status").read_text()
            return int(re.search(r"^SigIgn:\s+(\w+)", text, re.MULTILINE)[1], 16)  # type: ignore[index]

        until(lambda: ignored() & 0x4A02 == 0x4A02, "the signals to be ignored", 20)


def test_a_run_that_is_killed_has_failed_for_weights_and_biases_and_leaves_no_process(home: Path, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [psutil.Process(pid) for pid in map(int, done.stdout.split()) if psutil.pid_exists(pid)]
    assert psutil.wait_procs(left, timeout=60)[1] == []
    (run,) = offline_runs(folder)
    assert [row["x"] for row in histories(run)] == [1.5]
    assert of_kind(run, "exit")[0].exit_code == 1
