"""The settings of the networks and their optimisers, low-rank adapters included."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from rrl.errors import ConfigError
from rrl.ranges import at_least_one, between, check_ranges, not_negative, refuse
from rrl.training.compiling import CompiledLayers
from rrl.training.course import some

BUCKET = 500_000_000
"""Elements at most in DeepSpeed's reduce bucket (its ``reduce_bucket_size``), a buffer of each network in training."""

BYTES = {"float32": 4, "bfloat16": 2}
"""Bytes of a weight, by precision."""


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank adapters through ``peft``; the frozen base then serves as the reference."""

    rank: int
    alpha: float
    dropout: float
    target_modules: tuple[str, ...] | None

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("rank"), between(0, 1, "dropout"), not_negative("alpha"))

    def wrap(self, model: Any) -> Any:
        """The model with adapters; only they are trained."""
        from peft import LoraConfig, get_peft_model

        targets = list(self.target_modules) if self.target_modules else "all-linear"
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets, task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            try:
                return get_peft_model(model, config)
            except ValueError as error:  # no layer of this name, or one that takes no adapter
                raise ConfigError(f"lora.target_modules: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Offload:
    """What rests in main memory, not on the device: the states of the ``optimizer``, or the frozen ``reference``."""

    optimizer: bool
    reference: bool


@dataclass(frozen=True, kw_only=True)
class OwnCritic:
    """A second network, which begins as a copy of the actor's trunk."""


@dataclass(frozen=True, kw_only=True)
class SharedCritic:
    """A head on the actor's trunk, into which it sends ``value_trunk_grad_scale`` times its gradient (0: none)."""

    value_trunk_grad_scale: float

    def __post_init__(self) -> None:
        check_ranges(self, not_negative("value_trunk_grad_scale"))


class Passes(NamedTuple):
    """Micro-batches: the order in which processes take rows in turn, and the rows of each pass of every process."""

    order: Tensor
    sizes: list[int]


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """The settings of the networks and their optimisers.

    ``critic`` is its kind, or null. ``head_size`` is the width of the hidden layer of the critic's head (0: linear).
    Learning rates rise linearly over ``lr_warmup_steps`` optimiser steps and then follow ``lr_schedule`` down to 0 at
    the end of training (``constant`` stays). ``grad_clip`` is the largest gradient norm of each network (0: no
    clipping). ``micro_batch_size`` is the number of rows in one forward pass. ``zero_stage`` is DeepSpeed's ZeRO stage.
    ``lora`` trains low-rank adapters instead of all weights; ``offload`` keeps states in main memory; ``compile``
    compiles layers.
    """

    critic: OwnCritic | SharedCritic | None
    head_size: int
    actor_lr: float
    critic_lr: float
    adam_betas: tuple[float, float]
    weight_decay: float
    lr_schedule: Literal["constant", "linear", "cosine"]
    lr_warmup_steps: int
    grad_clip: float
    micro_batch_size: int
    zero_stage: Literal[0, 1, 2, 3]
    dtype: Literal["float32", "bfloat16"]
    gradient_checkpointing: bool
    lora: LoRA | None
    offload: Offload | None
    compile: CompiledLayers | None

    adam_epsilon: ClassVar[float] = 1e-8
    """Added to the root of the second moment (Kingma and Ba, arXiv 1412.6980, algorithm 1)."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            not_negative("actor_lr", "critic_lr", "weight_decay", "grad_clip", "lr_warmup_steps"),
            not_negative("head_size"),
            at_least_one("micro_batch_size"),
        )
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ValueError(f"adam_betas: expected numbers from 0 to below 1, got {list(self.adam_betas)}")
        if self.compile and self.zero_stage == 3:
            raise ValueError("zero_stage: expected 0, 1 or 2 with compile=layers, got 3; set compile=none")
        refuse({
            f"zero_stage: expected 1, 2 or 3 with offload.optimizer=true, got {self.zero_stage}":
                self.offloads("optimizer") and self.zero_stage == 0,
            f"zero_stage: expected 3 with offload.reference=true, got {self.zero_stage}":
                self.offloads("reference") and self.zero_stage < 3,
        })  # fmt: skip

    @property
    def stages(self) -> Sequence[Literal[0, 1, 2, 3]]:
        """The ZeRO stages that the other settings allow."""
        least = 3 if self.offloads("reference") else 1 if self.offloads("optimizer") else 0
        every: Sequence[Literal[0, 1, 2, 3]] = (0, 1, 2, 3)
        return every[least : 3 if self.compile else 4]

    @property
    def loads_shards(self) -> bool:
        """Whether each process reads only its share of the weights; adapters are made around whole ones."""
        return self.zero_stage == 3 and self.lora is None

    def offloads(self, what: Literal["optimizer", "reference"]) -> bool:
        """Whether it rests in main memory."""
        return self.offload is not None and bool(getattr(self.offload, what))

    def passes(self, lengths: Tensor, processes: int) -> Passes:
        """The micro-batches of rows of these ``lengths`` [rows], in tokens."""
        own, size = math.ceil(len(lengths) / processes), self.micro_batch_size
        return Passes(torch.arange(len(lengths)), [min(size, own - begin) for begin in range(0, own, size)])

    def rows_at_once(self, width: int) -> int:
        """The most rows of ``width`` tokens in a forward pass."""
        return self.micro_batch_size

    def split(self, rows: int) -> str:
        """In words, the micro-batches of so many rows on a process."""
        at_once = min(self.micro_batch_size, rows)
        return f"{some(math.ceil(rows / at_once), 'micro-batch')} of at most {some(at_once, 'row')}"

    def cautions(self) -> list[str]:
        """Warnings of networks that never change."""
        still = {
            "actor_lr: 0, so that the actor never moves": self.actor_lr == 0,
            "critic_lr: 0, so that the critic never learns": self.critic is not None and self.critic_lr == 0,
        }
        return [caution for caution, holds in still.items() if holds]

    def idle(self) -> dict[str, str]:
        """Keys without effect, and why."""
        return {} if self.critic else dict.fromkeys(("critic_lr", "head_size"), "critic is none")

    def head(self) -> dict[str, Any]:
        """The arguments of a head on the actor's trunk; none without one."""
        if not isinstance(self.critic, SharedCritic):
            return {}
        return {"head_size": self.head_size, "value_trunk_grad_scale": self.critic.value_trunk_grad_scale}

    def lr_factor(self, step: int, steps: int | None) -> float:
        """The factor of learning rates in optimiser step ``step``, from 0, of ``steps`` (None: unknown)."""
        warmup = min(1.0, (step + 1) / (self.lr_warmup_steps + 1))
        if self.lr_schedule == "constant" or steps is None:
            return warmup
        done = min(1.0, step / steps)
        return warmup * (1 - done if self.lr_schedule == "linear" else (1 + math.cos(math.pi * done)) / 2)

    def checkpoint_bytes(self, trained: int, frozen: int, whole: int) -> int:
        """The bytes that all processes write: networks, optimisers and, once more, an actor of ``whole`` weights.

        AdamW has two moments in float32; ZeRO and bfloat16 add a copy of the weights in float32.
        """
        moments = 8 if self.dtype == "float32" and self.zero_stage == 0 else 12
        return BYTES[self.dtype] * (trained + frozen + whole) + moments * trained

    def optimiser(self, module: torch.nn.Module, *, is_critic: bool) -> torch.optim.AdamW:
        """AdamW for the trained parameters of a network; the head of an actor has the critic's learning rate."""
        trained = [p for p in module.parameters() if p.requires_grad]
        head = getattr(module, "head", None)
        heads = {id(p) for p in head.parameters()} if isinstance(head, torch.nn.Module) else set()
        groups = [
            {"network": network, "lr": rate, "params": [p for p in trained if (is_critic or id(p) in heads) == valued]}
            for network, rate, valued in (("actor", self.actor_lr, False), ("critic", self.critic_lr, True))
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            betas=self.adam_betas,
            eps=self.adam_epsilon,
            weight_decay=self.weight_decay,
        )
