"""How much memory a process needs: bytes of weights, gradients, optimiser states, activations, logits, caches.

Model states follow what DeepSpeed keeps under the settings of ``policy.py``. With P trained and F frozen parameters,
W processes and b bytes a weight (4 in float32, 2 in bfloat16), at rest, that is between optimiser steps:

    stage 0      b (P + F) + 8 P (moments), in bfloat16 + 4 P (float32 copy of the weights)
    stage 1, 2   b (P + F) + 12 P / W       (float32 copy and moments; in float32 the copy is a second one)
    stage 3      (b (P + F) + b P + 12 P) / W + a reduce bucket + b S (gradients stay; S: in tensors too small to split)

The optimiser step adds 12 P / W at stages 1 to 3 (gradients in both precisions, a temporary of AdamW). Passes of many
processes at stage 3 gather the weights again, up to a limit. Activations are those of a Llama-like layer; they and the
logits are upper bounds for rows of full length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rrl.training.policy_settings import BUCKET, PolicySettings
from rrl.training.zero import model_states

BYTES = {"float32": 4, "bfloat16": 2}
LIVE = 1_000_000_000
"""Parameters that stage 3 keeps gathered at most (its ``stage3_max_live_parameters``)."""
PERSISTENT = 100_000
"""Elements up to which it keeps a tensor whole (its ``stage3_param_persistence_threshold``)."""
PREFETCH = 50_000_000
"""Parameters that it gathers ahead at most (its ``stage3_prefetch_bucket_size``)."""
LOGITS = 6.3
"""Float32 copies of the logits that live at once in log-probabilities and entropy, forward or backward; measured."""
DRAWN = 6.0
"""The same for drawing a token."""
SUPERVISED = 4.1
"""The same for the loss of a warm start."""


@dataclass(frozen=True)
class Network:
    """A network that DeepSpeed trains: how many of its parameters are trained and frozen.

    ``small`` are in tensors that stage 3 does not split; ``largest`` is the size of the largest tensor.
    """

    name: str
    trained: int
    frozen: int
    small: int
    largest: int

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.trained + self.frozen


@dataclass(frozen=True)
class Shape:
    """The sizes of a language model that its activations depend on."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    eager: bool


@dataclass(frozen=True)
class World:
    """How many processes train together, and whether they do so on the CPU."""

    processes: int
    on_cpu: bool


class States(NamedTuple):
    """Bytes of one network: at rest, and what a forward pass, a backward pass or an optimiser step adds to that.

    ``gradients`` are there in backward passes and steps alike.
    """

    rest: int
    forward: int
    gradients: int
    backward: int
    step: int


def count(name: str, module: Any) -> Network:
    """The parameters of a module, which may be on the meta device."""
    parameters = list({id(p): p for p in module.parameters()}.values())
    return Network(
        name=name,
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        frozen=sum(p.numel() for p in parameters if not p.requires_grad),
        small=sum(p.numel() for p in parameters if p.numel() <= PERSISTENT),
        largest=max(p.numel() for p in parameters),
    )


def shape(config: Any) -> Shape:
    """The sizes in a transformers configuration, under the names that its families share.

    A model without attention counts as one of one head; where layers differ in width, the widest counts.
    """
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_attention_heads", None) or 1
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    return Shape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=max(inner) if isinstance(inner, list | tuple) else inner,
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // heads,
        vocabulary=text.vocab_size,
        eager=config._attn_implementation == "eager",
    )


def states(network: Network, settings: PolicySettings, world: World) -> States:
    """What DeepSpeed keeps of a network, by stage; see the formulas above."""
    b, trained, whole = BYTES[settings.dtype], network.trained, network.parameters
    bucket = b * min(BUCKET, trained)
    if settings.zero_stage == 0:
        temporary = 4 * (network.largest if world.on_cpu else trained)
        copies = 4 * trained if settings.dtype == "bfloat16" else 0
        return States(b * whole + 8 * trained + copies, 0, b * trained, bucket, copies + temporary)
    mine = trained // world.processes
    if settings.zero_stage == 3:
        gathered = 0 if world.processes == 1 else b * (min(whole - network.small, LIVE) + min(whole, PREFETCH))
        split = (b * (whole + trained) + 12 * trained) // world.processes
        return States(split + bucket + b * network.small, gathered, 0, gathered, 12 * mine)
    full = trained if settings.zero_stage == 1 else mine
    return States(b * whole + 12 * mine, 0, b * mine, b * full + bucket, (12 - b) * mine)


def at_rest(networks: Sequence[Network], settings: PolicySettings, world: World) -> int:
    """Weights and optimiser states between steps."""
    return sum(states(network, settings, world).rest for network in networks)


def while_reading(networks: Sequence[Network], settings: PolicySettings, world: World) -> int:
    """What all networks add to that in forward passes."""
    return sum(states(network, settings, world).forward for network in networks)


def while_learning(networks: Sequence[Network], settings: PolicySettings, world: World) -> tuple[int, int]:
    """What all networks add to that in the last backward pass and, one after another, in their optimiser steps."""
    every = [states(network, settings, world) for network in networks]
    gradients = sum(one.gradients for one in every)
    return gradients + sum(one.backward for one in every), gradients + max(one.step for one in every)


def saved_by_layer(model: Shape, rows: int, width: int, dtype: str) -> int:
    """What one layer saves for its backward pass over [rows, width] tokens.

    Two norms, the four tensors of attention (keys and values for every head), four of the gated block; the padding mask
    or, with eager attention, the matrix of weights of every head.
    """
    b = BYTES[dtype]
    norms = (24 if dtype == "float32" else 16) * model.hidden
    linear = norms + 4 * b * model.heads * model.head_size + 4 * b * model.inner
    square = model.heads * (4 if dtype == "float32" else 6) if model.eager else b
    return rows * width * (linear + width * square)


def checkpoint(networks: Sequence[Network], settings: PolicySettings, whole: int) -> int:
    """What all processes write together: networks, optimiser states and, once more, the actor of ``whole`` weights."""
    b, alone = BYTES[settings.dtype], World(1, on_cpu=True)
    sharded = replace(settings, zero_stage=min(settings.zero_stage, 1))
    return b * whole + sum(states(network, sharded, alone).rest for network in networks)


def passing(model: Shape, rows: int, width: int, dtype: str) -> int:
    """What a forward pass over [rows, width] tokens holds at once when nothing is saved: the inside of one layer."""
    square = model.heads * (BYTES[dtype] + 4) if model.eager else BYTES[dtype]
    return rows * width * (BYTES[dtype] * (4 * model.hidden + 3 * model.inner) + width * square)


def activations(model: Shape, rows: int, width: int, settings: PolicySettings) -> int:
    """What a forward pass saves: every layer or, with checkpoints, every layer's input and one layer at a time."""
    layer = saved_by_layer(model, rows, width, settings.dtype)
    if not settings.gradient_checkpointing:
        return model.layers * layer
    return model.layers * rows * width * model.hidden * BYTES[settings.dtype] + layer


def key_value_cache(model: Shape, rows: int, width: int, dtype: str) -> int:
    """Keys and values of every layer, and one layer's once more, for it grows by being copied."""
    return (model.layers + 1) * 2 * rows * width * model.kv_heads * model.head_size * BYTES[dtype]


def logits(model: Shape, rows: int, columns: int, copies: float) -> int:
    """``copies`` of float32 logits [rows, columns, vocabulary]."""
    return int(copies * 4 * rows * columns * model.vocabulary)


def deepspeeds_own(networks: Sequence[Network], settings: PolicySettings, processes: int) -> int | None:
    """DeepSpeed's estimate of model states during the optimiser step, where its assumptions are ours, else None.

    It assumes 16-bit weights and gradients, float32 copies of both, AdamW's moments, nothing frozen, one machine, and
    stage 2 or 3.
    """
    if settings.dtype != "bfloat16" or settings.zero_stage < 2 or any(network.frozen for network in networks):
        return None
    return sum(model_states(one.trained, one.largest, settings.zero_stage, processes) for one in networks)
