"""The processors, memory, accelerators and packages of this machine. All sizes are in bytes."""

import importlib.metadata as metadata
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

CGROUPS = (  # version 2, version 1: limit and use
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
MAIN = -1
_whole: dict[int, int] = {}
"""The highest peaks before the last ``restart_peak``, by accelerator, and of main memory."""
_before = (0, 0)
"""The resident size and the kernel's high-water mark at the last ``restart_peak``."""


class MemoryInfo(NamedTuple):
    """Memory of one kind: its total, and what is free for this process."""

    name: str
    total: int
    free: int


class Peak(NamedTuple):
    """The peak of this process in one kind of memory, and the total of that memory."""

    name: str
    size: int
    total: int


def cpus() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpus_of_a_rank() -> int:
    """A rank's share of the processors, by the launcher's number of processes on this machine; at least one."""
    return max(1, cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def main_memory() -> MemoryInfo:
    """The machine's memory, limited by this process's control group."""
    total, free = _installed_memory()
    for limit, used in CGROUPS:
        most, taken = _read_number(limit), _read_number(used)
        if most is not None and taken is not None and most < total:
            total, free = most, min(free, most - taken)
    return MemoryInfo("main memory", total, max(0, free))


def accelerators() -> list[MemoryInfo]:
    numbers = range(accelerator_count())
    return [MemoryInfo(_cuda().get_device_name(each), *_cuda().mem_get_info(each)[::-1]) for each in numbers]


def accelerator_count() -> int:
    return int(_cuda().device_count())


def peaks() -> list[Peak]:
    """This process's peak on each accelerator it used or, without any, in main memory."""
    found = []
    for number in _used():
        size = max(_whole.get(number, 0), _cuda().max_memory_allocated(number))
        about = _cuda().get_device_properties(number)
        found += [Peak(f"GPU {number} ({about.name})", size, about.total_memory)] if size else []
    return found or [Peak("main memory", max(_whole.get(MAIN, 0), _largest_resident_set()), main_memory().total)]


def restart_peak() -> None:
    """Start a new measurement for ``peak``; ``peaks`` still covers the whole process."""
    global _before
    for number in _used():
        _whole[number] = max(_whole.get(number, 0), _cuda().max_memory_allocated(number))
        _cuda().reset_peak_memory_stats(number)
    _whole[MAIN] = max(_whole.get(MAIN, 0), _largest_resident_set())
    with suppress(OSError):  # where the kernel refuses, ``peak`` is an estimate
        Path("/proc/self/clear_refs").write_text("5")
    _before = _resident()


def peak() -> int | None:
    """The peak since ``restart_peak``: on this process's accelerator, else of main memory; None if unknown.

    Where the kernel's high-water mark was neither reset nor passed: the larger of the resident sizes then and now.
    """
    if used := _used():
        return max(int(_cuda().max_memory_allocated(number)) for number in used)
    (now, highest), (then, mark) = _resident(), _before
    return (highest if highest > mark else max(now, then)) or None


def installed_version(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def in_words(size: float) -> str:
    """Bytes with three digits and a unit."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1000:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB" if abs(size) < 1000 else f"{size:,.0f} GiB"


def _cuda() -> Any:
    import torch

    return torch.cuda


def _used() -> Sequence[int]:
    """The accelerators on which this process may have memory."""
    return range(_cuda().device_count() if _cuda().is_initialized() else 0)


def _resident() -> tuple[int, int]:
    """The resident size of this process and its high-water mark; zeros if unknown."""
    sizes = _sizes("/proc/self/status")
    return sizes.get("VmRSS", 0), sizes.get("VmHWM", 0)


def _largest_resident_set() -> int:
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


def _installed_memory() -> tuple[int, int]:
    """Total and free memory from the kernel; where the free memory is unknown, the total."""
    sizes = _sizes("/proc/meminfo")
    total = sizes.get("MemTotal", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return total, sizes.get("MemAvailable", sizes.get("MemFree", total))


def _sizes(path: str) -> dict[str, int]:
    """The sizes by name in a file of Linux's /proc; none where there is no such file."""
    try:
        rows = [line.split() for line in Path(path).read_text().splitlines()]
    except OSError:
        return {}
    return {row[0].rstrip(":"): 1024 * int(row[1]) for row in rows if row[-1:] == ["kB"]}


def _read_number(path: str) -> int | None:
    """The number in a file; None without the file or a number in it ("max" is no limit)."""
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None
