"""A few real rows of every data set, tiny parts, and a record of what a loop wrote and learnt from."""

import gzip
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fixtures_scorers import saved_model
from rrl.loop import Loop
from rrl.types import Batch, Metrics, PolicyOutput, Rollout

ROOT = Path(os.environ.get("RRL_DATA", Path(__file__).parents[2] / "shared" / "data"))
ROWS = 4
TINY = {
    "model": "tiny", "warmstart": "none", "run.threads": 1, "model.hidden_size": 16, "model.intermediate_size": 24,
    "model.num_hidden_layers": 1, "model.initializer_range": 0.3, "policy.actor_lr": 1e-2, "policy.micro_batch_size": 4,
    "data.max_prompt_length": 900, "data.max_response_length": 12, "data.level_weights": "null",
    "evaluation.limit": 1, "evaluation.n": 0, "seed": 3,
}  # fmt: skip
STEPS = {
    "trainer.train_batch_size": 8, "trainer.ppo_mini_batch_size": 4, "trainer.critic_warmup": 0, "trainer.n": 1,
    "trainer.total_tokens": "null", "trainer.total_training_steps": 2,
}  # fmt: skip
PPO = {"objective.entropy_coef": 0.1}
"""A random model earns nothing on real problems: its entropy is something to learn from all the same."""
ALGOS: dict[str, dict[str, Any]] = {
    "ppo": STEPS | PPO,
    "rrl": STEPS | PPO | {"selection": "random_cut", "data.cut_points": "token"},
    "ppocoder": STEPS | PPO,
    "rltf": STEPS | PPO,
    "rltf_original": STEPS,
    "gsi": {
        "trainer.iterations": 2, "trainer.first": "references", "trainer.train_batch_size": 8, "trainer.n": 1,
        "trainer.mini_batch_size": 4, "trainer.problems_per_iteration": 8, "data.cut_points": "token",
        "guidance.shares": "[0.02]",
    },
}  # fmt: skip
TASKS: dict[str, dict[str, Any]] = {
    "trace": {"task.train_per_level": 2, "task.test_per_level": 1},
    "minicode": {"task.train_per_level": 2, "task.test_per_level": 1},
    "minichat": {"task.train_per_level": 2, "task.test_per_level": 1},
    "hh": {"scorer": "sequence", "task.split_rows": 8, "task.subsets": "[helpful-base,harmless-base]"},
}


def overrides(task: str, algo: str, data: str) -> list[str]:
    """The command line of a pair; ``data`` is where real rows and models lie."""
    given = TINY | TASKS.get(task, {}) | ALGOS[algo]
    if task not in ("trace", "minicode", "minichat"):
        given["data.path"] = f"{data}/{task}"
    if task == "hh":
        given["scorer.path"] = f"{data}/scorer"
    choices = {"task": task, "algo": algo}
    return [f"{key}={value}" for key, value in (choices | given).items()]


# --- real rows --------------------------------------------------------------------------------------------------------


FILES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "gsm8k": ("gsm8k/train.jsonl", lambda row: str(row["question"] + row["answer"])),
    "jsonl": ("gsm8k/test.jsonl", lambda row: str(row["question"] + row["answer"])),
    "math": ("math/train.jsonl.gz", lambda row: str(row["problem"] + row["solution"])),
    "apps": ("apps/train_subset.jsonl.gz", lambda row: str(row["question"])),
}
"""Where the rows of a task are, and what they are short by."""


def few_rows(folder: Path, task: str) -> None:
    """The shortest real rows of a task's data set, in files of their own; skips where there are none."""
    if (folder / task).is_dir():
        return
    if task in FILES:
        rows = _shortest(*FILES[task])
        for split in ("train", "test"):
            _write(folder / task / f"{split}.jsonl", rows)
    if task == "hh":
        for subset in ("helpful-base", "harmless-base"):
            rows = _shortest(f"hh-rlhf/{subset}/test.jsonl.gz", lambda row: str(row["chosen"]), 10)
            _write(folder / "hh" / subset / "test.jsonl", rows)
        saved_model(folder / "scorer")


def _shortest(name: str, text: Callable[[dict[str, Any]], str], count: int = ROWS) -> list[dict[str, Any]]:
    path = ROOT / name
    if not path.is_file():
        pytest.skip(f"no {path}: set RRL_DATA to a folder that holds {name}")
    raw = path.read_bytes()
    lines = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode().split("\n")
    return sorted(map(json.loads, filter(None, lines)), key=lambda row: len(text(row)))[:count]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# --- what a loop does -------------------------------------------------------------------------------------------------


@dataclass
class Record:
    """Every rollout that the engine wrote, and every batch that the objective took a loss of."""

    written: list[Rollout] = field(default_factory=list)
    learnt: list[Batch] = field(default_factory=list)

    def watch(self, loop: Loop) -> None:
        """Look over the shoulder of engine and objective."""
        generate, loss = loop.engine.generate, loop.objective.loss

        def generated(*args: Any, **kwargs: Any) -> list[Rollout]:
            rollouts = generate(*args, **kwargs)
            self.written += rollouts
            return rollouts

        def taken(batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
            self.learnt.append(batch)
            return loss(batch, output)

        object.__setattr__(loop.engine, "generate", generated)
        object.__setattr__(loop.objective, "loss", taken)


def gradients(loop: Loop, batch: Batch) -> Tensor:
    """How strongly the objective's losses pull at each cell [batch, time], by hand: no network is involved."""
    cells = torch.full(batch.tokens.shape, -1.0)
    logprobs, entropy, values = (cells.clone().requires_grad_() for _ in range(3))
    critic = values if loop.objective.needs_critic else None
    objective = loop.objective
    output = PolicyOutput(logprobs, entropy, critic)
    actor_loss, critic_loss, _ = type(objective).loss(objective, batch, output)  # unwatched
    (actor_loss + critic_loss).backward()  # type: ignore[no-untyped-call]
    pulls = [cell.grad.abs() for cell in (logprobs, entropy, values) if cell.grad is not None]
    return torch.stack(pulls).sum(0)
