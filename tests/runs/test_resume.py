"""Going on with a run: N steps = k steps, kill -9, resume, N - k steps; and what cannot be gone on with."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import runs
from fixtures.runs import finish, history, kill_when, start, start_ranks, step_of
from rrl.cli import train
from rrl.errors import ConfigError, DataError

pytestmark = pytest.mark.ranks

KILLS = 36
READ = {"sampler": "reanalyse", "selection": "entropy"}
"""Stored failures are read by the policy when they are drawn."""


def arguments(folder: Path, **changes: object) -> list[str]:
    """The quick run, with one pass over what it writes."""
    return runs.arguments(folder, trainer__ppo_epochs=1, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quick run, never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert finish(start(arguments(folder))) == [0]
    return folder


# --- kill and go on ---------------------------------------------------------------------------------------------------


def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(whole: Path, tmp_path: Path) -> None:
    """The same command with ``resume=auto`` begins the run and goes on with it."""
    folder = tmp_path / "run"
    words = [*arguments(folder, run__save_freq=2), "resume=auto"]
    assert kill_when(lambda: step_of(folder) >= 5, start(words))
    assert not (folder / "result.json").exists()
    assert finish(start(words)) == [0]
    assert history(folder) == history(whole)
    with pytest.raises(ConfigError, match="seed: 3 in the run"):
        _train(*[word for word in words if not word.startswith("seed=")], "seed=4")


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert kill_when(lambda: step_of(folder) >= 1, start(arguments(folder, run__save_freq=100)))
    assert finish(start([f"resume={folder}", "run.save_freq=1"])) == [0]
    assert history(folder) == history(whole)


@pytest.mark.slow
def test_no_kill_at_any_moment_loses_more_than_the_steps_since_the_last_checkpoint(whole: Path, tmp_path: Path) -> None:
    folder, rng = tmp_path / "run", random.Random(0)
    words, kills, saving = arguments(folder), 0, 0
    while kills < KILLS:
        before, begun, wait = step_of(folder), time.monotonic(), rng.uniform(0.2, 4.0)
        aside = (folder / "checkpoints").glob
        in_the_middle_of_saving = kills % 2 == 0

        def ready(before=before, begun=begun, wait=wait, aside=aside, saving=in_the_middle_of_saving) -> bool:
            if saving:
                return step_of(folder) > before + 1 and any(aside(".*.tmp"))
            return time.monotonic() - begun > wait

        process = start([f"resume={folder}"] if (folder / "config.yaml").exists() else words)
        if not kill_when(ready, process):
            assert process.exitcode == 0
            shutil.rmtree(folder)  # it came to its end: begin anew, there are kills left
            continue
        kills += 1
        saving += any(aside(".*.tmp"))
    assert finish(start([f"resume={folder}"])) == [0]
    assert history(folder) == history(whole)
    assert saving >= KILLS / 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"policy__zero_stage": 0}, {"policy__zero_stage": 2}, {"policy__zero_stage": 3}, READ]
)
def test_two_processes_go_on_as_one_does(changes: dict[str, object], tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    changes = changes | {"run__save_freq": 2}
    assert finish(*start_ranks(2, arguments(whole, **changes))) == [0, 0]
    assert kill_when(lambda: step_of(folder) >= 5, *start_ranks(2, arguments(folder, **changes)))
    assert finish(*start_ranks(2, [f"resume={folder}"])) == [0, 0]
    assert history(folder) == history(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"policy__zero_stage": 3}, {"critic": "shared", "policy__dtype": "bfloat16"}, READ]
)
def test_other_ways_of_training_go_on_too(changes: dict[str, object], tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert finish(start(arguments(whole, **changes))) == [0]
    assert kill_when(lambda: step_of(folder) >= 6, start(arguments(folder, **changes)))
    assert finish(start([f"resume={folder}"])) == [0]
    assert history(folder) == history(whole)


@pytest.mark.slow
def test_dropout_in_adapters_goes_on_where_it_was(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    changes = {"lora": "default", "lora__rank": 2, "lora__dropout": 0.5, "trainer__total_training_steps": 6}
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert finish(start(arguments(whole, **changes))) == [0]
    assert kill_when(lambda: step_of(folder) >= 3, start(arguments(folder, **changes)))
    assert finish(start([f"resume={folder}"])) == [0]
    assert history(folder) == history(whole)


def test_the_warm_start_a_run_began_with_is_kept_with_it(tmp_path: Path) -> None:
    folder, cache = tmp_path / "run", tmp_path / "cache"
    warm = {"warmstart": "tiny", "warmstart__steps": 2, "warmstart__batch_size": 8}
    words = arguments(folder, **warm, trainer__total_training_steps=4)
    assert kill_when(lambda: step_of(folder) >= 2, start(words, RRL_CACHE=cache))
    shutil.rmtree(cache)
    assert finish(start([f"resume={folder}"], RRL_CACHE=cache)) == [0]
    assert not cache.exists()


# --- what may change, and what may not --------------------------------------------------------------------------------


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def _train(*words: str) -> None:
    train._train(list(words))


def test_a_run_that_is_done_stays_as_it_is(run: Path, whole: Path) -> None:
    _train(f"resume={run}")
    assert history(run) == history(whole)


def test_a_run_can_be_made_longer(run: Path) -> None:
    _train(f"resume={run}", "trainer.total_training_steps=11", "run.test_freq=null")
    assert [row["step"] for row in history(run)["rows"]] == list(range(12))
    assert json.loads((run / "result.json").read_text())["steps"] == 11


def test_changes_of_what_was_trained_are_refused_all_by_name(run: Path, whole: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        _train(f"resume={run}", "trainer.n=2", "objective.gamma=0.9", "run.save_freq=3", "seed=4")
    reported = [fault.split(" in the run")[0] for fault in refused.value.faults]
    assert sorted(reported) == ["objective.gamma: 1.0", "seed: 3", "trainer.n: 1"]
    assert history(run) == history(whole)


def test_another_number_of_processes_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"launcher.num_processes: 1 in the run .*, now 2"):
        _train(f"resume={run}", "launcher.num_processes=2")


@pytest.mark.slow
def test_other_processes_than_those_that_saved_are_refused(run: Path) -> None:
    codes = finish(*start_ranks(2, [f"resume={run}", "trainer.total_training_steps=11"]))
    assert 0 not in codes
    assert "by 1 processes, now there are 2" in (run / "logs" / "rank-0.log").read_text()


def test_other_data_are_refused(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["data"]["train"]["sha256"] = "0" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"data: not what the run .* began with .*000000000000"):
        _train(f"resume={run}", "trainer.total_training_steps=11")


def test_a_directory_that_holds_a_run_is_refused_with_both_remedies(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"run.dir: .* holds a run; .* resume=.*another run.dir"):
        _train(*arguments(run))


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        _train(f"resume={tmp_path}")
    with pytest.raises(ConfigError, match="'auto' needs the run's directory"):
        _train("resume=auto")


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB in memory; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here ({done.stderr.strip()}): run as root to try a full disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("estimate", [True, False], ids=["seen before saving", "met while saving"])
def test_a_full_disk_ends_the_run_with_a_message_and_the_last_good_checkpoint(
    estimate: bool, whole: Path, small_disk: Path, tmp_path: Path
) -> None:
    folder, said = small_disk / "run", tmp_path / "said"
    blind = "import shutil; from types import SimpleNamespace as N; shutil.disk_usage = lambda _: N(free=1e9); "
    code = f"{'' if estimate else blind}from rrl.cli.train import main; main()"
    words = arguments(folder, run__keep_last=99)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with said.open("w") as file:
        done = subprocess.run([sys.executable, "-c", code, *words], env=environment, stdout=file, stderr=file)
    assert done.returncode == 1
    reported = "MB are free in" if estimate else "is full"
    assert re.search(rf"StorageError: cannot save:\n  run.dir: .*{reported}.*rrl-train resume=", said.read_text())
    assert "Traceback" not in said.read_text()
    assert json.loads((folder / "status.json").read_text())["state"] == "failed"
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert finish(start([f"resume={folder}"])) == [0]
    assert history(folder) == history(whole)


# --- nothing of the user's is lost ------------------------------------------------------------------------------------


def test_a_folder_that_held_something_is_never_removed(run: Path) -> None:
    for name in ("status.json", "metrics.jsonl", "manifest.json", "result.json"):
        (run / name).unlink()
    (run / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="no whole row of step"):
        _train(f"resume={run}", "trainer.total_training_steps=11")
    assert (run / "thesis.tex").read_text() == "mine"
    assert [path.name for path in sorted((run / "checkpoints").iterdir())][-1] == "step-000009"


def test_a_finished_run_without_checkpoints_is_not_trained_anew(run: Path, whole: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    before = [(run / name).read_bytes() for name in ("status.json", "config.yaml")]
    with pytest.raises(DataError, match="no checkpoint, but the run is finished"):
        _train(f"resume={run}", "trainer.total_training_steps=11")
    assert history(run) == history(whole)
    assert [(run / name).read_bytes() for name in ("status.json", "config.yaml")] == before


def test_an_unfinished_run_without_checkpoints_keeps_its_records_aside(run: Path, whole: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "result.json").unlink()
    before = (run / "metrics.jsonl").read_bytes()
    _train(f"resume={run}")
    assert history(run) == history(whole)
    assert (run / "records-without-checkpoint" / "metrics.jsonl").read_bytes() == before


def test_the_result_is_of_the_weights_it_stands_beside(run: Path) -> None:
    """It had come further than its last checkpoint and is made to end there."""
    (run / "result.json").unlink()
    shutil.rmtree(run / "checkpoints" / "step-000009")
    last = max(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))
    assert last < step_of(run)
    _train(f"resume={run}", f"trainer.total_training_steps={last}")
    result = json.loads((run / "result.json").read_text())
    assert (result["steps"], result["after"]["step"]) == (last, last)


def test_another_algorithm_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match="algo: 'rrl' in the run"):
        _train(f"resume={run}", "algo=ppo")


def test_a_choice_of_parts_is_refused_with_the_keys_that_may_change(run: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _train(f"resume={run}", "compile=layers", "offload=optimizer")
    *chosen, remedy = caught.value.faults
    assert chosen == [
        f"{key}: it chooses a part, and a run's choices of parts stay as they are" for key in ("compile", "offload")
    ]
    assert remedy.startswith("remedy: a resume may change run, logger, launcher.hostfile, trainer.total_training_steps")
    assert remedy.endswith("; anything else begins a new run")
