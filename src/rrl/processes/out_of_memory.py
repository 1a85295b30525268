"""What to say when memory runs out: in which phase, how much was asked for, the peak, and which keys to lower."""

import errno
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rrl.errors import UsageError
from rrl.processes.machine import accelerator_count, in_words, peaks

SPOKEN = re.compile(
    r"out of memory|OutOfMemoryError|DefaultCPUAllocator|(not enough|allocate) memory|ALLOC_FAILED|bad_alloc"
)
"""What torch, CUDA and the system say when there is no more."""
ASKED = re.compile(r"(?:to allocate|unable to mmap) ([\d.]+) ?(bytes|KiB|MiB|GiB|TiB)")
UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

WRITING = ("engine.batch_size", "data.max_response_length", "data.max_prompt_length")
STATES = ("policy.dtype", "policy.zero_stage", "launcher.num_processes", "policy.critic")
LEARNING = ("policy.micro_batch_size", "data.max_response_length")
KEYS = {
    "loading": STATES,
    "warm start": ("policy.micro_batch_size", "data.max_prompt_length"),
    "gen": (*WRITING, *STATES),
    "testing": (*WRITING, *STATES),
    "old_log_prob": (*LEARNING, *STATES),
    "observe": (*LEARNING, *STATES),
    "update_actor": ("policy.micro_batch_size", "policy.gradient_checkpointing", "data.max_response_length", *STATES),
    "save_checkpoint": STATES,
}
"""The keys that lower what a phase needs, what costs least first."""
ELSEWHERE = ("engine.batch_size", *LEARNING, "policy.gradient_checkpointing", *STATES)


class OutOfMemory(UsageError):
    """There is not as much memory as the run needs. What was saved before stays."""

    heading = "more memory was asked for than there is"


@contextmanager
def explained(config: Mapping[str, Any], phase: Callable[[], str | None], processes: int) -> Iterator[None]:
    """Turn any error that stands for a lack of memory into OutOfMemory; all others pass.

    ``phase`` tells where the run is, as soon as it is asked.
    """
    try:
        yield
    except Exception as error:  # torch, CUDA, the system and what wraps them raise errors of many types for it
        told = explain(error, phase(), config, processes)
        if told is None:
            raise
        raise OutOfMemory(*told.splitlines()) from error


def explain(error: BaseException, phase: str | None, config: Mapping[str, Any], processes: int) -> str | None:
    """What happened and what to do, a line each; None when the error is none of memory."""
    first = next((each for each in _chain(error) if _is_of_memory(each)), None)
    if first is None:
        return None
    asked = ASKED.search(str(first))
    wanted = in_words(float(asked[1]) * UNITS[asked[2]]) if asked else "memory"
    peak = "; ".join(f"{in_words(p.size)} of the {in_words(p.total)} of {p.name}" for p in peaks())
    lines = [
        *(error.faults if isinstance(error, UsageError) else ()),
        f"{phase or 'before the first step'}: {wanted} could not be had; this process's peak was {peak}",
        *(f"{key}: {_value(key, config)}; try {change}" for key, change in lower(phase, config, processes).items()),
        "dry_run=true, added to the same command, estimates what each phase needs",
    ]
    return "\n".join(lines)


def lower(phase: str | None, config: Mapping[str, Any], processes: int) -> dict[str, str]:
    """The keys by which a phase (None: any) takes less memory, each with the next value that does, as key=value."""
    changes: dict[str, str] = {}
    for key in KEYS.get(phase or "", ELSEWHERE):
        group, _, name = key.partition(".")
        if name in (config.get(group) or {}):
            value = _lower(key, config, processes)
            changes |= {} if value is None else {key: f"{key}={value}"}
    return changes


def _value(key: str, config: Mapping[str, Any]) -> str:
    group, _, name = key.partition(".")
    value = config[group][name]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _lower(key: str, config: Mapping[str, Any], processes: int) -> str | int | None:
    """The next value that takes less; None where there is none."""
    group, _, name = key.partition(".")
    value, stage = config[group][name], config["policy"]["zero_stage"]
    if key == "policy.dtype":
        return "bfloat16" if value == "float32" else None
    if key == "policy.gradient_checkpointing":
        return None if value else "true"
    if key == "policy.critic":
        return "shared" if value == "own" else None
    if key == "policy.zero_stage":  # it shares out among processes, of which one has nothing to share
        return stage + 1 if processes > 1 and stage < 3 else None
    if key == "launcher.num_processes":  # of two on one accelerator, or in one main memory, each has half of it
        return 2 * value if stage and accelerator_count() >= 2 * value else None
    return value // 2 if value > 1 else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it came from, each once: one that is raised again may come from itself."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(SPOKEN.search(f"{type(error).__name__}: {error}"))
