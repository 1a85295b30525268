"""What rrl-status tells of runs is so: who trains, how far they are, how they ended, whatever the files are like."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rrl.cli import shell, status
from rrl.errors import ConfigError
from rrl.records.status import RunLock, last_checkpoint, read_state, write_state

pytestmark = pytest.mark.clock

HOST = socket.gethostname()


def make_run(folder: Path, *, steps: int | None = 100, tokens: int | None = 6000, done: int | None = 40) -> Path:
    """A run that has done some steps: 50 tokens each, reward a hundredth of the step."""
    folder.mkdir(parents=True, exist_ok=True)
    limits = {"total_training_steps": steps, "total_tokens": tokens}
    (folder / "config.yaml").write_text(json.dumps({"trainer": limits, "seed": 0}))
    if done is not None:
        rows: list[dict[str, Any]] = [{"step": 0, "val-core/trace/acc/greedy": 0.5}]
        rows += [
            {"step": step, "critic/score/fresh/mean": step / 100, "budget/tokens_generated": 50.0 * step}
            for step in range(1, done + 1)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "one")


TRAINING = """
import os, sys, time
from pathlib import Path
from rrl.records.status import RunLock, write_state
lock = RunLock(Path(sys.argv[1]))
write_state(Path(sys.argv[1]), "running", processes=2)
if os.fork() == 0:
    print(os.getpid(), flush=True)  # the helper itself, for by now it has let go of the lock
time.sleep(100)
"""


@pytest.fixture
def training(run: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains in ``run`` and has forked a helper, which outlives it."""
    process = subprocess.Popen([sys.executable, "-c", TRAINING, str(run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    helper = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    os.kill(helper, signal.SIGKILL)


# --- the lock ---------------------------------------------------------------------------------------------------------


def test_a_directory_in_which_a_living_process_trains_is_refused(run: Path, training: subprocess.Popen[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        RunLock(run)
    assert caught.value.faults == (
        f"run.dir: {str(run)!r} is being trained by pid {training.pid} on host {HOST}; expected a directory that no "
        "process trains in; wait for its end, stop it, or give another run.dir",
    )


def test_a_directory_whose_process_was_killed_is_free_though_its_helper_lives(
    run: Path, training: subprocess.Popen[str]
) -> None:
    training.kill()
    training.wait()
    with RunLock(run):
        assert json.loads((run / ".lock").read_text()) == {"pid": os.getpid(), "host": HOST}


def test_a_lock_can_be_given_back(tmp_path: Path) -> None:
    with RunLock(tmp_path / "new" / "run"), pytest.raises(ConfigError):
        RunLock(tmp_path / "new" / "run")
    RunLock(tmp_path / "new" / "run").release()


def test_looking_at_a_run_does_not_keep_another_process_from_it(run: Path) -> None:
    write_state(run, "running")
    (run / ".lock").touch()
    imports = "from pathlib import Path; from rrl.records.status import read_state"
    look = f"{imports}\nwhile True: read_state(Path({str(run)!r}))"
    looking = subprocess.Popen([sys.executable, "-c", look])
    try:
        time.sleep(0.5)
        for _ in range(200):
            RunLock(run).release()
        assert looking.poll() is None, "it looked all the while"
    finally:
        looking.kill()
        looking.wait()


def test_a_file_system_without_locks_is_told_of_and_no_hindrance(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    RunLock(run)
    assert "cannot be locked (Operation not supported); make sure that nothing else trains in it" in caplog.text
    write_state(run, "running")
    assert read_state(run).state == "running"
    dead = {**json.loads((run / "status.json").read_text()), "pid": 2**22 + 1}
    (run / "status.json").write_text(json.dumps(dead))
    assert read_state(run).state == "killed"
    (run / "status.json").write_text(json.dumps({**dead, "host": "elsewhere"}))
    assert read_state(run).state == "running"


# --- status.json ------------------------------------------------------------------------------------------------------


def test_a_state_is_told_with_process_and_times(run: Path) -> None:
    before = datetime.now().astimezone().replace(microsecond=0)
    write_state(run, "failed", "loss is nan", processes=4)
    told = json.loads((run / "status.json").read_text())
    started, updated = (datetime.fromisoformat(told.pop(name)) for name in ("started", "updated"))
    assert before <= started == updated
    assert told == {"state": "failed", "reason": "loss is nan", "pid": os.getpid(), "host": HOST, "processes": 4}


def test_a_run_began_when_it_was_first_started(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(run, "running")
    told = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**told, "started": "2001-02-03T04:05:06+00:00"}))
    write_state(run, "finished")
    told = json.loads((run / "status.json").read_text())
    assert told["started"] == "2001-02-03T04:05:06+00:00"
    assert told["updated"] > "2002"


def test_a_damaged_status_is_replaced(run: Path) -> None:
    (run / "status.json").write_text("{")
    write_state(run, "finished")
    assert read_state(run).state == "finished"


def test_a_reason_shows_no_secret(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    write_state(run, "failed", "401 for hf_abcdefgh")
    assert read_state(run).reason == "401 for <HF_TOKEN>"


# --- the state --------------------------------------------------------------------------------------------------------


def test_a_run_in_training_is_running(run: Path, training: subprocess.Popen[str]) -> None:
    state = read_state(run)
    assert (state.state, state.reason, state.pid, state.processes) == ("running", None, training.pid, 2)


def test_a_run_whose_process_is_gone_without_a_word_was_killed(run: Path, training: subprocess.Popen[str]) -> None:
    training.kill()
    training.wait()
    state = read_state(run)
    assert state.state == "killed"
    assert state.reason == f"its process {training.pid} on {HOST} ended without a report"


@pytest.mark.parametrize("told", ["finished", "interrupted", "failed"])
def test_a_run_that_told_how_it_ended_ended_so(told: Any, run: Path) -> None:
    write_state(run, told, "why")
    assert (read_state(run).state, read_state(run).reason) == (told, "why")


@pytest.mark.parametrize(("result", "state"), [(True, "finished"), (False, "unknown")])
def test_a_run_that_has_no_status_is_judged_by_its_result(result: bool, state: str, run: Path) -> None:
    if result:
        (run / "result.json").write_text("{}")
    assert read_state(run).state == state


def test_progress_is_that_of_the_last_row(run: Path) -> None:
    state = read_state(run)
    assert (state.step, state.total_steps, state.reward) == (40, 100, 0.4)
    assert (state.tokens, state.total_tokens) == (2000, 6000)
    assert state.faults == ()


@pytest.mark.parametrize(
    ("steps", "tokens", "share"),
    [(100, 6000, 0.4), (100, 2500, 0.8), (None, 6000, 1 / 3), (160, None, 0.25), (40, None, 1.0), (None, 1000, 1.0)],
)
def test_the_budget_used_is_that_of_the_limit_which_comes_first(
    steps: int | None, tokens: int | None, share: float, tmp_path: Path
) -> None:
    assert read_state(make_run(tmp_path, steps=steps, tokens=tokens)).share == pytest.approx(share)


def test_before_the_first_step_nothing_is_used(tmp_path: Path) -> None:
    state = read_state(make_run(tmp_path, done=0))
    assert (state.step, state.tokens, state.share, state.reward) == (0, 0, 0.0, None)


def test_the_last_reward_is_the_latest_that_is_a_number(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 41, "critic/score/fresh/mean": null, "budget/tokens_generated": 2050.0}\n{"step": 42, "cri'
        )
    state = read_state(run)
    assert (state.step, state.reward, state.tokens, state.faults) == (41, 0.4, 2050, ())


def test_age_is_the_time_since_the_last_row(run: Path) -> None:
    os.utime(run / "metrics.jsonl", (time.time() - 7200, time.time() - 7200))
    assert read_state(run).age == pytest.approx(7200, abs=60)


def test_the_last_checkpoint_is_the_one_of_the_latest_step_that_is_whole(run: Path) -> None:
    assert last_checkpoint(run) is None
    for name in ("step-000090", "step-900000", "step-1000000", ".step-2000000", "step-3000000.tmp", "step-x"):
        (run / "checkpoints" / name).mkdir(parents=True)
    assert last_checkpoint(run) == run / "checkpoints" / "step-1000000"


DAMAGE = {
    "config.yaml": {
        "{": "config.yaml cannot be read (",
        "a: 1": "config.yaml names no budget",
        "[]": "config.yaml names no budget",
        "\0": "config.yaml cannot be read (",
        "trainer: {total_training_steps: x, total_tokens: 1}": "config.yaml names no budget",
    },
    "metrics.jsonl": {"{": "metrics.jsonl has no whole row", "\0\0": "metrics.jsonl has no whole row"},
    "status.json": {
        "": "status.json cannot be read (",
        "[]": "status.json is no JSON object",
        '{"state": "running"}': "status.json was not written by rrl",
        '{"state": "x", "pid": 1, "host": "h", "started": "s", "processes": 1}': "status.json was not written by rrl",
        '{"state": "failed", "pid": "1", "host": "h", "started": "s", "processes": 1}': (
            "status.json was not written by rrl"
        ),
    },
}


@pytest.mark.parametrize(
    ("name", "content", "told"), [(name, *case) for name, cases in DAMAGE.items() for case in cases.items()]
)
def test_a_damaged_file_is_told_in_the_row_and_the_rest_is_shown(
    name: str, content: str, told: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_state(run, "finished")
    (run / name).write_text(content)
    (fault,) = read_state(run).faults
    assert fault.startswith(told)
    status._status([str(run.parent)])
    (row,) = capsys.readouterr().out.splitlines()[1:]
    assert told in row
    assert ("0.400" in row) == (name != "metrics.jsonl")


# --- rrl-status -------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of every state, the latest last in the alphabet, in folders and sweeps; other folders beside them."""
    monkeypatch.chdir(tmp_path)
    for day, (name, told, reason) in enumerate(
        [
            ("a", "finished", None),
            ("b-sweep/0", "running", None),
            ("b-sweep/1", "failed", "loss is nan\nat step 3"),
            ("demo/c/rrl", "interrupted", "asked to"),
        ],
        start=1,
    ):
        folder = make_run(Path("runs") / name)
        write_state(folder, told, reason)  # type: ignore[arg-type]
        told_all = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps({**told_all, "started": f"2030-01-0{day}T00:00:00+00:00"}))
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
    told = json.loads(capsys.readouterr().out)
    assert [(row["folder"], row["state"], row["step"], row["reward"], row["share"]) for row in told] == [
        ("runs/b-sweep/1", "failed", 40, 0.4, 0.4),
        ("runs/b-sweep/0", "killed", 40, 0.4, 0.4),
        ("runs/a", "finished", 40, 0.4, 0.4),
    ]
    assert told[0]["reason"] == "loss is nan\nat step 3"


def test_one_run_is_told_in_full_with_the_way_on(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "b-sweep/1/checkpoints/step-000030").mkdir(parents=True)
    status._status(["runs/b-sweep/1/"])
    told = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {name: text.strip() for name, text in told.items()} == {
        "run": "runs/b-sweep/1",
        "state": "failed",
        "reason": "loss is nan at step 3",
        "started": "2030-01-03T00:00:00+00:00",
        "process": f"{os.getpid()} on {HOST}, 1 in all",
        "step": "40/100",
        "last reward": "0.400",
        "tokens": "2,000/6,000",
        "budget used": "40 %",
        "last row": "0 s ago",
        "checkpoint": "runs/b-sweep/1/checkpoints/step-000030",
        "next": "rrl-train resume=runs/b-sweep/1",
    }


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
    ("arguments", "told"), [([], "no runs below runs; rrl-train makes one\n"), (["--json"], "[]\n")]
)
def test_a_folder_without_runs_is_told(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    status._status(arguments)
    assert capsys.readouterr().out == told


def test_folders_that_are_not_there_are_told_at_once(
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
