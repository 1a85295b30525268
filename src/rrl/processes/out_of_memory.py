"""Reports of exhausted memory: the phase, the requested size, the peak, and the keys to lower."""

import errno
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rrl.errors import UsageError
from rrl.processes.machine import accelerator_count, in_words, peaks

EXHAUSTED = re.compile(
    r"out of memory|OutOfMemoryError|DefaultCPUAllocator|(not enough|allocate) memory|ALLOC_FAILED|bad_alloc"
)
"""Messages of torch, CUDA and the system."""
ASKED = re.compile(r"(?:to allocate|unable to mmap) ([\d.]+) ?(bytes|KiB|MiB|GiB|TiB)")
UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
WRITING = ("engine.batch_size", "data.max_response_length", "data.max_prompt_length")
STATES = ("engine.memory", "policy.dtype", "policy.zero_stage", "offload", "launcher.num_processes", "critic")
ROWS, BUDGET = "policy.micro_batch_size", "policy.micro_batch_tokens"
LEARNING = (ROWS, "data.max_response_length")
KEYS = {
    "loading": STATES,
    "warm start": (ROWS, "data.max_prompt_length"),
    "gen": (*WRITING, *STATES),
    "testing": (*WRITING, *STATES),
    "old_log_prob": (*LEARNING, *STATES),
    "observe": (*LEARNING, *STATES),
    "examine": (*WRITING, *STATES),
    "update_actor": (ROWS, "policy.gradient_checkpointing", "data.max_response_length", *STATES),
    "save_checkpoint": STATES,
}
"""The keys that reduce a phase's memory, the cheapest first."""
ELSEWHERE = ("engine.batch_size", *LEARNING, "policy.gradient_checkpointing", *STATES)


class OutOfMemory(UsageError):
    """The run needs more memory than there is. What was saved before stays."""

    heading = "more memory was requested than there is"


@contextmanager
def report_out_of_memory(config: Mapping[str, Any], phase: Callable[[], str | None], processes: int) -> Iterator[None]:
    """Raise OutOfMemory in place of any error that means exhausted memory; ``phase`` returns the current one."""
    try:
        yield
    except Exception as error:  # torch, CUDA, the system and their wrappers raise errors of many types for it
        message = out_of_memory_message(error, phase(), config, processes)
        if message is None:
            raise
        raise OutOfMemory(*message.splitlines()) from error


def out_of_memory_message(
    error: BaseException, phase: str | None, config: Mapping[str, Any], processes: int
) -> str | None:
    """Cause and remedies, a line each; None when the error has another cause."""
    first = next((each for each in _chain(error) if _is_of_memory(each)), None)
    if first is None:
        return None
    asked = ASKED.search(str(first))
    wanted = in_words(float(asked[1]) * UNITS[asked[2]]) if asked else "memory"
    peak = "; ".join(f"{in_words(p.size)} of the {in_words(p.total)} of {p.name}" for p in peaks())
    lines = [
        *(error.faults if isinstance(error, UsageError) else ()),
        f"{phase or 'before the first step'}: {wanted} could not be allocated; this process's peak was {peak}",
        *(
            f"{key}: {_value_text(key, config)}; try {change}"
            for key, change in lower(phase, config, processes).items()
        ),
        "dry_run=true, added to the same command, estimates what each phase needs",
    ]
    return "\n".join(lines)


def lower(phase: str | None, config: Mapping[str, Any], processes: int) -> dict[str, str]:
    """The keys that reduce the memory of a phase (None: any), each with its next value, as key=value."""
    changes: dict[str, str] = {}
    by_tokens = phase != "warm start" and BUDGET.partition(".")[2] in config["policy"]
    for key in KEYS.get(phase or "", ELSEWHERE):
        key = BUDGET if by_tokens and key == ROWS else key
        group, _, name = key.partition(".")
        if key == "offload" or (name or "_target_") in (config.get(group) or {}):
            value = _offload(config) if key == "offload" else _lower(key, config, processes)
            changes |= {} if value is None else {key: f"{key}={value}"}
    return changes


def _value_text(key: str, config: Mapping[str, Any]) -> str:
    group, _, name = key.partition(".")
    value = config[group][name] if name else {"critic": "own", "offload": "none"}[key]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _lower(key: str, config: Mapping[str, Any], processes: int) -> str | int | None:
    """The next value that takes less memory; None where there is none."""
    group, _, name = key.partition(".")
    value, stage = config[group][name or "_target_"], config["policy"]["zero_stage"]
    if key == "policy.dtype":
        return "bfloat16" if value == "float32" else None
    if key == "engine.memory":  # of a device, for another program's weights and cache
        return f"{value / 2:g}" if value > 0.1 else None
    if key == "policy.gradient_checkpointing":
        return None if value else "true"
    if key == "critic":
        return "shared" if value.endswith(".OwnCritic") else None
    if key == "policy.zero_stage":  # divides weights among processes, so that a single one gains nothing
        return stage + 1 if processes > 1 and stage < 3 else None
    if key == BUDGET:
        longest = config["data"]["max_prompt_length"] + config["data"]["max_response_length"]
        return max(value // 2, longest) if value > longest else None
    if key == "launcher.num_processes":  # more processes help only on accelerators of their own
        return 2 * value if stage and accelerator_count() >= 2 * value else None
    return value // 2 if value > 1 else None


def _offload(config: Mapping[str, Any]) -> str | None:
    """What can rest in main memory instead of on an accelerator."""
    apart = accelerator_count() and config["policy"]["zero_stage"] and not config.get("offload")
    return "optimizer" if apart else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes, each once: an error that is raised again may be its own cause."""
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
    return isinstance(error, RuntimeError) and bool(EXHAUSTED.search(f"{type(error).__name__}: {error}"))
