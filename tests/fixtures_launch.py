"""Whole runs in processes of their own, as a user starts them, and a reward that misbehaves on one rank."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fixtures_ranks import TESTS

TRAIN = [sys.executable, "-m", "rrl.cli.train"]
QUICK = (
    "warmstart=none", "run.threads=1", "trainer.train_batch_size=8", "trainer.ppo_mini_batch_size=8",
    "evaluation.limit=2", "evaluation.n=2", "task.train_per_level=20", "trainer.total_training_steps=4",
    "run.save_freq=2", "run.test_freq=null", "model.hidden_size=16", "model.intermediate_size=32",
    "model.num_hidden_layers=1", "model.num_attention_heads=2", "data.level_weights={L3: 1}", "reward=scripted",
    "trainer.critic_warmup=0",
)  # fmt: skip
LONG = (*QUICK[:7], "trainer.total_training_steps=100000", *QUICK[8:])
PATIENCE = 300.0
"""Seconds for what takes ten on an idle machine."""
SCRIPTED = "_target_: fixtures_reward.Scripted\n"


def environment(folder: Path, act: str = "none", **more: str) -> dict[str, str]:
    """Ours without what a launcher around us may have set; the reward does ``act`` and writes into ``folder``."""
    theirs = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "RRL_PARENT", "CUDA_VISIBLE_DEVICES")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in theirs and (not name.startswith("SLURM_") or name == "SLURM_CONF")
    }
    parts = folder / "parts"
    (parts / "reward").mkdir(parents=True, exist_ok=True)
    (parts / "reward" / "scripted.yaml").write_text(SCRIPTED)
    shutil.copy(TESTS / "fixtures_reward.py", parts)
    own = {"OMP_NUM_THREADS": "1", "RRL_PARTS": str(parts), "CUDA_VISIBLE_DEVICES": ""}
    return {**kept, **own, "RRL_TEST_ACT": act, "RRL_TEST_SEEN": str(folder), **more}


def begin(folder: Path, *arguments: str, program: Sequence[str] = TRAIN, act: str = "none", **more: str) -> Any:
    """A run in ``folder/run`` as a process; what it prints goes to ``folder/out``."""
    where = [] if any(text.startswith("resume=") for text in arguments) else [f"run.dir={folder / 'run'}"]
    with (folder / "out").open("wb") as out:
        return subprocess.Popen(
            [*program, *where, *arguments], env=environment(folder, act, **more), stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip


def complete(folder: Path, *arguments: str, **how: Any) -> int:
    """The exit code of a run that is waited for."""
    with running(begin(folder, *arguments, **how)) as process:
        return int(process.wait(timeout=PATIENCE))


@contextmanager
def running(process: Any) -> Iterator[Any]:
    """The process, which is killed in the end if need be; ranks then leave by themselves."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(fact: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait for a fact; returns it."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := fact():
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited in vain for {what}")


def steps(folder: Path) -> int:
    """How many steps the run in ``folder/run`` has done."""
    return max(0, len(rows(folder)) - 1)


def rows(folder: Path) -> list[dict[str, Any]]:
    """Its whole rows of metrics."""
    file = folder / "run" / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def status(folder: Path) -> dict[str, Any]:
    """What the run tells of itself."""
    found: dict[str, Any] = json.loads((folder / "run" / "status.json").read_text())
    return found


def said(folder: Path) -> str:
    """What was printed."""
    return (folder / "out").read_text(errors="replace")


def log(folder: Path, rank: int) -> str:
    """What a rank wrote into its log."""
    return (folder / "run" / "logs" / f"rank-{rank}.log").read_text(errors="replace")


def seen(folder: Path, rank: int) -> dict[str, Any]:
    """What the reward saw on a rank: its process number and modules."""
    found: dict[str, Any] = json.loads((folder / f"seen-{rank}").read_text())
    return found


def left(folder: Path) -> dict[int, str]:
    """Living processes that name the folder, but for our own: number and command line."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has just gone
            continue
        if str(folder) in line and state != "Z" and int(entry.name) != os.getpid():
            found[int(entry.name)] = line
    return found


def torchrun(count: int, *options: str) -> list[str]:
    """The program that starts ``count`` processes by torchrun."""
    where = ["--nnodes=1", f"--nproc_per_node={count}", "--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    return [sys.executable, "-m", "torch.distributed.run", *where, *options, "-m", "rrl.cli.train"]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
