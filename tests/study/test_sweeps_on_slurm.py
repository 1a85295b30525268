"""Jobs of a sweep that SLURM ends before they are done, with a program in place of SLURM's own."""

import os
from pathlib import Path

import pytest

from fixtures.sweeps import swept
from rrl.processes.slurm import queue_again

SCONTROL = """#!/bin/sh
echo "$@" >> {folder}/asked
[ $1 = requeue ] && exec sh -c 'echo "$0" >&2; exit {code}' "no such job"
echo 'JobId=7 {facts}'
"""


@pytest.fixture(autouse=True)
def submitit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As submitit's job number 7 finds it."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "7")


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with what scontrol was asked for; the job is running."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    answers(tmp_path, "JobState=RUNNING Restarts=0")
    return tmp_path / "asked"


def answers(folder: Path, facts: str, code: int = 0) -> None:
    """Let scontrol report these facts of the job, and end with the code when it is to queue it again."""
    (folder / "scontrol").write_text(SCONTROL.format(folder=folder, facts=facts, code=code))
    (folder / "scontrol").chmod(0o755)


def test_a_running_job_is_queued_again(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here for the third time."""
    answers(asked.parent, "JobState=RUNNING Restarts=2")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert queue_again() is None
    assert asked.read_text() == "show job --oneliner 7\nrequeue 7\n"


def test_a_job_of_an_array_is_queued_again_alone(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of its jobs has the number of the array, which stands for all of them."""
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert queue_again() is None
    assert asked.read_text() == "show job --oneliner 7_2\nrequeue 7_2\n"


def test_a_job_that_slurm_has_queued_itself_is_not_queued_twice(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SLURM 22.05 reports a job that it pre-empts without a grace time."""
    answers(asked.parent, "JobState=COMPLETING Requeue=1 Restarts=3")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert queue_again() is None
    assert "requeue" not in asked.read_text()


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ("JobState=CANCELLED Restarts=0", "SLURM's state of the job is CANCELLED"),
        ("JobState=TIMEOUT Restarts=0", "SLURM's state of the job is TIMEOUT"),
        ("JobState=RUNNING Restarts=0", "scontrol requeue: no such job"),
    ],
)
def test_why_a_job_is_not_queued_again(asked: Path, facts: str, why: str) -> None:
    answers(asked.parent, facts, code=1)
    assert queue_again() == why


def test_a_job_of_a_sweep_that_slurm_ends_goes_back_into_the_queue(tmp_path: Path, fake: None, asked: Path) -> None:
    code, reported, jobs = swept(tmp_path, "seed=15,1")
    assert (code, jobs["0_seed-15"].state) == (1, "waiting")
    assert asked.read_text().endswith("requeue 7\n")
    assert "the launcher ended with code 1: in the queue again" in reported  # of its own; SLURM starts it anew


def test_a_job_of_a_sweep_that_is_cancelled_does_not(tmp_path: Path, fake: None, asked: Path) -> None:
    answers(tmp_path, "JobState=CANCELLED Restarts=0")
    _, reported, jobs = swept(tmp_path, "seed=15,1")
    assert (jobs["0_seed-15"].state, jobs["1_seed-1"].state) == ("interrupted", "finished")
    remedy = f"continue: rrl-train resume={tmp_path / 'sweep' / '0_seed-15'}"
    assert f"0_seed-15: interrupted: not queued again: SLURM's state of the job is CANCELLED; {remedy}" in reported


def test_a_job_that_gets_nowhere_within_its_time_limit_is_not_queued_again(
    tmp_path: Path, fake: None, asked: Path
) -> None:
    _, reported, jobs = swept(tmp_path, "seed=16,1")
    assert jobs["0_seed-16"].state == "interrupted" and not asked.exists()
    assert "not queued again: no step was saved within its time limit; raise hydra.launcher.timeout_min" in reported
