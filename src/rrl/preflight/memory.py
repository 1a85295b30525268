"""The memory that each phase of a step needs on one process, by part, in bytes.

docs/before-the-start.md explains the formulas.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from rrl.preflight import passes
from rrl.training.policy_settings import BUCKET, BYTES, PolicySettings, SharedCritic

LIVE = 1_000_000_000  # stage3_max_live_parameters: parameters that stage 3 keeps gathered at most
PERSISTENT = 100_000  # stage3_param_persistence_threshold: elements up to which it keeps a tensor whole
PREFETCH = 50_000_000  # stage3_prefetch_bucket_size: parameters that it gathers ahead at most

Bytes = dict[str, int]


class Network(NamedTuple):
    """A network in training: the numbers of its trained and frozen parameters.

    ``small`` counts those in tensors that stage 3 does not split, ``largest`` those in the largest tensor.
    """

    name: str
    trained: int
    frozen: int
    small: int
    largest: int


@dataclass(frozen=True)
class Need:
    """The inputs of the estimate; lengths are in tokens.

    ``whole`` counts the language model's own parameters; ``engine`` is the precision of the engine's copy of it (None:
    the engine uses the policy's weights), ``share`` the part of a device that it keeps for its weights and cache (None:
    what it needs), given up in training if it ``sleeps``. ``reference`` means that there is a frozen copy, ``divided``
    that processes load only their share of weights. ``rows`` are those that one process passes through the networks at
    once, by phase, without the phases that the run does not have.
    """

    settings: PolicySettings
    networks: Sequence[Network]
    shape: passes.Shape
    whole: int
    engine: str | None
    share: float | None
    sleeps: bool
    reference: bool
    divided: bool
    processes: int
    on_cpu: bool
    shortest_prompt: int
    longest_prompt: int
    longest_reference: int
    longest_response: int
    rows: Mapping[str, int]

    @property
    def width(self) -> int:
        """Tokens of the longest row: prompt and response."""
        return self.longest_prompt + self.longest_response

    @property
    def columns(self) -> int:
        """The most columns of a batch that need logits: those from the first new token of any row on."""
        return self.width - self.shortest_prompt + 1

    @property
    def weight(self) -> int:
        """Bytes of a weight."""
        return BYTES[self.settings.dtype]


def by_stage(need: Need) -> list[Need]:
    """The inputs for each ZeRO stage that the settings allow."""
    return [replace(need, settings=replace(need.settings, zero_stage=stage)) for stage in need.settings.stages]


def by_phase(need: Need) -> dict[str, Bytes]:
    """The phases of the run, in order, with their parts."""
    return {"loading": loading(need), **{name: parts(need) for name, parts in PHASES.items() if name in need.rows}}


def of_engine(need: Need, phase: str, device: int) -> Bytes:
    """What an engine with a share of a ``device`` of so many bytes keeps of it in a phase."""
    if need.share is None or phase == "warm start" or (need.sleeps and not need.on_cpu and phase != "gen"):
        return {}
    return {"the engine's share": int(need.share * device)}


def loading(need: Need) -> Bytes:
    """Creating every network in main memory, whole and in float32; or reading weight by weight, in the file's precision
    and in float32, on the CPU into the shares of every network."""
    if need.divided:
        networks = sum(one.trained + one.frozen for one in need.networks) + need.whole * need.reference
        shares = need.weight * networks // need.processes if need.on_cpu else 0
        return {"a weight being read": 6 * max(one.largest for one in need.networks), "shares of weights": shares}
    critic = sum(one.trained + one.frozen for one in need.networks[1:])
    return {"weights": 4 * need.whole, "reference": 4 * need.whole * need.reference, "critic": 4 * critic}


def supervised(need: Need) -> Bytes:
    """Supervised training, whole and in float32."""
    rows, width = need.rows["warm start"], need.longest_prompt + max(need.longest_reference, 1)
    temporary = max(one.largest for one in need.networks) if need.on_cpu else need.whole
    return {
        "weights, gradients, moments": 4 * (4 * need.whole + temporary),
        "activations": need.shape.layers * passes.saved_by_layer(need.shape, rows, width, "float32"),
        "logits": passes.logits(need.shape, rows, width, passes.SUPERVISED),
    }


def gen(need: Need) -> Bytes:
    """Generation: the engine's weights, and the pass over prompts or, later, keys and values and one token's logits."""
    rows, prompt, dtype, shape = need.rows["gen"], need.longest_prompt, need.engine or need.settings.dtype, need.shape
    gathered = need.weight if need.settings.zero_stage == 3 and need.processes > 1 else 0
    if need.share is not None:
        return {**_resting(need), "weights to hand over": need.whole * gathered}
    copied = max(BYTES[dtype], need.weight) if need.engine else 0
    first = {
        "keys and values": passes.key_value_cache(shape, rows, prompt, dtype),
        "activations": passes.passing(shape, rows, prompt, dtype),
    }
    later = {
        "keys and values": passes.key_value_cache(shape, rows, need.width, dtype),
        "logits": passes.logits(shape, rows, 1, passes.DRAWN),
    }
    return {**_resting(need), "weights to write with": need.whole * (gathered + copied), **_larger(first, later)}


def old_log_prob(need: Need) -> Bytes:
    """Log-probabilities and values without gradient: a layer at a time, then the logits.

    A head on the actor's trunk needs the hidden states of all layers.
    """
    rows, shared = need.rows["old_log_prob"], isinstance(need.settings.critic, SharedCritic)
    return {
        **_resting(need),
        "weights to read with": sum(states(one, need).forward for one in _read(need)),
        "hidden states": need.weight * need.shape.layers * rows * need.width * need.shape.hidden if shared else 0,
        **_larger(
            {"activations": passes.passing(need.shape, rows, need.width, need.settings.dtype)},
            {"logits": passes.read_logits(need.shape, rows, need.columns)},
        ),
    }


def update_actor(need: Need) -> Bytes:
    """The larger of the last backward pass and the optimiser steps after it, one network after another."""
    rows, every = need.rows["update_actor"], [states(one, need) for one in need.networks]
    gradients = sum(one.gradients for one in every)
    learning = {
        "gradients and buffers": gradients + sum(one.backward for one in every),
        "activations": passes.activations(need.shape, rows, need.width, need.settings) * len(every),
        "logits": passes.read_logits(need.shape, rows, need.columns),
    }
    step = {"gradients and optimiser step": gradients + max(one.step for one in every)}
    return {**_resting(need), **_larger(learning, step)}


PHASES: dict[str, Callable[[Need], Bytes]] = {
    "warm start": supervised, "gen": gen, "old_log_prob": old_log_prob, "update_actor": update_actor,
}  # fmt: skip
"""By the clock's names."""


def _resting(need: Need) -> Bytes:
    reference = (
        0 if _away(need, "reference") else sum(states(one, need).rest for one in _read(need)[len(need.networks) :])
    )
    return {"weights and optimiser states": at_rest(need), "reference": reference}


def _away(need: Need, what: Literal["optimizer", "reference"]) -> bool:
    """Whether it rests in main memory, apart from the rest."""
    return need.settings.offloads(what) and not need.on_cpu


def offloaded(need: Need) -> Bytes:
    """What rests in main memory: weights, gradients and moments in float32, and the reference's weights."""
    trained = sum(one.trained for one in need.networks) * _away(need, "optimizer")
    reference = need.whole * need.reference * _away(need, "reference")
    parts = {"optimiser states": 16 * trained, "reference": need.weight * reference}
    return {name: size // need.processes for name, size in parts.items() if size}


def copied(need: Need) -> Bytes:
    """The copy of a checkpoint, without the actor in Hugging Face format, from which it is written beside a step."""
    return {"copy of the states": of_checkpoint(need, 0) // need.processes}


def of_checkpoint(need: Need, whole: int) -> int:
    """The bytes of a checkpoint of all processes, with an actor of ``whole`` weights."""
    trained, frozen = (sum(sizes) for sizes in zip(*((one.trained, one.frozen) for one in need.networks), strict=True))
    return need.settings.checkpoint_bytes(trained, frozen, whole)


def _read(need: Need) -> list[Network]:
    """The networks in training and, as one without trained weights, the reference."""
    small, largest = need.networks[0].small, need.networks[0].largest
    return [*need.networks, *[Network("reference", 0, need.whole, small, largest)] * need.reference]


def _larger(one: Bytes, other: Bytes) -> Bytes:
    """The larger of two consecutive needs."""
    return max(one, other, key=lambda parts: sum(parts.values()))


# --- model states -----------------------------------------------------------------------------------------------------


class States(NamedTuple):
    """Bytes of one network at rest, and those that a forward pass, a backward pass or an optimiser step adds.

    ``gradients`` exist both in backward passes and in steps.
    """

    rest: int
    forward: int
    gradients: int
    backward: int
    step: int


def states(network: Network, need: Need) -> States:
    """The bytes that DeepSpeed holds of a network, by stage."""
    b, trained, whole = need.weight, network.trained, network.trained + network.frozen
    bucket, stage, mine = b * min(BUCKET, trained), need.settings.zero_stage, trained // need.processes
    here = 0 if _away(need, "optimizer") else 12
    if stage == 0:
        temporary = 4 * (network.largest if need.on_cpu else trained)
        copies = 4 * trained if need.settings.dtype == "bfloat16" else 0
        return States(b * whole + 8 * trained + copies, 0, b * trained, bucket, copies + temporary)
    if stage == 3:
        gathered = 0 if need.processes == 1 else b * (min(whole - network.small, LIVE) + min(whole, PREFETCH))
        split = (b * (whole + trained) + here * trained) // need.processes
        return States(split + bucket + b * network.small, gathered, 0, gathered, here * mine)
    full = trained if stage == 1 else mine
    return States(b * whole + here * mine, 0, b * mine, b * full + bucket, max(0, here - b) * mine)


def at_rest(need: Need) -> int:
    """Weights and optimiser states between steps."""
    return sum(states(one, need).rest for one in need.networks)


def network_of(name: str, module: Any) -> Network:
    """The parameter counts of a module, which may be on the meta device."""
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    trained, small = sum(size for size, on in sizes if on), sum(size for size, _ in sizes if size <= PERSISTENT)
    return Network(name, trained, sum(size for size, on in sizes if not on), small, max(size for size, _ in sizes))
