"""Two hosts, of which one loses its link in the middle of a run: both end with the reason, and the run goes on later.

The hosts are network namespaces of this machine; no traffic leaves them. They share a file system.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fixtures.hosts import ADDRESSES, Hosts, hosts, why_not
from fixtures.launch import (
    PATIENCE,
    QUICK,
    TRAIN,
    compared,
    complete,
    environment,
    left,
    log,
    rows,
    running,
    said,
    status,
    steps,
    until,
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.ranks]
STEPS = "trainer.total_training_steps="
LASTING = [*(text for text in QUICK if not text.startswith(STEPS)), f"{STEPS}60", "objective.entropy_coef=0.1"]
SILENCE = "run.phase_limit=600"
"""A rank may be silent for the shortest time that is allowed, 30 seconds."""


@pytest.fixture(scope="module", autouse=True)
def allowed() -> None:
    missing = why_not()
    if missing is not None:
        pytest.skip(missing)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The metrics of the same run by two processes of one host."""
    folder = tmp_path_factory.mktemp("one")
    assert complete(folder, *LASTING, "launcher.num_processes=2") == 0, said(folder)
    return [compared(row) for row in rows(folder)]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Hosts]:
    with hosts(tmp_path / "net") as here:
        try:
            yield here
        finally:
            for process in left(tmp_path):
                os.kill(process, signal.SIGKILL)


def start(here: Hosts, folder: Path, number: int, *command: str) -> Any:
    """A process on a host; what it prints goes to ``folder/out`` or, of the second host, ``folder/out-1``."""
    with (folder / ("out", "out-1")[number]).open("wb") as out:
        return subprocess.Popen(
            [*here.inside(number), *command], stdout=out, stderr=out, start_new_session=True,
            env=environment(folder, PATH=here.path, HOME=str(folder)),
        )  # fmt: skip


def by_hostfile(here: Hosts, folder: Path, *arguments: str) -> list[Any]:
    """rrl-train on the first host, which starts a process on each."""
    (folder / "hosts").write_text("".join(f"{address} slots=1\n" for address in ADDRESSES))
    passed_on = {"RRL_TEST_ACT": "none", "RRL_TEST_SEEN": str(folder), "OMP_NUM_THREADS": "1"}
    (folder / ".deepspeed_env").write_text("".join(f"{name}={value}\n" for name, value in passed_on.items()))
    return [start(here, folder, 0, *TRAIN, *arguments)]


def of_hostfile(folder: Path) -> list[str]:
    return [f"launcher.hostfile={folder / 'hosts'}", "launcher=hostfile", "launcher.num_processes=1"]


def by_torchrun(here: Hosts, folder: Path, *arguments: str) -> list[Any]:
    """torchrun on both hosts, which meet at the first one."""

    def command(number: int) -> Sequence[str]:
        place = [f"--rdzv_endpoint={ADDRESSES[0]}:29400", f"--rdzv_conf=is_host={1 - number}"]
        how = ["--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d", *place, f"--local_addr={ADDRESSES[number]}"]
        return [sys.executable, "-m", "torch.distributed.run", *how, "-m", "rrl.cli.train", *arguments]

    return [start(here, folder, number, *command(number)) for number in range(2)]


@pytest.mark.parametrize("by", [by_hostfile, by_torchrun])
def test_a_host_that_loses_its_link_ends_the_run_on_both_and_the_run_goes_on(
    two: Hosts, tmp_path: Path, uninterrupted: list[dict[str, Any]], by: Any
) -> None:
    keys = [*LASTING, SILENCE, f"run.dir={tmp_path / 'run'}", *(of_hostfile(tmp_path) if by is by_hostfile else [])]
    with ExitStack() as stack:
        first, *_ = [stack.enter_context(running(process)) for process in by(two, tmp_path, *keys)]
        until(lambda: steps(tmp_path) >= 3 or first.poll() is not None, "a step")
        two.cut()
        began = time.monotonic()
        until(lambda: "sign of life" in str(status(tmp_path)["reason"]), "a reason", 70)
        until(lambda: all("Thread 0x" in log(tmp_path, rank) for rank in (0, 1)), "both ranks to end", 20)
        assert first.wait(60) == 1, said(tmp_path)
        print(f"{time.monotonic() - began:.0f} s from the cut to the end")
    assert status(tmp_path)["state"] == "failed"
    assert status(tmp_path)["reason"].startswith("watchdog: rank ")
    assert "its host or the network is gone" in status(tmp_path)["reason"] and status(tmp_path)["reason"] in said(
        tmp_path
    )
    assert 3 <= steps(tmp_path) < 60
    until(
        lambda: not [line for line in left(tmp_path).values() if "rrl.cli.worker" in line], "all ranks to be gone", 60
    )

    two.mend()
    with ExitStack() as stack:
        for process in [stack.enter_context(running(each)) for each in by(two, tmp_path, f"resume={tmp_path / 'run'}")]:
            assert process.wait(PATIENCE) == 0, said(tmp_path)
    assert "continues from step " in log(tmp_path, 0)
    assert [compared(row) for row in rows(tmp_path)] == uninterrupted


def test_a_link_that_comes_back_within_seconds_costs_nothing_but_time(
    two: Hosts, tmp_path: Path, uninterrupted: list[dict[str, Any]]
) -> None:
    keys = [*LASTING, SILENCE, f"run.dir={tmp_path / 'run'}", *of_hostfile(tmp_path)]
    with running(by_hostfile(two, tmp_path, *keys)[0]) as first:
        until(lambda: steps(tmp_path) >= 3 or first.poll() is not None, "a step")
        two.cut()
        before = steps(tmp_path)
        time.sleep(5)
        assert steps(tmp_path) <= before + 1  # nothing got through
        two.mend()
        assert first.wait(PATIENCE) == 0, said(tmp_path)
    assert [compared(row) for row in rows(tmp_path)] == uninterrupted
