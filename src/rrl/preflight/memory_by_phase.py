"""What each phase of a step needs of one process's memory, part by part, in bytes; see ``memory_model.py``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rrl.preflight import memory_model
from rrl.preflight.memory_model import Network, Shape, World
from rrl.training.policy_settings import PolicySettings

Bytes = Mapping[str, int]


@dataclass(frozen=True)
class Lengths:
    """Tokens of the shortest and longest prompt, the longest reference, and the longest response."""

    shortest: int
    longest: int
    reference: int
    response: int

    @property
    def width(self) -> int:
        """The longest row: prompt and response."""
        return self.longest + self.response

    @property
    def columns(self) -> int:
        """The most columns of a batch that need logits: from the first new token of any row on."""
        return self.width - self.shortest + 1


@dataclass(frozen=True)
class Rows:
    """How many rows go through the networks at once, on each process.

    ``warm`` is 0 without a warm start, ``annotating`` where rollouts are not annotated.
    """

    writing: int
    annotating: int
    learning: int
    warm: int


@dataclass(frozen=True)
class Need:
    """Everything that memory depends on: ``whole`` counts the language model's own parameters.

    ``engine`` is the precision of the engine's copy of the model, None where it writes with the policy's weights.
    """

    settings: PolicySettings
    engine: str | None
    shape: Shape
    whole: int
    networks: Sequence[Network]
    reference: bool
    lengths: Lengths
    rows: Rows
    world: World

    def loading(self) -> Bytes:
        """Every network is made in main memory first, whole and in float32."""
        critic = sum(network.parameters for network in self.networks[1:])
        return {"weights": 4 * self.whole, "reference": 4 * self.whole if self.reference else 0, "critic": 4 * critic}

    def warm_start(self) -> Bytes:
        """Supervised training, whole and in float32."""
        settings = replace(self.settings, dtype="float32", gradient_checkpointing=False, zero_stage=0)
        width = self.lengths.longest + max(self.lengths.reference, 1)
        temporary = max(network.largest for network in self.networks) if self.world.on_cpu else self.whole
        return {
            "weights, gradients, moments": 4 * (4 * self.whole + temporary),
            "activations": memory_model.activations(self.shape, self.rows.warm, width, settings),
            "logits": memory_model.logits(self.shape, self.rows.warm, width, memory_model.SUPERVISED),
        }

    def gen(self) -> Bytes:
        """Writing: the engine's weights, and the prompts' pass or, later, all keys and values and the next token."""
        rows, prompt, dtype = self.rows.writing, self.lengths.longest, self.engine or self.settings.dtype
        gathered = memory_model.BYTES[self.settings.dtype] * self.whole if self._gathers() else 0
        copied = (
            max(memory_model.BYTES[dtype], memory_model.BYTES[self.settings.dtype]) * self.whole if self.engine else 0
        )
        return {
            **self._states(),
            "weights to write with": gathered + copied,
            **_larger(
                {
                    "keys and values": memory_model.key_value_cache(self.shape, rows, prompt, dtype),
                    "activations": memory_model.passing(self.shape, rows, prompt, dtype),
                },
                {
                    "keys and values": memory_model.key_value_cache(self.shape, rows, self.lengths.width, dtype),
                    "logits": memory_model.logits(self.shape, rows, 1, memory_model.DRAWN),
                },
            ),
        }

    def old_log_prob(self) -> Bytes:
        """Log-probabilities and values without gradient: a layer at a time, then the logits.

        A head on the actor's trunk asks for the hidden states of all layers.
        """
        rows, width = self.rows.annotating, self.lengths.width
        states = self.shape.layers * rows * width * self.shape.hidden * memory_model.BYTES[self.settings.dtype]
        return {
            **self._states(),
            "weights to read with": memory_model.while_reading(self.networks, self.settings, self.world),
            "hidden states": states if self.settings.critic == "shared" else 0,
            **_larger(
                {"activations": memory_model.passing(self.shape, rows, width, self.settings.dtype)},
                {"logits": memory_model.logits(self.shape, rows, self.lengths.columns, memory_model.LOGITS)},
            ),
        }

    def update_actor(self) -> Bytes:
        """The larger of the last backward pass and the optimiser step after it."""
        rows, width = self.rows.learning, self.lengths.width
        backward, step = memory_model.while_learning(self.networks, self.settings, self.world)
        passes = {
            "gradients and buffers": backward,
            "activations": memory_model.activations(self.shape, rows, width, self.settings) * len(self.networks),
            "logits": memory_model.logits(self.shape, rows, self.lengths.columns, memory_model.LOGITS),
        }
        return {**self._states(), **_larger(passes, {"gradients and optimiser step": step})}

    def at_stage(self, number: Literal[0, 1, 2, 3]) -> "Need":
        """The same at another ZeRO stage."""
        return replace(self, settings=replace(self.settings, zero_stage=number))

    def _states(self) -> Bytes:
        reference = memory_model.BYTES[self.settings.dtype] * self.whole if self.reference else 0
        rest = memory_model.at_rest(self.networks, self.settings, self.world)
        return {"weights and optimiser states": rest, "reference": reference}

    def _gathers(self) -> bool:
        return self.settings.zero_stage == 3 and self.world.processes > 1


def _larger(one: Bytes, other: Bytes) -> Bytes:
    """Of two things that come one after the other, the one that takes more."""
    return max(one, other, key=lambda parts: sum(parts.values()))


def share(rows: int, processes: int, most: int | None) -> int:
    """How many of all ``rows`` a process has at once, ``most`` at a time (None: all of its own)."""
    mine = math.ceil(rows / processes)
    return min(mine, most or mine)
