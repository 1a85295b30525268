"""The limits of a program in the sandbox."""

import resource
from dataclasses import dataclass

from rrl.ranges import at_least_one, between, check_ranges

LEAST_SECONDS, MOST_SECONDS = 0.01, 3600.0
OURS = {
    "processes": (resource.RLIMIT_NPROC, 1, "u"),
    "open_files": (resource.RLIMIT_NOFILE, 1, "n"),
    "memory_mb": (resource.RLIMIT_AS, 2**20, "v"),
    "file_mb": (resource.RLIMIT_FSIZE, 2**20, "f"),
}
"""By key: the kernel's limit on this process itself, its unit, and its letter in the shell's ulimit."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one run of a program on one input; a program that exceeds one is stopped.

    ``wall_seconds`` and ``cpu_seconds`` (of each process, rounded up to whole seconds) are time-outs. ``memory_mb`` is
    the address space of each process. ``processes`` counts threads, too. ``file_mb`` is the size of one file and,
    where the sandbox has its own file system, of all together. ``output_kb`` limits the output on both streams together
    and the text of a returned value.
    """

    wall_seconds: float
    cpu_seconds: float
    memory_mb: int
    processes: int
    open_files: int
    file_mb: int
    output_kb: int

    def __post_init__(self) -> None:
        check_ranges(
            self,
            between(LEAST_SECONDS, MOST_SECONDS, "wall_seconds", "cpu_seconds"),
            at_least_one("processes", "file_mb", "output_kb"),
            between(64, 2**20, "memory_mb"),
            between(16, 2**16, "open_files"),
        )

    def beyond(self) -> list[str]:
        """Faults of limits above those of this process, which it cannot give to programs."""
        found = []
        for key, (what, unit, letter) in OURS.items():
            hard = resource.getrlimit(what)[1]
            if hard != resource.RLIM_INFINITY and getattr(self, key) * unit > hard:
                given = f"sandbox.limits.{key}={getattr(self, key)}"
                found.append(f"{given} is more than this process may have (ulimit -H{letter}: {hard // unit}); "
                             f"raise that with ulimit -{letter} or in the container, or lower the key")  # fmt: skip
        return found
