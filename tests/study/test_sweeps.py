"""Sweeps: checked whole, each job a process of its own with devices of its own, failures told by name, one stop."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rrl.config.compose import compose
from rrl.errors import ConfigError
from rrl.processes.devices import take, visible_devices
from rrl.records.status import RunLock
from rrl.study import sweeps
from rrl.study.search import Optuna, Trial, distribution
from rrl.study.sweep_files import Sweep, SweepJob, job_name, last_accuracy, last_line, read_jobs, report, write_best
from rrl.study.sweep_jobs import devices_needed, quoted
from rrl.study.sweeps import sweep

pytestmark = pytest.mark.clock

FAKE = """
import json, os, pathlib, signal, sys, time
keys = dict(argument.split("=", 1) for argument in sys.argv[1:])
assert keys["resume"] == "auto"
run = pathlib.Path(keys["run.dir"].strip("'"))
saved = run / "checkpoints" / "step-000001"
again = saved.exists()
run.mkdir(exist_ok=again)
(run / "group.json").write_text(json.dumps(os.environ.get("WANDB_RUN_GROUP")))
(run / "seen.json").write_text(json.dumps([os.environ.get("CUDA_VISIBLE_DEVICES"), sys.argv[1:]]))
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
def until(there, seconds=60):
    end = time.monotonic() + seconds
    while not there() and time.monotonic() < end:
        time.sleep(0.02)
seed = int(keys.get("seed", 0))
if seed == 3:
    print("DataError: data does not fit:\\n  the third seed is bad\\n", file=sys.stderr)
    sys.exit(1)
if seed == 4:
    os.kill(os.getpid(), signal.SIGKILL)
if seed in (5, 6):
    until(lambda: len(list(run.parent.glob("*/seen.json"))) == 2)
if seed in (7, 8) and not again and not (run.parent / "calm").exists():
    until(lambda: told)
    time.sleep(0.5)
    (run / "told").write_text(str(len(told)))
    saved.mkdir(parents=True)
    sys.exit(130)
if seed == 9:
    until(lambda: False, 20)
if seed in (13, 14):
    row = {"step": 5, "greedy": {"accuracy": 0.9 if seed == 13 else 0.1}}
    (run / "evaluations.jsonl").write_text(json.dumps(row) + "\\n")
    until(lambda: told, 60 if seed == 14 else 0.5)
    if told:
        sys.exit(130)
if seed in (10, 11, 12):
    mark = run.parent / ("in-use-" + os.environ["CUDA_VISIBLE_DEVICES"])
    mark.touch(exist_ok=False)
    time.sleep(0.5)
    mark.unlink()
(run / "metrics.jsonl").write_text(json.dumps({"step": 1, "critic/score/fresh/mean": seed / 8}) + "\\n")
after = {"step": 1, "greedy": {"accuracy": 0.75}, "mean@2": {"accuracy": 0.5}}
(run / "result.json").write_text(json.dumps({"steps": 1, "after": after}))
"""
"""Does as rrl-train does, at once; how it ends goes by its seed."""

ONE_STEP = (
    "warmstart=none", "run.threads=1", "trainer.train_batch_size=8", "trainer.ppo_mini_batch_size=8",
    "evaluation.limit=2", "evaluation.n=2", "trainer.total_training_steps=1", "task.train_per_level=20",
)  # fmt: skip


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


def run(folder: Path, *arguments: str) -> tuple[int, str, dict[str, SweepJob]]:
    """A sweep in ``folder/sweep``: exit code, what was told, and its jobs by name."""
    told: list[str] = []
    code = sweep(["-m", f"hydra.sweep.dir={folder / 'sweep'}", *arguments], told.append)
    return code, "\n".join(told), {job.name: job for job in read_jobs(folder / "sweep")}


def faults(*arguments: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        sweep(["-m", *arguments], print)
    return list(caught.value.faults)


# --- before anything starts -------------------------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory which the test leaves empty; what starts all the same ends at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweeps, "LAUNCH", (sys.executable, "-c", "raise SystemExit('started')"))
    yield tmp_path
    assert not list(tmp_path.iterdir())


def test_every_value_is_checked_and_all_faults_are_told_at_once(nowhere: Path) -> None:
    assert faults("algo=ppo,rll", "sead=0,1", "trainer.n=1,0,2", "run.dir=x", "--cfg") == [
        "run.dir=x: names one run; the directories of jobs are below that of the sweep: give hydra.sweep.dir=...",
        "--cfg: no such option; expected key=value, or --help",
        "sead: no such key; did you mean 'seed'?",
        "algo: no such choice 'rll'; did you mean 'rrl'? valid: gsi, ppo, ppocoder, rltf, rltf_original, rrl",
        "trainer.n: expected at least 1, got 0",
    ]


def test_what_belongs_to_one_run_is_refused(nowhere: Path) -> None:
    assert faults("dry_run=x", "seed=0,1") == ["dry_run=x: is for one run; omit --multirun"]


def test_a_key_that_is_given_twice_is_told(nowhere: Path) -> None:
    assert faults("seed=1", "seed=2") == ["seed: given twice, as 'seed=1' and 'seed=2'; keep one"]
    assert faults("seed=0,1", "seed=2")[0] == "seed: given twice, as 'seed=0' and 'seed=2'; keep one"


@pytest.mark.parametrize("text", ["seed=0,0", "seed=0,1,0", "seed=choice(0,0)"])
def test_the_same_job_twice_is_told(nowhere: Path, text: str) -> None:
    assert faults(text) == ["seed: 'seed=0' is among its values twice, which is the same job twice; keep one"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trainer.n=range(0,500)", ["trainer.n: expected at least 1, got 0"]),
        ("trainer.n=range(3,-1,step=-1)", ["trainer.n: expected at least 1, got 0"]),
        ("objective.gamma=range(0.5,2.6,step=0.1)", ["objective.gamma: expected a number from 0"]),
    ],
)
def test_both_ends_of_a_range_are_checked(nowhere: Path, text: str, told: list[str]) -> None:
    assert [fault[: len(told[0])] for fault in faults(text)] == told


def test_an_interval_needs_a_search(nowhere: Path) -> None:
    (told,) = faults("objective.clip_ratio=interval(0.1,0.3)")
    assert told.endswith("an interval needs a search; list values, or use search=optuna")


def test_a_pattern_of_choices_is_refused(nowhere: Path) -> None:
    assert faults("algo=glob(*)")[0] == "algo=glob(*): patterns are not expanded; list the choices"


def test_a_plugin_that_is_not_installed_is_told_with_the_command_that_installs_it(nowhere: Path) -> None:
    (told,) = faults("hydra/launcher=jobblib", "seed=0,1")
    assert told.startswith("hydra/launcher: no such choice 'jobblib'; installed: basic")
    assert told.endswith("come with pip install -e '.[sweep]'")


def test_a_misspelt_key_of_the_launcher_is_told(nowhere: Path) -> None:
    (told,) = faults("hydra.launcher.n_jobs=2", "seed=0,1")
    assert told.startswith("hydra: Could not override 'hydra.launcher.n_jobs'")


def test_a_value_that_does_not_fit_the_launcher_is_told_with_what_it_should_be(nowhere: Path) -> None:
    (told,) = faults("hydra/launcher=joblib", "hydra.launcher.n_jobs=two", "seed=0,1")
    assert "hydra.launcher.n_jobs=two" in told
    assert "could not be converted to Integer" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["objective.clip_ratio=interval(0.1,-0.3)", "run.test_freq=5"], "objective.clip_ratio: expected a number"),
        (["trainer.n=interval(1,3)", "run.test_freq=5"], "trainer.n: expected int, got "),
        (["seed=1"], "search: no key takes more than one value; expected some, as in policy.actor_lr="),
        (["seed=1,2", "run.test_freq=null"], "search.pruner: 'median' needs evaluations in training; set run.test"),
        (["seed=1,2", "search.n_trials=0"], "search.n_trials: expected at least 1, got 0"),
        (["seed=1,2", "hydra/sweeper=optuna"], "hydra/sweeper=optuna: no such choice; expected none; to have values"),
    ],
)
def test_a_search_that_cannot_work_is_refused(nowhere: Path, arguments: list[str], told: str) -> None:
    assert faults("search=optuna", *arguments)[0].startswith(told)


def test_a_directory_that_holds_anything_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    assert faults(f"hydra.sweep.dir={tmp_path}", "seed=0,1", "run.dir=x") == [
        "run.dir=x: names one run; the directories of jobs are below that of the sweep: give hydra.sweep.dir=...",
        f"hydra.sweep.dir: {str(tmp_path)!r} exists and is not an empty folder; expected a new one",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_more_devices_than_there_are_is_a_fault(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert faults("seed=0,1", "launcher.num_processes=1,3") == [
        "launcher.num_processes: 3, but there are 2 devices here: 4, 7"
    ]


def test_a_job_borrows_a_device_for_each_of_its_processes_on_this_machine() -> None:
    assert devices_needed({"launcher": {"num_processes": 4}}) == 4
    assert devices_needed({"launcher": {"num_processes": 4, "hostfile": "hosts"}}) == 0


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


def test_each_job_gets_its_overrides_and_brings_its_result(tmp_path: Path, fake: None) -> None:
    code, told, jobs = run(tmp_path, "algo=ppo,rrl", "seed=1,2", "trainer.n=2")
    assert code == 0
    assert list(jobs) == ["0_algo-ppo_seed-1", "1_algo-ppo_seed-2", "2_algo-rrl_seed-1", "3_algo-rrl_seed-2"]
    job, folder = jobs["2_algo-rrl_seed-1"], tmp_path / "sweep" / "2_algo-rrl_seed-1"
    seen = json.loads((folder / "seen.json").read_text())
    assert seen == ["", ["algo=rrl", "seed=1", "trainer.n=2", f"run.dir='{folder}'", "resume=auto"]]
    assert (job.overrides, job.state, job.accuracy, job.reward) == (["algo=rrl", "seed=1"], "finished", 0.5, 0.125)
    assert "2_algo-rrl_seed-1  algo=rrl seed=1  finished  0.500     0.125" in told


def test_a_failed_job_is_told_by_name_and_reason_and_harms_no_other(tmp_path: Path, fake: None) -> None:
    code, told, jobs = run(tmp_path, "seed=3,4,1")
    assert code == 1
    assert {name: job.state for name, job in jobs.items()} == {
        "0_seed-3": "failed", "1_seed-4": "failed", "2_seed-1": "finished",
    }  # fmt: skip
    logs = tmp_path / "sweep" / "jobs"
    assert told.split("\n")[-3:] == [
        "2 of 3 jobs did not finish:",
        f"  0_seed-3: failed: the third seed is bad ({logs}/0_seed-3.log)",
        f"  1_seed-4: failed: killed by SIGKILL ({logs}/1_seed-4.log)",
    ]


def test_a_launcher_that_fails_is_told(tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "LAUNCH", (sys.executable, "-c", "raise SystemExit('no launcher today')"))
    code, told, jobs = run(tmp_path, "seed=0,1")
    assert (code, jobs) == (1, {})
    assert "no job was started\n\nthe launcher ended with code 1: no launcher today" in told


def test_a_job_whose_launcher_died_counts_as_not_finished() -> None:
    lost = SweepJob(name="0_seed-0", overrides=["seed=0"], state="running", pid=5, host="here")
    told = report([lost], Path("x"))
    assert "0_seed-0: running: its launcher ended before it; process 5 on here may still run" in told


def when(there: Callable[[], bool], do: Callable[[], Any]) -> threading.Thread:
    """Do something as soon as it is time; gives up after a minute."""

    def wait() -> None:
        for _ in range(3000):
            if there():
                do()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_stop_reaches_the_running_job_once_and_no_other_starts(
    tmp_path: Path, fake: None, number: signal.Signals
) -> None:
    seen = tmp_path / "sweep" / "0_seed-7" / "seen.json"
    when(seen.exists, lambda: os.kill(os.getpid(), number))
    code, told, jobs = run(tmp_path, "seed=7,1")
    assert code == 130
    assert (seen.parent / "told").read_text() == "1"
    assert {name: job.state for name, job in jobs.items()} == {"0_seed-7": "interrupted", "1_seed-1": "not started"}
    assert f"0_seed-7: interrupted: continue: rrl-train resume={seen.parent}" in told
    assert told.endswith("\n  1_seed-1: not started: the sweep was stopped before")
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


def test_a_second_stop_kills(tmp_path: Path, fake: None) -> None:
    stop = tmp_path / "sweep" / "stop"
    when((tmp_path / "sweep" / "0_seed-9" / "seen.json").exists, lambda: os.kill(os.getpid(), signal.SIGINT))
    when(stop.exists, lambda: (time.sleep(0.5), os.kill(os.getpid(), signal.SIGINT)))
    code, told, jobs = run(tmp_path, "seed=9,1")
    assert (code, jobs["0_seed-9"].state, jobs["0_seed-9"].exit_code) == (130, "interrupted", -signal.SIGKILL)
    assert "0_seed-9: interrupted: nothing was saved" in told


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


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"), [("", []), ("-1", []), ("2,3", ["2", "3"]), ("1, GPU-8f,-1,0", ["1", "GPU-8f"])]
)
def test_the_environment_says_which_devices_there_are(
    given: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_devices() == expected


def test_devices_are_lent_to_one_at_a_time(locks: Path) -> None:
    first, second = take(["2", "3", "5"], 1), take(["2", "3", "5"], 2)
    assert first is not None and second is not None
    assert (first.devices, second.devices) == (("2",), ("3", "5"))
    assert take(["2", "3", "5"], 1) is None
    second.close()
    third = take(["2", "3", "5"], 1)
    assert third is not None
    assert third.devices == ("3",)


def test_a_job_that_needs_several_takes_none_while_it_waits(locks: Path) -> None:
    first = take(["0", "1"], 1)
    assert take(["0", "1"], 2) is None
    second = take(["0", "1"], 1)
    assert first is not None and second is not None
    assert (first.devices, second.devices) == (("0",), ("1",))


def test_nothing_is_lent_to_who_wants_more_than_there_is(locks: Path) -> None:
    with pytest.raises(ValueError, match="at most 2"):
        take(["0", "1"], 3)


def test_allocations_of_a_cluster_do_not_wait_for_each_other(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert take(["0"], 1) is not None
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    assert take(["0"], 1) is not None
    assert take(["0"], 1) is None


def test_a_child_that_inherits_a_device_keeps_it_until_it_dies(locks: Path) -> None:
    lease = take(["0"], 1)
    assert lease is not None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=lease.descriptors)
    lease.close()
    assert take(["0"], 1) is None
    child.kill()
    child.wait()
    assert take(["0"], 1) is not None


def _use(folder: Path, rounds: int) -> None:
    """Take two of three devices again and again; a device that another process has too is an error."""
    for _ in range(rounds):
        while (lease := take(["0", "1", "2"], 2)) is None:
            time.sleep(0.001)
        marks = [folder / f"in-use-{device}" for device in lease.devices]
        for mark in marks:
            mark.touch(exist_ok=False)
        time.sleep(0.002)
        for mark in marks:
            mark.unlink()
        lease.close()


def test_processes_that_contend_never_share_a_device_nor_lock_up(tmp_path: Path, locks: Path) -> None:
    children = [multiprocessing.get_context("fork").Process(target=_use, args=(tmp_path, 25)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]


@pytest.mark.slow
def test_jobs_at_the_same_time_see_different_devices(
    tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    code, _, jobs = run(tmp_path, "seed=5,6", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert (code, sorted(device for job in jobs.values() for device in job.devices)) == (0, ["4", "7"])
    for job in jobs.values():
        assert json.loads((tmp_path / "sweep" / job.name / "seen.json").read_text())[0] == job.devices[0]


@pytest.mark.slow
def test_jobs_that_share_one_device_take_turns(tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    code, _, jobs = run(tmp_path, "seed=10,11,12", "hydra/launcher=joblib", "hydra.launcher.n_jobs=3")
    assert code == 0
    assert [job.devices for job in jobs.values()] == [["4"]] * 3


# --- going on ---------------------------------------------------------------------------------------------------------


def test_a_sweep_that_goes_on_leaves_finished_jobs_alone_and_runs_the_others(tmp_path: Path, fake: None) -> None:
    """Seed 3 fails; the second time its job is to be run again, and that of seed 1 is not."""
    code, _, before = run(tmp_path, "seed=1,3")
    assert (code, [job.state for job in before.values()]) == (1, ["finished", "failed"])
    seen = tmp_path / "sweep" / "0_seed-1" / "seen.json"
    seen.unlink()
    (tmp_path / "sweep" / "stop").touch()
    (tmp_path / "sweep" / "1_seed-3" / "checkpoints" / "step-000001").mkdir(parents=True)
    code, told, after = run(tmp_path, "resume=auto", "seed=1,3")
    assert (code, seen.exists(), after["0_seed-1"]) == (1, False, before["0_seed-1"])
    assert after["1_seed-3"].started > before["1_seed-3"].ended
    assert "0_seed-1: finished" in told


def test_a_sweep_goes_on_only_with_what_it_was_started_with_and_not_twice_at_once(tmp_path: Path, fake: None) -> None:
    assert run(tmp_path, "resume=auto", "seed=1,2")[0] == 0  # nothing is there: it begins
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


def test_the_jobs_of_a_sweep_are_one_group_of_weights_and_biases(tmp_path: Path, fake: None) -> None:
    run(tmp_path, "seed=1")
    assert json.loads((tmp_path / "sweep" / "0" / "group.json").read_text()) == "sweep"


# --- searches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1,2", ("CategoricalDistribution", {"choices": ("1", "2")})),
        ("a=choice([1,2],'x y')", ("CategoricalDistribution", {"choices": ("[1,2]", "x\\ y")})),
        ("a=range(1,4)", ("CategoricalDistribution", {"choices": ("1", "2", "3")})),
        ("a=interval(0.5,2)", ("FloatDistribution", {"low": 0.5, "high": 2.0, "log": False, "step": None})),
        ("a=tag(log,interval(0.5,2))", ("FloatDistribution", {"low": 0.5, "high": 2.0, "log": True, "step": None})),
        ("a=int(interval(1,9))", ("IntDistribution", {"low": 1, "high": 9, "log": False, "step": 1})),
    ],
)
def test_values_of_a_search_are_written_as_those_of_a_sweep(text: str, expected: tuple[str, dict[str, Any]]) -> None:
    found = distribution(text)
    assert (type(found).__name__, found._asdict()) == expected


SEARCH = ("search=optuna", "search.sampler=random", "search.startup_trials=1", "run.test_freq=5")


def test_optuna_chooses_values_and_a_failed_job_is_a_failed_trial(tmp_path: Path, fake: None) -> None:
    code, _, jobs = run(tmp_path, "seed=3,1", *SEARCH, "search.n_trials=4")
    values = [job.overrides[0] for job in jobs.values()]
    assert (code, len(jobs), set(values)) == (1, 4, {"seed=3", "seed=1"})
    ends = {"seed=3": "FAIL", "seed=1": "COMPLETE"}
    study = Optuna(n_trials=4, sampler="random", pruner="none", startup_trials=1, seed=0, params={})
    trials = study.open(tmp_path / "sweep", 9).trials
    assert [trial.state.name for trial in trials] == [ends[value] for value in values]
    best = json.loads((tmp_path / "sweep" / "best.json").read_text())
    assert (best["accuracy"], best["overrides"]) == (0.5, ["seed=1"])


def test_a_search_goes_on_with_its_study_and_with_more_trials(tmp_path: Path, fake: None) -> None:
    when(lambda: any(tmp_path.glob("sweep/0_*/seen.json")), lambda: os.kill(os.getpid(), signal.SIGINT))
    code, _, before = run(tmp_path, "seed=7", "trainer.n=2,3", *SEARCH, "search.n_trials=2")
    assert (code, [job.state for job in before.values()]) == (130, ["interrupted", "not started"])
    (tmp_path / "sweep" / "calm").touch()
    code, _, jobs = run(tmp_path, "resume=auto", "search.n_trials=3")
    assert (code, [job.state for job in jobs.values()]) == (0, ["finished"] * 3)
    assert next(iter(jobs)) == next(iter(before))  # the first has the values that it had
    assert sorted(job.trial for job in jobs.values()) == [0, 1, 2]


@pytest.mark.slow
def test_a_job_that_falls_behind_is_ended_and_told(tmp_path: Path, fake: None) -> None:
    """Of seeds 13 and 14 the first has 0.9 at step 5, the other 0.1, and would then go on for a minute."""
    code, _, jobs = run(tmp_path, "seed=13,14", *SEARCH, "search.seed=1", "search.n_trials=3")  # 13, 13, 14
    states = {tuple(job.overrides): job.state for job in jobs.values()}
    assert (code, states) == (0, {("seed=13",): "finished", ("seed=14",): "pruned"})


def test_a_trial_is_pruned_below_the_median_at_its_step(tmp_path: Path) -> None:
    """Median of 0.5, 0.6 and 0.9 at step 5 is 0.6."""
    optuna = Optuna(n_trials=9, sampler="random", pruner="median", startup_trials=1, seed=0, params={})

    def trial(value: float, name: str) -> tuple[Trial, bool]:
        (tmp_path / name).mkdir()
        row = {"step": 5, "greedy": {"accuracy": 0.0}, "mean@2": {"accuracy": value}}
        (tmp_path / name / "evaluations.jsonl").write_text(json.dumps(row) + "\n")
        made = Trial(optuna.open(tmp_path, 0), {"seed": "1,2"}, None)
        return made, made.falls_behind(tmp_path / name)

    for value in (0.9, 0.6, 0.5):
        trial(value, f"run-{value}")[0].end("finished", value)
    assert [trial(value, f"late-{value}")[1] for value in (0.59, 0.61)] == [True, False]


# --- launchers, with quick jobs --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stop_reaches_the_jobs_of_joblib_once_each(tmp_path: Path, fake: None) -> None:
    folder = tmp_path / "sweep"
    when(lambda: len(list(folder.glob("*/seen.json"))) == 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    code, _, jobs = run(tmp_path, "seed=7,8,1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert code == 130
    assert [path.read_text() for path in folder.glob("*/told")] == ["1", "1"]
    assert [job.state for job in jobs.values()] == ["interrupted", "interrupted", "not started", "not started"]


@pytest.mark.slow
def test_a_job_that_submitit_takes_away_for_its_time_goes_on_where_it_saved(tmp_path: Path, fake: None) -> None:
    code, _, jobs = run(tmp_path, "seed=7,1", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=1")
    folder = tmp_path / "sweep" / "0_seed-7"
    assert (code, (folder / "told").read_text()) == (0, "1")
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
def test_a_job_that_cannot_train_is_told_and_the_other_trains(tmp_path: Path) -> None:
    done = train(tmp_path, "data.max_prompt_length=1,64")
    assert done.returncode == 1
    assert "1 of 2 jobs did not finish:\n  0_data.max_prompt_length-1: failed: " in done.stdout
    assert "no problem is left" in done.stdout
    assert json.loads((tmp_path / "sweep" / "1_data.max_prompt_length-64" / "result.json").read_text())["steps"] == 1
