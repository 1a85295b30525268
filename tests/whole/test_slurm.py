"""A real SLURM: sweeps and reproductions whose jobs are interrupted and go on, ranks by srun, seeds as a job array."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.launch import (
    LONG,
    PATIENCE,
    QUICK,
    TRAIN,
    begin,
    compared,
    complete,
    environment,
    rows,
    running,
    said,
    saved,
    status,
    steps,
    until,
)  # fmt: skip
from fixtures.slurm import Slurm, slurm, why_not
from rrl.study.sweep_files import read_jobs

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.ranks]
ROOT = Path(__file__).resolve().parents[2]
STEPS = "trainer.total_training_steps="
LASTING = [*(text for text in QUICK if not text.startswith(STEPS)), f"{STEPS}80", "objective.entropy_coef=0.1"]
RATES = ("1e+30", "0.0001", "0.0002", "0.0003")
"""The first one diverges."""


@pytest.fixture(scope="module", autouse=True)
def allowed() -> None:
    missing = why_not()
    if missing is not None:
        pytest.skip(missing)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("slurm"), cpus=4) as here:
        yield here


# --- a sweep ----------------------------------------------------------------------------------------------------------


def job_of(folder: Path, number: int) -> Path:
    """The folder of a job of the sweep in ``folder/run``."""
    return folder / "run" / f"{number}_policy.actor_lr-{RATES[number]}"


def at_work(folder: Path) -> bool:
    """Whether a run has saved a step since it began, or went on, and has not ended."""
    saved = [*folder.glob("checkpoints/step-*")]
    return bool(saved) and json.loads((folder / "status.json").read_text())["state"] == "running"


def changes(said: str, name: str) -> list[str]:
    """The states of a job as the sweep reported them, in their order."""
    return [line.partition(": ")[2] for line in said.splitlines() if line.startswith(f"  {name}: ")]


def test_jobs_that_are_preempted_or_out_of_time_go_on_and_a_failed_one_is_named(cluster: Slurm, tmp_path: Path) -> None:
    """SIGUSR2 is what submitit has SLURM send some time before the time limit."""
    keys = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=patient", f"hydra.sweep.dir={tmp_path / 'run'}"]
    rates = f"policy.actor_lr={','.join(RATES)}"
    with running(begin(tmp_path, "-m", *LASTING, rates, *keys, "resume=auto", **cluster.environment)) as sweep:
        until(lambda: len(cluster.jobs("RUNNING")) == 3, "the first job to fail")
        until(lambda: all(at_work(job_of(tmp_path, number)) for number in (1, 2, 3)), "three jobs at work")
        cluster.ask("sbatch", "-p", "urgent", "-n2", "-o", "/dev/null", "--wrap", "sleep 1")  # one processor is free
        (first,) = until(lambda: waiting(tmp_path), "a pre-empted job")
        second = 1 if first != 1 else 2
        array = cluster.ask("squeue", "-h", "-o", "%F", "-p", "patient").split()[0]
        cluster.ask("scancel", "--signal=USR2", f"{array}_{second}")
        assert sweep.wait(PATIENCE) == 1, said(tmp_path) + cluster.logs()

    names = [job_of(tmp_path, number).name for number in range(4)]
    again = ["running", "waiting", "running", "finished"]
    assert [changes(said(tmp_path), names[number])[-4:] for number in (first, second)] == [again, again]
    assert f"1 of 4 jobs did not finish:\n  {names[0]}: failed: step 1: mini-batch 2: loss: actor nan" in said(tmp_path)
    for number in (first, second):
        alone = tmp_path / f"alone-{number}"
        alone.mkdir()
        assert complete(alone, *LASTING, f"policy.actor_lr={RATES[number]}") == 0, said(alone)
        shutil.copytree(job_of(tmp_path, number), tmp_path / f"job-{number}" / "run")
        assert [*map(compared, rows(tmp_path / f"job-{number}"))] == [*map(compared, rows(alone))]
        assert went_on(job_of(tmp_path, number))


def went_on(run: Path) -> bool:
    return "(continues from step " in (run / "logs" / "rank-0.log").read_text()


def waiting(folder: Path) -> list[int]:
    """The numbers of the jobs that have begun and are in the queue again."""
    jobs = enumerate(read_jobs(folder / "run"))
    return [number for number, job in jobs if job.state == "waiting" and job.started is not None]


# --- by srun and sbatch -----------------------------------------------------------------------------------------------


def test_two_tasks_of_srun_do_under_zero_2_what_one_process_does(cluster: Slurm, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    srun = ["srun", "-n2", "--kill-on-bad-exit=1", *TRAIN]
    assert complete(one, *QUICK) == 0, said(one)
    assert complete(two, *QUICK, "policy.zero_stage=2", program=srun, **cluster.environment) == 0, said(two)
    assert (status(two)["state"], status(two)["processes"]) == ("finished", 2)
    assert [row["step"] for row in rows(two)] == [0, 1, 2, 3, 4]
    for row, other in zip(rows(one), rows(two), strict=True):
        assert compared(other) == pytest.approx(compared(row), rel=1e-3, abs=1e-5, nan_ok=True)


def test_a_cancelled_step_of_two_tasks_saves(cluster: Slurm, tmp_path: Path) -> None:
    srun = ["srun", "-n2", "--job-name=ranks", "--kill-on-bad-exit=1", *TRAIN]
    with running(begin(tmp_path, *LONG, program=srun, **cluster.environment)) as job:
        until(lambda: steps(tmp_path) >= 1, "a step")
        cluster.ask("scancel", "--signal=TERM", "--name=ranks")
        job.wait(PATIENCE)
    assert saved(tmp_path, rows(tmp_path)[-1]["step"]), said(tmp_path)
    assert (status(tmp_path)["state"], status(tmp_path)["processes"]) == ("interrupted", 2)


def test_the_job_array_of_the_documentation_trains_a_seed_in_each_job(cluster: Slurm, tmp_path: Path) -> None:
    """The second seed is told of its time limit, saves, and goes on."""
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```bash\n(#!.*?--array.*?)```", page, re.DOTALL)
    (tmp_path / "seeds.sh").write_text(script.replace("...", shlex.join(LASTING)))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rrl-train").write_text(f'#!/bin/sh\nexec {shlex.join(TRAIN)} "$@"\n')
    (tmp_path / "bin" / "rrl-train").chmod(0o755)
    here = environment(tmp_path, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}", **cluster.environment)
    told = subprocess.run(["sbatch", "--parsable", "seeds.sh"], cwd=tmp_path, env=here, capture_output=True, text=True)
    array, runs = told.stdout.strip(), [tmp_path / "runs" / f"rrl-s{seed}" for seed in range(3)]
    until(lambda: at_work(runs[1]), "the second seed at work")
    cluster.ask("scancel", "--signal=USR1", f"{array}_1")
    until(lambda: not cluster.jobs("PENDING,RUNNING,COMPLETING"), "the jobs to end")
    ends = [json.loads((run / "status.json").read_text())["state"] for run in runs]
    assert ends == ["finished"] * 3, [path.read_text() for path in tmp_path.glob("slurm-*.out")]
    assert [*map(went_on, runs)] == [False, True, False]


# --- a reproduction ---------------------------------------------------------------------------------------------------


def test_a_reproduction_is_a_job_a_step_and_an_interrupted_one_goes_on(cluster: Slurm, tmp_path: Path) -> None:
    data = Path(os.environ.get("RRL_DATA", ROOT.parent / "shared" / "data")) / "gsm8k"
    if not data.is_dir():
        pytest.skip(f"no {data}: set RRL_DATA to the folder that holds gsm8k/")
    out = tmp_path / "out"
    given = ["task=gsm8k", "scale=rehearsal", "seeds=0", "limit=2", f"out={out}", f"data={data}", "launcher=slurm"]
    command = [sys.executable, "-m", "rrl.cli.reproduce", *given, "slurm=-n1 -p patient"]
    subprocess.run(command, env=environment(tmp_path, **cluster.environment), check=True)
    until(lambda: at_work(out / "ppo-s0"), "an arm at work", 4 * PATIENCE)
    cluster.ask("scancel", "--signal=TERM", "--name=out-ppo-s0")
    until(lambda: not cluster.jobs("PENDING,RUNNING,COMPLETING"), "the jobs to end", 4 * PATIENCE)
    arms = json.loads((out / "table.json").read_text())["arms"]
    assert [arm for arm, row in arms.items() if row["ours"] is None] == [], [*(out / "logs").iterdir()]
    assert [went_on(out / run) for run in ("ppo-s0", "rrl-s0")] == [True, False]
