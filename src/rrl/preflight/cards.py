"""The smallest of some usual machines that a run fits on, and the keys that it needs there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any, NamedTuple

from rrl.config.check import Parts
from rrl.preflight import capacity, memory
from rrl.preflight.memory import Need
from rrl.processes.machine import in_words
from rrl.training.policy_settings import Offload

GIB = 2**30
MACHINES = ((1, 16), (1, 24), (1, 80), (8, 80))
"""Accelerators, and the GiB of each."""
DRIVER = GIB
"""Bytes of an accelerator that its driver, libraries and gaps between tensors take. Assumed."""
Keys = dict[str, Any]
CHANGES: tuple[Keys, ...] = (
    {"policy.gradient_checkpointing": True},
    {"policy.zero_stage": 3},
    {"engine.batch_size": 16},
    {"policy.micro_batch_size": 1},
    {"policy.zero_stage": 1, "offload": "optimizer"},
    {"policy.dtype": "bfloat16"},
)
"""Keys that lower what a run needs: the cheapest first, the precision last, which makes another experiment."""


class Fit(NamedTuple):
    """A machine of ``cards`` accelerators of ``size`` GiB, with the keys that a run needs there.

    ``main`` are the bytes of main memory for what each process moves there.
    """

    cards: int
    size: int
    keys: Mapping[str, Any]
    main: int

    def __str__(self) -> str:
        apart = f", and {in_words(self.main)} of main memory a process" if self.main else ""
        changes = " ".join(f"{key}={str(value).lower()}" for key, value in self.keys.items())
        return f"{self.cards} x {self.size} GiB" + (f" with {changes}" if changes else "") + apart


def smallest(config: Mapping[str, Any], parts: Parts, need: Need, responses: int) -> Fit | None:
    """The first of MACHINES that every phase fits on; ``responses`` are those of an evaluation."""

    def fits(cards: int, size: int, changes: Sequence[Keys]) -> bool:
        return _fits(_with(config, parts, need, responses, cards, _merged(config, changes)), size * GIB)

    divided = config["engine"].get("tensor_parallel_size", 1)
    for cards, size in MACHINES:
        if cards % divided or not capacity.holds_engine(need, config, size * GIB):
            continue
        shared_out = cards > 1 and 3 in parts.policy.stages
        useful = [change for change in CHANGES if shared_out or change != {"policy.zero_stage": 3}]
        for count in range(len(useful) + 1):
            if fits(cards, size, useful[:count]):
                kept = _needed(useful[:count], partial(fits, cards, size))
                own = {"launcher.num_processes": cards} if cards != parts.launcher.processes else {}
                keys = _merged(config, kept)
                there = _with(config, parts, need, responses, cards, keys)
                return Fit(cards, size, own | keys, sum(memory.offloaded(there).values()))
    return None


def _needed(changes: Sequence[Keys], fits: Callable[[Sequence[Keys]], bool]) -> Sequence[Keys]:
    """The changes without those that it fits without."""
    for change in changes:
        fewer = [other for other in changes if other is not change]
        changes = fewer if fits(fewer) else changes
    return changes


def _merged(config: Mapping[str, Any], changes: Sequence[Keys]) -> Keys:
    """The keys of all changes, the first that names one, without those that lower nothing in this run."""
    every: Keys = reduce(lambda one, other: one | other | one, changes, {})
    return {key: value for key, value in every.items() if _lowers(config, key, value)}


def _lowers(config: Mapping[str, Any], key: str, value: Any) -> bool:
    """Whether the key is one of this run, with another value that needs more memory."""
    group, _, name = key.partition(".")
    if not name:
        return config.get(group) is None
    present = config[group].get(name)
    if name.endswith("batch_size"):
        return present is not None and present > value
    return bool(present < value) if name == "zero_stage" else present != value


def _fits(there: Need, room: int) -> bool:
    """Whether no phase but loading, which takes main memory, needs more than there is."""
    return all(
        sum((part | memory.of_engine(there, name, room)).values()) + DRIVER <= room
        for name, part in memory.by_phase(there).items()
        if name != "loading"
    )


def _with(
    config: Mapping[str, Any], parts: Parts, need: Need, responses: int, cards: int, keys: Mapping[str, Any]
) -> Need:  # fmt: skip
    """The inputs of the estimate for so many ``cards`` and these ``keys``."""
    changes: dict[str, Keys] = {"policy": {}, "engine": {}}
    for key, value in keys.items():
        group, _, name = key.partition(".")
        changes["policy" if group == "offload" else group][name or group] = (
            value if name else Offload(optimizer=True, reference=False)
        )
    settings = replace(parts.policy, **changes["policy"])
    changed = {**config, "engine": {**config["engine"], **changes["engine"]}}
    rows = capacity.rows_at_once(changed, replace(parts, policy=settings), cards, responses, need.width)
    return replace(need, settings=settings, processes=cards, on_cpu=False, rows=rows)
