"""Devices are lent to one job at a time, and jobs see those that they were lent."""

import json
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.sweeps import swept
from rrl.processes.devices import take, visible_devices

pytestmark = pytest.mark.clock


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
    code, _, jobs = swept(tmp_path, "seed=5,6", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert (code, sorted(device for job in jobs.values() for device in job.devices)) == (0, ["4", "7"])
    for job in jobs.values():
        assert json.loads((tmp_path / "sweep" / job.name / "seen.json").read_text())[0] == job.devices[0]


@pytest.mark.slow
def test_jobs_that_share_one_device_take_turns(tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    code, _, jobs = swept(tmp_path, "seed=10,11,12", "hydra/launcher=joblib", "hydra.launcher.n_jobs=3")
    assert code == 0
    assert [job.devices for job in jobs.values()] == [["4"]] * 3
