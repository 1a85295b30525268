"""What a program in the sandbox may use."""

from dataclasses import dataclass

from rrl.ranges import at_least_one, between

LEAST_SECONDS, MOST_SECONDS = 0.01, 3600.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one run of a program on one input; who crosses one is stopped.

    ``wall_seconds`` and ``cpu_seconds`` (of each process, rounded up to whole seconds) are time-outs. ``memory_mb`` is
    the address space of each process. ``processes`` counts threads, too. ``file_mb`` is the size of one file and,
    where the sandbox has a file system of its own, of all together. ``output_kb`` is what a program may print on both
    streams together, and how long what a function returns may be as text.
    """

    wall_seconds: float
    cpu_seconds: float
    memory_mb: int
    processes: int
    open_files: int
    file_mb: int
    output_kb: int

    def __post_init__(self) -> None:
        between(self, LEAST_SECONDS, MOST_SECONDS, "wall_seconds", "cpu_seconds")
        at_least_one(self, "processes", "file_mb", "output_kb")
        between(self, 64, 2**20, "memory_mb")  # the interpreter itself has about 30
        between(self, 16, 2**16, "open_files")
