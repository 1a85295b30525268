"""Small programs that rrl-doctor runs in separate processes, so that a broken library cannot stop its report.

``python -m rrl.preflight.doctor.probes NAME`` prints its result as one line of JSON, the last of its output.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rrl.processes.environment import PROBE
from rrl.records.texts import one_line

SIZES = {"cpu": 512, "cuda": 4096}
"""Rows of the multiplied matrices: large enough that the start of a product takes a small part of the time."""


def torch_facts() -> dict[str, Any]:
    """Version and build of torch, its accelerators, and the speed of bfloat16 relative to float32."""
    import torch

    from rrl.processes.machine import accelerators

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "version": torch.__version__,
        "build": torch.version.cuda or torch.version.hip,
        "threads": torch.get_num_threads(),
        "gpus": [room._asdict() for room in accelerators()],
        "bfloat16": device == "cpu" or torch.cuda.is_bf16_supported(),
        "speedup": _product_seconds(torch.float32, device) / _product_seconds(torch.bfloat16, device),
    }


def _product_seconds(dtype: Any, device: str) -> float:
    """The shortest time of five products of two matrices."""
    import torch

    matrix = torch.ones(SIZES[device], SIZES[device], dtype=dtype, device=device)
    taken = []
    for _ in range(6):  # the first one warms up
        begin = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for the device
        taken.append(time.perf_counter() - begin)
    return min(taken[1:])


def deepspeed_facts() -> dict[str, Any]:
    """The version of DeepSpeed, after importing it and its launcher."""
    from importlib import import_module

    import_module("rrl.processes.distributed")  # sets DeepSpeed's accelerator on a machine without any
    import_module("deepspeed.launcher.runner")
    return {"version": import_module("deepspeed").__version__}


def imports() -> dict[str, Any]:
    """Each module of the command line: why it cannot be imported, or None."""
    from importlib import import_module

    found: dict[str, Any] = {}
    for name in sys.argv[2:]:
        try:
            import_module(name)
            found[name] = None
        except Exception as error:  # of any kind: it is the result
            found[name] = one_line(error)
    return found


def talk() -> dict[str, Any]:
    """The sum of the numbers of all processes started together; rank 0 writes it to the file that PROBE names."""
    import torch

    from rrl.processes.distributed import device, leave_process_group, rank, start_process_group, world_size

    start_process_group()
    number = torch.tensor(float(rank() + 1), device=device())
    torch.distributed.all_reduce(number)
    found = {"processes": world_size(), "sum": float(number)}
    if rank() == 0 and PROBE in os.environ:
        Path(os.environ[PROBE]).write_text(json.dumps(found))
    leave_process_group()
    return found


def zero() -> dict[str, Any]:
    """One optimiser step of a tiny policy at each ZeRO stage: the error of the stage, or None."""
    from rrl.training.models import TinyLlama

    sizes = {"hidden_size": 16, "num_hidden_layers": 1}
    model = TinyLlama(**sizes, max_prompt_length=32, max_response_length=32, start_seed=0)
    found: dict[str, Any] = {}
    for stage in range(4):
        try:
            _step(model, stage)
            found[str(stage)] = None
        except Exception as error:  # of any kind: it is the result
            found[str(stage)] = one_line(error)
    return found


def _step(model: Any, stage: Any) -> None:
    from rrl.collate import context_batch
    from rrl.training.policy import DeepSpeedPolicy
    from rrl.training.policy_settings import PolicySettings
    from rrl.types import Example, Problem, State

    settings = PolicySettings(
        critic=None, head_size=0, actor_lr=1e-3, critic_lr=0.0, adam_betas=(0.9, 0.99),
        weight_decay=0.0, lr_schedule="constant", lr_warmup_steps=0, grad_clip=1.0,
        micro_batch_size=1, zero_stage=stage, dtype="float32", gradient_checkpointing=False, lora=None,
        offload=None, compile=None,
    )  # fmt: skip
    loaded = model.load(("a", "b"))
    policy = DeepSpeedPolicy(
        loaded.model, loaded.tokenizer, settings, reference=False, pays_entropy=False, temperature=1.0,
        optimiser_steps=None,
    )  # fmt: skip
    problem = Problem(Example("a", "a", "a", "b", "b"), (1, 4), (5,))
    batch = context_batch([State(problem, (5, 5))], loaded.tokenizer, longest=5)
    loss = -policy(batch).logprobs.sum()
    policy.backward(loss, 0.0 * loss.detach(), last=True)
    policy.step()


def sandbox_facts() -> dict[str, Any]:
    """The best isolation that works for a model's programs, why no better one does, and what they can reach."""
    from rrl.sandbox.isolation import REACHES, choose, reached
    from rrl.sandbox.limits import Limits

    limits = Limits(
        wall_seconds=10.0, cpu_seconds=5.0, memory_mb=256, processes=8, open_files=32, file_mb=1, output_kb=64
    )  # fmt: skip
    level, reasons = choose(limits, "auto")
    facts = reached(limits, level)
    return {"level": level, "reasons": dict(reasons), "open": [words for name, words in REACHES.items() if facts[name]]}


PROBES = {
    "torch": torch_facts, "deepspeed": deepspeed_facts, "imports": imports, "talk": talk, "zero": zero,
    "sandbox": sandbox_facts,
}  # fmt: skip


if __name__ == "__main__":
    print("\n" + json.dumps(PROBES[sys.argv[1]]()))
