"""Whole runs in processes of their own that start fast, for the tests that kill and resume them."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["rrl.experiment", "rrl.policy", "deepspeed", "transformers", "hydra", "omegaconf"])
TIMES = ("timing_s/", "perf/")
QUICK = {
    "run.threads": 1, "run.test_freq": 5, "run.save_freq": 1, "run.rollout_freq": 2, "algo": "rrl", "warmstart": "none",
    "task.train_per_level": 20, "task.test_per_level": 3, "data.level_weights": "{L3: 1, L10: 1}", "seed": 3,
    "model.hidden_size": 16, "model.intermediate_size": 32, "model.num_hidden_layers": 1,
    "model.num_attention_heads": 2, "trainer.train_batch_size": 12, "trainer.ppo_mini_batch_size": 6,
    "trainer.critic_warmup": 1, "trainer.total_tokens": "null", "trainer.total_training_steps": 12,
    "policy.critic": "own", "selection": "random_cut", "sampler.schedule.share": 0.5, "sampler.rescore_every": 3,
    "evaluation.n": 2, "evaluation.limit": 2, "objective.kl_coef": 0.05, "objective.kl_target": 0.1,
    "objective.kl_horizon": 100, "policy.lr_schedule": "cosine", "policy.lr_warmup_steps": 3,
}  # fmt: skip
"""A run that has everything which changes during training, a step of which takes a fraction of a second."""


def arguments(folder: Path, **changes: Any) -> list[str]:
    """The command line of the quick run in ``folder``; ``__`` in a name stands for a dot."""
    given = {**QUICK, **{name.replace("__", "."): value for name, value in changes.items()}}
    return [f"{key}={value}" for key, value in {**given, "run.dir": folder}.items()]


def start(words: list[str], **environment: Any) -> Any:
    """A process that does what ``rrl-train`` does with these words; its output goes to the null device."""
    process = CONTEXT.Process(target=_train, args=(words, {name: str(value) for name, value in environment.items()}))
    process.start()
    return process


def start_ranks(count: int, words: list[str]) -> list[Any]:
    """The same by several processes, as torchrun starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": probe.getsockname()[1]}
    return [start(words, RANK=number, LOCAL_RANK=number, **place) for number in range(count)]


def finish(*processes: Any) -> list[int]:
    """Wait for them; their exit codes."""
    for process in processes:
        process.join(240)
        assert process.exitcode is not None, "a run hangs"
    return [process.exitcode for process in processes]


def kill_when(ready: Callable[[], bool], *processes: Any) -> bool:
    """Kill them all (-9) as soon as it is so; false when they ended before."""
    while not ready():
        if not any(process.is_alive() for process in processes):
            return False
        time.sleep(0.001)
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
    finish(*processes)
    return True


def step_of(folder: Path) -> int:
    """The last step in metrics.jsonl, -1 before any."""
    try:
        return (folder / "metrics.jsonl").read_text(encoding="utf-8").count("\n") - 1
    except FileNotFoundError:
        return -1


def history(folder: Path) -> dict[str, Any]:
    """All that must not depend on interruptions: rows without times, evaluations, rollouts, the actor's bytes."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [{name: value for name, value in row.items() if not name.startswith(TIMES)} for row in rows]
    dumps = {path.name: path.read_text(encoding="utf-8") for path in sorted((folder / "rollouts").iterdir())}
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in ("evaluations.jsonl", "result.json")}
    return {"rows": kept, "dumps": dumps, **texts, "actor": (folder / "actor" / "model.safetensors").read_bytes()}


def _train(words: list[str], environment: dict[str, str]) -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    sys.argv = ["rrl-train", *words]
    from rrl.cli.train import main

    main()
