"""Checkpoints that are written while training continues: what is in them, and what becomes of faults and kills."""

import errno
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.ranks import on_ranks
from fixtures.training import apart, make_trainer, weights
from rrl.errors import StorageError
from rrl.processes.distributed import rank
from rrl.processes.machine import MemoryInfo
from rrl.records.saving import rescued
from rrl.runs import aside, checkpoint
from rrl.runs.aside import Files, fits
from rrl.runs.checkpoint import Checkpoints
from rrl.training.trainer import Trainer

STAGES = [(0, "float32"), (1, "bfloat16"), (2, "bfloat16"), (3, "float32")]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Threads begin to write when it is set."""
    opened, write = threading.Event(), Files.write

    def later(self: Files, others: Any) -> Any:
        assert opened.wait(60)
        return write(self, others)

    monkeypatch.setattr(Files, "write", later)
    yield opened
    opened.set()


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Of a run with a whole checkpoint of step 0."""
    made = Checkpoints(tmp_path, keep_last=1, keep_best=0)
    made.save(make_trainer(), None)
    return made


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("stage", "dtype"), STAGES)
def test_steps_beside_the_writing_change_nothing_of_it(
    stage: int, dtype: str, gate: threading.Event, tmp_path: Path
) -> None:
    policy = {"zero_stage": stage, "dtype": dtype}
    trained, fresh = make_trainer(policy=policy), make_trainer(policy=policy)
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=0)
    trained.step()
    checkpoints.begin(trained, None)
    steps = [trained.step(), trained.step()]
    gate.set()
    checkpoints.finish()
    assert checkpoints.restore(fresh) == 1
    assert [fresh.step(), fresh.step()] == steps
    assert not apart(weights(fresh.policy), weights(trained.policy))


def test_a_kill_while_it_is_written_leaves_the_one_before(gate: threading.Event, tmp_path: Path) -> None:
    checkpoints, trained = Checkpoints(tmp_path, keep_last=1, keep_best=0), make_trainer()
    gate.set()
    checkpoints.save(trained, None)
    gate.clear()
    trained.step()
    checkpoints.begin(trained, None)
    assert names(checkpoints) == [".step-000001.tmp", "step-000000"]
    assert Checkpoints(tmp_path, keep_last=1, keep_best=0).restore(make_trainer()) == 0
    gate.set()
    checkpoints.finish()
    assert names(checkpoints) == ["step-000001"]


def test_the_next_save_waits_for_the_one_before(gate: threading.Event, tmp_path: Path) -> None:
    checkpoints, trained = Checkpoints(tmp_path, keep_last=2, keep_best=0), make_trainer()
    checkpoints.begin(trained, None)
    trained.global_step = 1
    threading.Timer(0.2, gate.set).start()
    checkpoints.begin(trained, None)
    assert names(checkpoints)[-1] == "step-000000"
    checkpoints.finish()
    assert names(checkpoints) == ["step-000000", "step-000001"]


@pytest.mark.parametrize("wait", ["finish", "begin", "save"])
def test_a_disk_that_is_full_is_said_at_the_next_save_or_end(
    wait: str, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = make_trainer()
    trained.global_step = 1
    monkeypatch.setattr(Path, "write_bytes", full)
    checkpoints.begin(trained, None)
    with pytest.raises(StorageError, match=r"run.dir: the disk of .* is full .*rrl-train resume="):
        getattr(checkpoints, wait)(*() if wait == "finish" else (trained, None))
    assert names(checkpoints) == ["step-000000"]


def test_a_removed_folder_is_said_and_the_weights_are_rescued(gate: threading.Event, tmp_path: Path) -> None:
    checkpoints, trained = Checkpoints(tmp_path, keep_last=1, keep_best=0), make_trainer()
    checkpoints.begin(trained, None)
    shutil.rmtree(checkpoints.folder)
    gate.set()
    with (
        pytest.raises(StorageError, match=r"No such file or directory.*; the weights are in .*rescued-step-000000"),
        rescued(trained.policy.save, "step-000000", tmp_path),
    ):
        checkpoints.finish()


def test_after_another_error_it_is_still_completed(gate: threading.Event, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=0)
    checkpoints.leave()
    checkpoints.begin(make_trainer(), None)
    threading.Timer(0.2, gate.set).start()
    checkpoints.leave()
    assert names(checkpoints) == ["step-000000"]


def test_a_fault_of_writing_does_not_hide_another_error(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Path, "write_bytes", full)
    checkpoints.begin(make_trainer(), None)
    checkpoints.leave()
    assert "the last checkpoint is not whole" in caplog.text


def test_without_memory_for_a_copy_the_files_are_written_at_once(
    gate: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "fits", lambda size: False)
    checkpoints, trained = Checkpoints(tmp_path, keep_last=1, keep_best=0), make_trainer()
    checkpoints.begin(trained, None)
    assert (checkpoints.folder / ".step-000000.tmp" / "state.pt").stat().st_size > 0
    gate.set()
    trained.step()
    checkpoints.finish()
    assert checkpoints.restore(make_trainer()) == 0


@pytest.mark.parametrize(
    ("size", "ranks", "here", "fitting"),
    [(50, 1, None, True), (51, 1, None, False), (50, 4, None, True), (51, 4, None, False), (100, 4, 2, True)],
)
def test_a_copy_takes_at_most_half_of_the_free_memory(
    size: int, ranks: int, here: int | None, fitting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "main_memory", lambda: MemoryInfo("main memory", 1000, 100))
    monkeypatch.setattr(aside, "world_size", lambda: ranks)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if here is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
    assert fits(size) is fitting


@pytest.mark.parametrize(("stage", "dtype"), STAGES)
def test_optimiser_states_are_one_file_and_weights_in_the_trained_precision(
    stage: int, dtype: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    trained: Trainer = make_trainer(policy={"zero_stage": stage, "dtype": dtype})
    Checkpoints(tmp_path, keep_last=1, keep_best=0).save(trained, None)
    folder = tmp_path / "checkpoints" / "step-000000"
    files = sorted((folder / "networks" / "actor" / "state").glob("*.pt"))
    states = [path for path in files if path.name.endswith("optim_states.pt")]
    assert (len(files), len(states)) == ((1, 0) if stage == 0 else (2, 1))
    (networks,) = set(files) - set(states)
    saved = torch.load(networks, weights_only=False)["module"].values()
    assert {weight.dtype for weight in saved} == {getattr(torch, dtype)}
    actor = load_file(folder / "actor" / "model.safetensors").values()
    assert {weight.dtype for weight in actor} == {getattr(torch, dtype)}


# --- two ranks --------------------------------------------------------------------------------------------------------


def _beside(folder: Path, stage: int) -> tuple[list[str], int | None, bool, str, list[str]]:
    """What a rank sees: names after an error elsewhere, a resume, and names after the second rank's disk was full."""
    trained, fresh = (make_trainer(policy={"zero_stage": stage}) for _ in range(2))
    checkpoints, write_bytes, fault = Checkpoints(folder, keep_last=2, keep_best=0), Path.write_bytes, ""
    trained.step()
    checkpoints.begin(trained, None)
    trained.step()
    checkpoints.leave()
    left = names(checkpoints) if rank() == 0 else []
    checkpoints.begin(trained, None)
    steps = [trained.step(), trained.step()]
    checkpoints.finish()
    step = checkpoints.restore(fresh)
    same = [fresh.step(), fresh.step()] == steps
    Path.write_bytes = full if rank() == 1 else write_bytes  # type: ignore[method-assign]
    checkpoints.begin(trained, None)
    try:
        checkpoints.finish()
    except StorageError as error:
        fault = error.faults[0]
    return left, step, same, fault, names(checkpoints)


@pytest.mark.ranks
@pytest.mark.parametrize("stage", [2, *(pytest.param(stage, marks=pytest.mark.slow) for stage in (0, 1, 3))])
def test_two_ranks_write_beside_their_steps(stage: int, tmp_path: Path) -> None:
    both = on_ranks(2, _beside, tmp_path, stage)
    assert [left for left, *_ in both] == [["step-000001"], []]
    assert [(step, same) for _, step, same, *_ in both] == [(2, True)] * 2
    assert all("is full" in fault for *_, fault, _ in both)
    assert [kept for *_, kept in both] == [["step-000001", "step-000002"]] * 2
