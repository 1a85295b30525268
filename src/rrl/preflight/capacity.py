"""What a run needs of memory and disk, against what this machine has."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from rrl.config.check import Parts
from rrl.preflight import memory_model
from rrl.preflight.memory_by_phase import Lengths, Need, Rows, share
from rrl.preflight.memory_model import Network, World
from rrl.processes.distributed import world_size
from rrl.processes.machine import MemoryInfo, accelerators, in_words, main_memory, peaks
from rrl.processes.out_of_memory import lower
from rrl.records.files import nearest_there
from rrl.training.networks import Actor, Critic
from rrl.training.policy_settings import PolicySettings


class Here(NamedTuple):
    """What a machine has free, and the bytes that this program takes by itself."""

    memory: MemoryInfo
    accelerators: Sequence[MemoryInfo]
    program: int


@dataclass(frozen=True)
class Phase:
    """What one process needs in a phase, part by part, and what it has; the name is the clock's, or loading's."""

    name: str
    parts: Mapping[str, int]
    room: MemoryInfo

    @property
    def total(self) -> int:
        """Bytes of the whole."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether there is as much as it needs."""
        return self.total <= self.room.free


@dataclass(frozen=True)
class Stage:
    """Bytes at a ZeRO stage: states at rest, the whole of an update, and DeepSpeed's own estimate where it fits."""

    number: int
    rest: int
    update: int
    deepspeed: int | None


@dataclass(frozen=True)
class Disk:
    """A checkpoint's bytes, how many of them stay, everything that is saved together, and what is free."""

    size: int
    kept: int
    total: int
    free: int


def need(config: Mapping[str, Any], parts: Parts, model: Any, lengths: Lengths, responses: int) -> Need:
    """What memory depends on."""
    trainer, policy = parts.trainer, parts.policy
    processes = max(parts.launcher.processes, world_size())  # torchrun and srun start several without a key
    whole, shape = sum(p.numel() for p in model.parameters()), memory_model.shape(model.config)
    sequences = trainer.sequences
    warm = 0 if parts.warmstart is None else min(parts.warmstart.micro_batch_size, parts.warmstart.batch_size)
    batch = config["engine"].get("batch_size")  # not every engine has one
    return Need(
        settings=policy,
        engine=config["engine"].get("dtype"),
        shape=shape,
        whole=whole,
        networks=_networks(model, policy),
        reference=parts.objective.needs_reference and policy.lora is None,
        lengths=lengths,
        rows=Rows(
            writing=share(max(sequences, responses), processes, batch),
            annotating=share(sequences, processes, policy.micro_batch_size) if trainer.annotates else 0,
            learning=share(trainer.mini_batch, processes, policy.micro_batch_size),
            warm=warm,
        ),
        world=World(processes, on_cpu=not torch.cuda.is_available()),
    )


def _networks(model: Any, settings: PolicySettings) -> list[Network]:
    """The networks that the policy would train, on the meta device; adapters are put into ``model`` itself."""
    with torch.device("meta"):
        own = [memory_model.count("critic", Critic(model, settings.head_size))] if settings.critic == "own" else []
        head = settings.head_size if settings.critic == "shared" else None
        adapted = settings.lora.wrap(model) if settings.lora else model
        return [memory_model.count("actor", Actor(adapted, 1.0, head_size=head, trunk_gradient=0.0)), *own]


def look_around() -> Here:
    """What there is now: best before the model is loaded, for its weights are part of what is estimated."""
    return Here(main_memory(), accelerators(), peaks()[0].size)


def phases(need: Need, processes: int, here: Here) -> list[Phase]:
    """Each phase with the room that one of so many processes of this machine has for it."""
    main = MemoryInfo(here.memory.name, here.memory.total // processes, here.memory.free // processes)
    room = main if need.world.on_cpu else min(here.accelerators, key=lambda each: each.free)
    program = {"this program": here.program} if need.world.on_cpu else {}
    parts = {"warm start": need.warm_start()} if need.rows.warm else {}
    parts |= {"gen": need.gen()}
    parts |= {"old_log_prob": need.old_log_prob()} if need.rows.annotating else {}
    parts |= {"update_actor": need.update_actor()}
    return [
        Phase("loading", {**need.loading(), **program}, main),
        *(Phase(name, {**sizes, **program}, room) for name, sizes in parts.items()),
    ]


def stages(need: Need) -> list[Stage]:
    """What each ZeRO stage would need."""
    return [_stage(need, number) for number in (0, 1, 2, 3)]


def _stage(need: Need, number: Literal[0, 1, 2, 3]) -> Stage:
    there = need.at_stage(number)
    rest = memory_model.at_rest(there.networks, there.settings, there.world)
    own = memory_model.deepspeeds_own(there.networks, there.settings, there.world.processes)
    return Stage(number, rest, sum(there.update_actor().values()), own)


def disk(parts: Parts, need: Need, checkpoints: int, folder: Path) -> Disk:
    """Of at most so many checkpoints, one being written; the last actor; the warm start, which the run keeps."""
    most = parts.run.keep_last + parts.run.keep_best
    kept, size = min(most, checkpoints), memory_model.checkpoint(need.networks, need.settings, need.whole)
    begun = 4 * need.whole if parts.warmstart is not None else 0
    total = (kept + 1) * size + memory_model.BYTES[need.settings.dtype] * need.whole + begun
    return Disk(size, kept, total, shutil.disk_usage(nearest_there(folder)).free)


def shortages(phases: Sequence[Phase], config: Mapping[str, Any], processes: int) -> list[str]:
    """Phases that need more than there is, and what to try."""
    return [
        f"{phase.name} needs about {in_words(phase.total)}, and {in_words(phase.room.free)} of {phase.room.name} are "
        f"free for each process; try {', '.join(lower(phase.name, config, processes).values())}"
        for phase in phases
        if not phase.fits
    ]


def full(disk: Disk) -> list[str]:
    """What to say of a disk that has not enough room."""
    if disk.total <= disk.free:
        return []
    return [
        f"run.dir: checkpoints take about {in_words(disk.total)}, and {in_words(disk.free)} of the disk are free; make "
        "room, or lower run.keep_last and run.keep_best"
    ]
