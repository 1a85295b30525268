"""The memory and disk space that a run needs, and that this machine has."""

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rrl.config.check import Parts
from rrl.errors import ConfigError
from rrl.preflight import memory, passes
from rrl.preflight.memory import Bytes, Need, Network
from rrl.processes.distributed import world_size
from rrl.processes.machine import MemoryInfo, accelerators, in_words, main_memory, peaks
from rrl.processes.out_of_memory import lower
from rrl.records.files import nearest_there
from rrl.training.models import Model
from rrl.training.networks import Actor, Critic
from rrl.training.policy_settings import BYTES, OwnCritic, PolicySettings
from rrl.types import Problem

LIBRARIES = 180 * 2**20
"""Bytes of transformers, DeepSpeed and torch's compiler, which are imported with the model. Measured."""


class Here(NamedTuple):
    """The memory of this machine, and the bytes of this program and its libraries without a model."""

    memory: MemoryInfo
    accelerators: Sequence[MemoryInfo]
    program: int


class Phase(NamedTuple):
    """The memory that one process needs in a phase, by part, and has; ``name`` is that of the clock, or loading."""

    name: str
    parts: Bytes
    room: MemoryInfo

    @property
    def total(self) -> int:
        return sum(self.parts.values())


class Disk(NamedTuple):
    """The bytes of a checkpoint, the number of kept ones, the bytes of everything saved, and the free ones."""

    size: int
    kept: int
    total: int
    free: int


def need(
    config: Mapping[str, Any], parts: Parts, model: Any, train: Sequence[Problem], test: Sequence[Problem]
) -> Need:
    """The inputs of the memory estimate; adapters are added to ``model`` itself."""
    refuse_indivisible(parts, model.config)
    whole, shape = sum(p.numel() for p in model.parameters()), passes.shape(model.config)
    longest_prompt = max(len(problem.prompt) for problem in (*train, *test))
    longest = parts.engine.sampling.max_new_tokens
    processes = max(parts.launcher.processes, world_size())  # torchrun and srun start several without a key
    return Need(
        settings=parts.policy,
        networks=networks(model, parts.policy),
        shape=shape,
        whole=whole,
        engine=config["engine"].get("dtype"),
        share=config["engine"].get("memory", 0.0 if "servers" in config["engine"] else None),
        sleeps=config["engine"].get("sleep", False),
        divided=parts.policy.loads_shards and parts.warmstart is None and reads_shards(parts.model),
        reference=parts.objective.needs_reference and parts.policy.lora is None,
        processes=processes,
        on_cpu=not torch.cuda.is_available(),
        shortest_prompt=min(len(problem.prompt) for problem in train),
        longest_prompt=longest_prompt,
        longest_reference=max(len(problem.reference) for problem in train),
        longest_response=longest,
        rows=rows_at_once(config, parts, processes, parts.evaluation.responses(len(test)), longest_prompt + longest),
    )


def refuse_indivisible(parts: Parts, config: Any) -> None:
    """Raise ConfigError where an engine cannot divide the model's attention heads among its processes, or those."""
    size = getattr(parts.engine, "tensor_parallel_size", 1)  # not every engine has one
    shape, processes = passes.shape(config), max(parts.launcher.processes, world_size())
    fitting = [
        number
        for number in range(1, processes + 1)
        if not (processes % number or shape.heads % number)
        and (shape.kv_heads % number == 0 or number % shape.kv_heads == 0)  # fewer are held more than once
    ]
    if size not in fitting:
        raise ConfigError(
            f"engine.tensor_parallel_size: {size}; expected a divisor of launcher.num_processes = {processes} and of "
            f"the model's {shape.heads} attention heads ({shape.kv_heads} of keys and values); set one of "
            f"{', '.join(map(str, fitting))}"
        )


def reads_shards(model: Model) -> bool:
    """Whether the model can leave its weights in their files."""
    return type(model).unread is not Model.unread


def rows_at_once(
    config: Mapping[str, Any], parts: Parts, processes: int, responses: int, width: int
) -> dict[str, int]:  # fmt: skip
    """The rows of ``width`` tokens that each phase passes at once, on each process."""
    trainer, warm, most = parts.trainer, parts.warmstart, parts.policy.rows_at_once(width)
    writing = math.ceil(max(trainer.sequences, responses) / processes)
    rows = {"warm start": min(parts.policy.micro_batch_size, warm.batch_size)} if warm is not None else {}
    rows |= {"gen": min(writing, config["engine"].get("batch_size") or writing)}  # not every engine has one
    rows |= {"old_log_prob": min(most, math.ceil(trainer.sequences / processes))} if trainer.annotates else {}
    return rows | {"update_actor": min(most, math.ceil(trainer.mini_batch / processes))}


def networks(model: Any, settings: PolicySettings) -> list[Network]:
    """The networks that the policy would train; adapters, on the meta device, are added to ``model`` itself."""
    own = [Critic(model, settings.head_size)] if isinstance(settings.critic, OwnCritic) else []
    if settings.lora:
        with torch.device("meta"):
            model = settings.lora.wrap(model)
    actor = Actor(model, 1.0, **settings.head())  # its head is small; made on meta, it would import torch's compiler
    return [memory.network_of("actor", actor), *(memory.network_of("critic", critic) for critic in own)]


def look_around() -> Here:
    """The memory at present; call it before loading the model, because its weights are part of the estimate."""
    program = peaks()[0].size + (0 if "transformers.modeling_utils" in sys.modules else LIBRARIES)
    return Here(main_memory(), accelerators(), program)


def phases(need: Need, processes: int, here: Here) -> list[Phase]:
    """Each phase with the memory that each of ``processes`` on this machine has for it."""
    main = MemoryInfo(here.memory.name, here.memory.total // processes, here.memory.free // processes)
    room = main if need.on_cpu else min(here.accelerators, key=lambda each: each.free)
    program = {"this program": here.program} if need.on_cpu else {}
    loading, *others = memory.by_phase(need).items()
    away, copied = memory.offloaded(need), memory.copied(need)
    return [
        Phase("loading", loading[1] | program, main),
        *([Phase("offloaded", away, main)] if away else []),
        *([Phase("save_checkpoint", copied, main)] if 2 * sum(copied.values()) <= main.free else []),
        *(Phase(name, parts | program | memory.of_engine(need, name, room.total), room) for name, parts in others),
    ]


def disk_use(parts: Parts, need: Need, checkpoints: int, folder: Path) -> Disk:
    """The space for at most ``checkpoints``, one being written, the last actor, and the run's copy of a warm start."""
    size = memory.of_checkpoint(need, need.whole)
    kept, begun = min(parts.run.keep_last + parts.run.keep_best, checkpoints), 4 if parts.warmstart is not None else 0
    total = (kept + 1) * size + (need.weight + begun) * need.whole
    return Disk(size, kept, total, shutil.disk_usage(nearest_there(folder)).free)


def too_small_a_share(need: Need, config: Mapping[str, Any], phases: Sequence[Phase]) -> list[str]:
    """A warning where the weights of an engine take the share of the device that it has for them and its cache."""
    room = phases[-1].room
    if holds_engine(need, config, room.total):
        return []
    return [
        f"engine.memory: {need.share:g}, which is {in_words((need.share or 0) * room.total)} of {room.name}; its "
        f"weights alone take {in_words(_engine_weights(need, config))}; raise it, or engine.tensor_parallel_size"
    ]


def holds_engine(need: Need, config: Mapping[str, Any], device: int) -> bool:
    """Whether an engine's share of a ``device`` of so many bytes, if it has one, is more than its weights."""
    return not need.share or _engine_weights(need, config) < need.share * device


def _engine_weights(need: Need, config: Mapping[str, Any]) -> int:
    """The bytes of the weights that an engine of its own has on one device."""
    whole = BYTES[need.engine] * need.whole if need.engine else 0
    return whole // int(config["engine"].get("tensor_parallel_size", 1))


def shortages(phases: Sequence[Phase], disk: Disk, config: Mapping[str, Any], processes: int) -> list[str]:
    """Warnings, with remedies, for phases without enough memory and for a disk without space for the checkpoints."""
    warnings = [
        f"{phase.name} needs about {in_words(phase.total)}, and {in_words(phase.room.free)} of {phase.room.name} are "
        f"free for each process; try {', '.join(lower(phase.name, config, processes).values())}"
        for phase in phases
        if phase.total > phase.room.free
    ]
    if disk.total > disk.free:
        warnings.append(
            f"run.dir: checkpoints take about {in_words(disk.total)}, and {in_words(disk.free)} of the disk are free; "
            "free space, or lower run.keep_last and run.keep_best"
        )
    return warnings
