"""The smallest of some usual machines that a run fits on, and the keys that it needs there."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Any, NamedTuple

from rrl.config.check import Parts
from rrl.preflight import capacity, memory
from rrl.preflight.memory import Need

GIB = 2**30
MACHINES = ((1, 16), (1, 24), (1, 80), (8, 80))
"""Accelerators, and the GiB of each."""
DRIVER = GIB
"""Bytes of an accelerator that its driver, libraries and gaps between tensors take. Assumed."""
CHANGES: tuple[dict[str, Any], ...] = (
    {"policy.gradient_checkpointing": True},
    {"policy.zero_stage": 3},
    {"engine.batch_size": 16, "policy.micro_batch_size": 1},
    {"policy.dtype": "bfloat16"},
)
"""Keys that lower what a run needs: the cheapest first, the precision last, which makes another experiment."""


class Fit(NamedTuple):
    """A machine of ``cards`` accelerators of ``size`` GiB, and the keys that a run needs there."""

    cards: int
    size: int
    keys: Mapping[str, Any]

    def __str__(self) -> str:
        changes = " ".join(f"{key}={str(value).lower()}" for key, value in self.keys.items())
        return f"{self.cards} x {self.size} GiB" + (f" with {changes}" if changes else "")


def smallest(config: Mapping[str, Any], parts: Parts, need: Need, responses: int) -> Fit | None:
    """The first of MACHINES that every phase fits on; ``responses`` are those of an evaluation."""
    for cards, size in MACHINES:
        for keys in _choices(parts, cards):
            if _fits(config, parts, need, responses, Fit(cards, size, keys)):
                return Fit(cards, size, _needed(config, parts, need, responses, Fit(cards, size, keys)))
    return None


def _choices(parts: Parts, cards: int) -> Iterator[dict[str, Any]]:
    """The keys as they are, and with more and more of CHANGES."""
    own = {"launcher.num_processes": cards} if cards != parts.launcher.processes else {}
    shared_out = cards > 1 and parts.policy.compile is None  # which stage 3 does not go with
    useful = [change for change in CHANGES if shared_out or "policy.zero_stage" not in change]
    return accumulate(useful, lambda one, other: one | other, initial=own)


def _needed(config: Mapping[str, Any], parts: Parts, need: Need, responses: int, fit: Fit) -> dict[str, Any]:
    """The keys without those that are not needed, or that the run has anyway."""
    keys = {key: value for key, value in fit.keys.items() if _lowers(config, key, value)}
    for key in list(keys):
        fewer = {name: value for name, value in keys.items() if name != key}
        if key != "launcher.num_processes" and _fits(config, parts, need, responses, fit._replace(keys=fewer)):
            keys = fewer
    return keys


def _lowers(config: Mapping[str, Any], key: str, value: Any) -> bool:
    """Whether the key is one of this run, with another value that needs more memory."""
    group, _, name = key.partition(".")
    present = config[group].get(name)
    return present != value and not (name.endswith("batch_size") and (present is None or present < value))


def _fits(config: Mapping[str, Any], parts: Parts, need: Need, responses: int, fit: Fit) -> bool:
    """Whether no phase but loading, which takes main memory, needs more than there is."""
    room = fit.size * GIB
    there = _with(config, parts, need, responses, fit)
    return all(
        sum((part | memory.of_engine(there, name, room)).values()) + DRIVER <= room
        for name, part in memory.by_phase(there).items()
        if name != "loading"
    )


def _with(config: Mapping[str, Any], parts: Parts, need: Need, responses: int, fit: Fit) -> Need:
    """The inputs of the estimate for the keys of ``fit``."""
    changes: dict[str, dict[str, Any]] = {"policy": {}, "engine": {}, "launcher": {}}
    for key, value in fit.keys.items():
        group, _, name = key.partition(".")
        if _lowers(config, key, value):
            changes[group][name] = value
    settings = replace(parts.policy, **changes["policy"])
    changed = {**config, "engine": {**config["engine"], **changes["engine"]}}
    rows = capacity.rows_at_once(changed, replace(parts, policy=settings), fit.cards, responses, need.width)
    return replace(need, settings=settings, processes=fit.cards, on_cpu=False, rows=rows)
