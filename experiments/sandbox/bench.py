"""Programs a second, and what one takes of a processor: the warm server against one fresh python process a test, in one
run. Prints JSON.

Purpose: the sandbox must run at least ten times as many programs a second as fresh processes do, at equal isolation
for what these isolate: limits by rlimit, and nothing else. The figures of full isolation stand beside them.
Launch: make bench-sandbox [BENCH="--tests 2000"]. Cost: about a minute on 2 cores that do nothing else. Where others
compute too, programs a second tell little; processor time then grows for all ways, as caches are shared.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from rrl.sandbox import server
from rrl.sandbox.inside.request import packed
from rrl.sandbox.isolation import choose
from rrl.sandbox.limits import Limits
from rrl.sandbox.outcome import run_of
from rrl.sandbox.runs import Job, ProgramRun
from rrl.sandbox.sandbox import Sandbox

LIMITS = Limits(
    wall_seconds=10.0, cpu_seconds=4.0, memory_mb=512, processes=16, open_files=64, file_mb=16, output_kb=1024
)  # fmt: skip
PROGRAM = "import sys\n\n\ndef main():\n    n = int(sys.stdin.readline())\n    print(sum(range(n + 1)))\n\n\nmain()\n"
"""A short program of the kind that solves a problem."""
ANSWER = sum(range(8))
Measured = tuple[float, float]
"""Programs a second, and seconds of a processor that one takes."""


def main() -> None:
    """Measure each way in turn, a few times, the fastest round of each counts: other load only slows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=600, help="tests in a round of the sandbox")
    parser.add_argument("--fresh", type=int, default=100, help="tests in a round of fresh processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    found: dict[str, list[Measured]] = {}
    for _ in range(given.rounds):
        for name, measure in _ways(given.workers).items():
            count = given.fresh if name.startswith("fresh") else given.tests
            found.setdefault(name, []).append(measure(count))
    best = {name: max(rate for rate, _ in each) for name, each in found.items()}
    least = {name: min(spent for _, spent in each) for name, each in found.items()}
    fresh, spent = best["fresh python, rlimits"], least["fresh python, rlimits"]
    print(json.dumps({
        "workers": given.workers,
        "programs_per_second": {name: round(rate, 1) for name, rate in best.items()},
        "times_fresh": {name: round(rate / fresh, 2) for name, rate in best.items()},
        "ratio_at_equal_isolation": round(best["warm, rlimits alone"] / fresh, 2),
        "processor_ms_a_program": {name: round(1000 * each, 2) for name, each in least.items()},
        "times_fresh_by_processor_time": {name: round(spent / each, 2) for name, each in least.items()},
    }, indent=2))  # fmt: skip


def _ways(workers: int) -> dict[str, Callable[[int], Measured]]:
    ways: dict[str, Callable[[int], Measured]] = {
        "fresh python, rlimits": lambda count: _fresh(count, workers),
        "fresh python -I -S, rlimits": lambda count: _fresh(count, workers, "-I", "-S"),
        "warm, rlimits alone": lambda count: _warm(count, workers, own_user=False),
        "warm, rlimits, own user": lambda count: _warm(count, workers, own_user=True),
    }
    for level in ("rlimits", "namespaces", "bubblewrap"):
        ways[f"sandbox, {level}"] = lambda count, level=level: _sandbox(count, workers, level)  # type: ignore[misc]
    return ways


def _measured(count: int, run: Callable[[], Iterable[bool]]) -> Measured:
    """All runs must go well."""
    began, spent = time.perf_counter(), _spent()
    assert all(run())
    return count / (time.perf_counter() - began), (_spent() - spent) / count


def _spent() -> float:
    """Seconds of a processor that this process has taken, and all that it has started."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(map(_with_its_ended, _children(os.getpid())))


def _with_its_ended(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") + sum(map(_with_its_ended, _children(pid)))


def _children(pid: int) -> list[int]:
    return [int(each) for path in Path(f"/proc/{pid}/task").glob("*/children") for each in path.read_text().split()]


def _fresh(count: int, workers: int, *options: str) -> Measured:
    """One new interpreter a test, with the same limits, as many at a time as there are workers."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        file = Path(folder) / "program.py"
        file.write_text(PROGRAM)
        list(pool.map(lambda _: _start(file, options), range(workers)))
        return _measured(count, lambda: pool.map(lambda _: _start(file, options), range(count)))


def _start(file: Path, options: tuple[str, ...]) -> bool:
    done = subprocess.run(
        [sys.executable, *options, file], input="7\n", capture_output=True, text=True, timeout=LIMITS.wall_seconds,
        preexec_fn=_limit,
    )  # fmt: skip
    return done.stdout == f"{ANSWER}\n"


def _limit() -> None:
    for what, most in (
        (resource.RLIMIT_CPU, int(LIMITS.cpu_seconds)),
        (resource.RLIMIT_AS, LIMITS.memory_mb * 2**20),
        (resource.RLIMIT_NPROC, LIMITS.processes),
        (resource.RLIMIT_NOFILE, LIMITS.open_files),
        (resource.RLIMIT_FSIZE, LIMITS.file_mb * 2**20),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _warm(count: int, workers: int, *, own_user: bool) -> Measured:
    """The warm server with limits alone: no filter of system calls, no rules on files."""
    servers = [server.Server("rlimits", LIMITS, filtered=False, own_user=own_user) for _ in range(workers)]
    request = packed(PROGRAM, None, "7\n")

    def serve(each: server.Server) -> bool:
        return all(_right(run_of(*each.ask(request), LIMITS, prints=True)) for _ in range(count // workers))

    try:
        for each in servers:
            each.ask(request)
        with ThreadPoolExecutor(workers) as pool:
            return _measured(count // workers * workers, lambda: pool.map(serve, servers))
    finally:
        for each in servers:
            each.close()


def _right(run: ProgramRun) -> bool:
    return bool(run.value == f"{ANSWER}\n")


def _sandbox(count: int, workers: int, level: Any) -> Measured:
    """The sandbox as tasks use it."""
    choose(LIMITS, level)
    with closing(Sandbox(limits=LIMITS, workers=workers, isolation=level)) as made:
        _runs(made, 8 * workers)
        return _measured(count, lambda: map(_right, _runs(made, count)))


def _runs(sandbox: Sandbox, count: int) -> list[ProgramRun]:
    return [future.result() for future in sandbox.submit(Job(PROGRAM, None, ("7\n",) * count))]


if __name__ == "__main__":
    main()
