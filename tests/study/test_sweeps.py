"""Sweeps: each job a process of its own, failures reported by name, one stop, and going on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.sweeps import faults, swept, when
from rrl.config.choices import conf_dir
from rrl.config.compose import compose
from rrl.records.status import RunLock
from rrl.study import sweeps
from rrl.study.sweep_files import Sweep, SweepJob, job_name, last_accuracy, last_line, read_jobs, report, write_best
from rrl.study.sweep_jobs import quoted
from rrl.study.sweeps import sweep

pytestmark = pytest.mark.clock

ONE_STEP = (
    "warmstart=none", "run.threads=1", "trainer.train_batch_size=8", "trainer.ppo_mini_batch_size=8",
    "evaluation.limit=2", "evaluation.n=2", "trainer.total_training_steps=1", "task.train_per_level=20",
)  # fmt: skip


# --- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["algo=ppo", "seed=0"], "7_algo-ppo_seed-0"),
        (["policy.actor_lr=1e-05"], "7_policy.actor_lr-1e-05"),
        (["model.path=/a b/ü'c", "+x={y: 1}"], "7_model.path-a-b-c_+x-y-1"),
        (["a=" + 200 * "b"], "7_a-" + 116 * "b"),
        ([], "7"),
    ],
)
def test_a_job_is_named_by_what_differs_in_plain_characters(overrides: list[str], expected: str) -> None:
    assert job_name(7, overrides) == expected


@pytest.mark.parametrize("path", ["/a/b", "a b", "it's", "x=1,y", "back\\slash", "end\\", "\\'"])
def test_any_path_can_be_handed_to_a_job(path: str) -> None:
    assert compose("train", [f"run.dir={quoted(Path(path))}"]).config["run"]["dir"] == path


def test_each_job_gets_its_overrides_and_the_sweeps_group_of_weights_and_biases_and_brings_its_result(
    tmp_path: Path, fake: None
) -> None:
    code, reported, jobs = swept(tmp_path, "algo=ppo,rrl", "seed=1,2", "trainer.n=2")
    assert code == 0
    assert list(jobs) == ["0_algo-ppo_seed-1", "1_algo-ppo_seed-2", "2_algo-rrl_seed-1", "3_algo-rrl_seed-2"]
    job, folder = jobs["2_algo-rrl_seed-1"], tmp_path / "sweep" / "2_algo-rrl_seed-1"
    seen = json.loads((folder / "seen.json").read_text())
    assert seen == ["", ["algo=rrl", "seed=1", "trainer.n=2", f"run.dir='{folder}'", "resume=auto"]]
    groups = {json.loads((tmp_path / "sweep" / name / "group.json").read_text()) for name in jobs}
    assert groups == {"sweep"}
    assert (job.overrides, job.state, job.accuracy, job.reward) == (["algo=rrl", "seed=1"], "finished", 0.5, 0.125)
    assert "2_algo-rrl_seed-1  algo=rrl seed=1  finished  0.500     0.125" in reported


def test_a_sweep_finds_parts_of_ones_own(tmp_path: Path, own_launcher: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts" / "reward").mkdir(parents=True)
    (tmp_path / "parts" / "reward" / "mine.yaml").write_text((conf_dir() / "reward" / "verdict.yaml").read_text())
    monkeypatch.setenv("RRL_PARTS", str(tmp_path / "parts"))
    code, reported, jobs = swept(tmp_path, "reward=mine", "seed=1")
    assert (code, [job.state for job in jobs.values()]) == (0, ["finished"]), reported


def test_a_failed_job_is_reported_by_name_and_reason_and_harms_no_other(tmp_path: Path, fake: None) -> None:
    code, reported, jobs = swept(tmp_path, "seed=3,4,1")
    assert code == 1
    assert {name: job.state for name, job in jobs.items()} == {
        "0_seed-3": "failed", "1_seed-4": "failed", "2_seed-1": "finished",
    }  # fmt: skip
    logs = tmp_path / "sweep" / "jobs"
    assert reported.split("\n")[-3:] == [
        "2 of 3 jobs did not finish:",
        f"  0_seed-3: failed: the third seed is bad ({logs}/0_seed-3.log)",
        f"  1_seed-4: failed: killed by SIGKILL ({logs}/1_seed-4.log)",
    ]


def test_a_launcher_that_fails_is_reported(tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "LAUNCH", (sys.executable, "-c", "raise SystemExit('no launcher today')"))
    code, reported, jobs = swept(tmp_path, "seed=0,1")
    assert (code, jobs) == (1, {})
    assert "no job was started\n\nthe launcher ended with code 1: no launcher today" in reported


def test_a_job_whose_launcher_died_counts_as_not_finished() -> None:
    lost = SweepJob(name="0_seed-0", overrides=["seed=0"], state="running", pid=5, host="here")
    reported = report([lost], Path("x"))
    assert "0_seed-0: running: its launcher ended before it; process 5 on here may still run" in reported


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_stop_reaches_the_running_job_once_and_no_other_starts(
    tmp_path: Path, own_launcher: None, number: signal.Signals
) -> None:
    seen = tmp_path / "sweep" / "0_seed-7" / "seen.json"
    when(seen.exists, lambda: os.kill(os.getpid(), number))
    code, reported, jobs = swept(tmp_path, "seed=7,1")
    assert code == 130
    assert (seen.parent / "signals").read_text() == "1"
    assert {name: job.state for name, job in jobs.items()} == {"0_seed-7": "interrupted", "1_seed-1": "not started"}
    assert f"0_seed-7: interrupted: continue: rrl-train resume={seen.parent}" in reported
    assert reported.endswith("\n  1_seed-1: not started: the sweep was stopped before")
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


def test_a_second_stop_kills(tmp_path: Path, fake: None) -> None:
    stop = tmp_path / "sweep" / "stop"
    when((tmp_path / "sweep" / "0_seed-9" / "seen.json").exists, lambda: os.kill(os.getpid(), signal.SIGINT))
    when(stop.exists, lambda: (time.sleep(0.5), os.kill(os.getpid(), signal.SIGINT)))
    code, reported, jobs = swept(tmp_path, "seed=9,1")
    assert (code, jobs["0_seed-9"].state, jobs["0_seed-9"].exit_code) == (130, "interrupted", -signal.SIGKILL)
    assert "0_seed-9: interrupted: nothing was saved" in reported


def test_the_result_of_a_run_is_its_sampled_accuracy_else_the_greedy_one(tmp_path: Path) -> None:
    assert last_accuracy(tmp_path) is None
    for after, expected in (
        ({"step": 5, "greedy": {"accuracy": 0.75}, "mean@16": {"accuracy": 0.5}}, 0.5),
        ({"step": 5, "mean@16": {"accuracy": 0.5}, "greedy": {"accuracy": 0.75}}, 0.5),
        ({"step": 5, "greedy": {"accuracy": 0.75}}, 0.75),
    ):
        (tmp_path / "result.json").write_text(json.dumps({"after": after}))
        assert last_accuracy(tmp_path) == expected


def test_the_best_job_is_a_finished_one(tmp_path: Path) -> None:
    sweep = Sweep(folder=str(tmp_path), command=(), program=(), fixed=(), devices=None, search=None)
    ends = [("finished", 0.25), ("finished", 0.5), ("pruned", 0.75), ("failed", None)]
    jobs = [SweepJob(name=str(n), overrides=[f"a={n}"], state=state, accuracy=x) for n, (state, x) in enumerate(ends)]
    write_best(sweep, jobs[2:])
    assert not (tmp_path / "best.json").exists()
    write_best(sweep, jobs)
    best = json.loads((tmp_path / "best.json").read_text())
    assert best == {"job": "1", "accuracy": 0.5, "overrides": ["a=1"]}


def test_the_reason_is_the_last_line_that_says_something(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"first\n  second \xff\n\n  \n")
    assert last_line(tmp_path / "log") == "second �"


# --- going on ---------------------------------------------------------------------------------------------------------


def test_a_sweep_that_goes_on_leaves_finished_jobs_alone_and_runs_the_others(tmp_path: Path, fake: None) -> None:
    """Seed 3 fails; the second time its job is to be run again, and that of seed 1 is not."""
    code, _, before = swept(tmp_path, "seed=1,3")
    assert (code, [job.state for job in before.values()]) == (1, ["finished", "failed"])
    seen = tmp_path / "sweep" / "0_seed-1" / "seen.json"
    seen.unlink()
    (tmp_path / "sweep" / "stop").touch()
    (tmp_path / "sweep" / "1_seed-3" / "checkpoints" / "step-000001").mkdir(parents=True)
    code, reported, after = swept(tmp_path, "resume=auto", "seed=1,3")
    assert (code, seen.exists(), after["0_seed-1"]) == (1, False, before["0_seed-1"])
    assert after["1_seed-3"].started > before["1_seed-3"].ended
    assert "0_seed-1: finished" in reported


def test_a_sweep_goes_on_only_with_what_it_was_started_with_and_not_twice_at_once(tmp_path: Path, fake: None) -> None:
    assert swept(tmp_path, "resume=auto", "seed=1,2")[0] == 0  # nothing is there: it begins
    place = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    assert faults(place, "resume=auto", "seed=1,2,5")[0].startswith(f"resume: the sweep in {str(tmp_path / 'sweep')!r}")
    assert (
        "was started with 'seed=1,2', now 'seed=1,2,5'; expected the same"
        in faults(place, "resume=auto", "seed=1,2,5")[0]
    )
    assert sweep(["-m", f"resume={tmp_path / 'sweep'}"], print) == 0
    assert faults(f"resume={tmp_path}")[0].startswith(
        f"resume: {str(tmp_path)!r} holds no sweep; expected a folder with"
    )
    assert faults("resume=auto", "seed=1,2") == [
        "resume: 'auto' needs the sweep's directory; give hydra.sweep.dir, or resume=SWEEP"
    ]
    with RunLock(tmp_path / "sweep"):
        assert "is being trained by pid" in faults(f"resume={tmp_path / 'sweep'}")[0]


# --- launchers, with quick jobs ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stop_reaches_the_jobs_of_joblib_once_each(tmp_path: Path, own_launcher: None) -> None:
    folder = tmp_path / "sweep"
    when(lambda: len(list(folder.glob("*/seen.json"))) == 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    code, _, jobs = swept(tmp_path, "seed=7,8,1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert code == 130
    assert [path.read_text() for path in folder.glob("*/signals")] == ["1", "1"]
    assert [job.state for job in jobs.values()] == ["interrupted", "interrupted", "not started", "not started"]


@pytest.mark.slow
def test_a_job_that_submitit_takes_away_for_its_time_goes_on_where_it_saved(tmp_path: Path, own_launcher: None) -> None:
    code, _, jobs = swept(tmp_path, "seed=7,1", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=1")
    folder = tmp_path / "sweep" / "0_seed-7"
    assert (code, (folder / "signals").read_text()) == (0, "1")
    assert [job.state for job in jobs.values()] == ["finished", "finished"]


# --- the real program -------------------------------------------------------------------------------------------------


def train(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """``rrl-train -m`` with tiny sizes in ``folder/sweep``."""
    command = [sys.executable, "-m", "rrl.cli.train", "-m", f"hydra.sweep.dir={folder / 'sweep'}", *ONE_STEP]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), ("hydra/launcher=submitit_local",)],
    ids=["basic", "joblib", "submitit_local"],
)
def test_a_sweep_trains_every_combination(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    done = train(tmp_path, "algo=ppo,rrl", "seed=0,1", *launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = {job.name: job for job in read_jobs(tmp_path / "sweep")}
    assert list(jobs) == ["0_algo-ppo_seed-0", "1_algo-ppo_seed-1", "2_algo-rrl_seed-0", "3_algo-rrl_seed-1"]
    assert len({job.pid for job in jobs.values()}) == 4
    for job in jobs.values():
        assert json.loads((tmp_path / "sweep" / job.name / "result.json").read_text())["steps"] == 1
        assert f"{job.name}: finished" in done.stdout


@pytest.mark.slow
def test_a_job_that_cannot_train_is_reported_and_the_other_trains(tmp_path: Path) -> None:
    done = train(tmp_path, "data.max_prompt_length=1,64")
    assert done.returncode == 1
    assert "1 of 2 jobs did not finish:\n  0_data.max_prompt_length-1: failed: " in done.stdout
    assert "no problem is left" in done.stdout
    assert json.loads((tmp_path / "sweep" / "1_data.max_prompt_length-64" / "result.json").read_text())["steps"] == 1
