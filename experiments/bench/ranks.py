"""Efficiency of two processes on one machine: the step of one with half the rows over the step of two with all of them.

    python experiments/bench/ranks.py [stage ...]     # of ZeRO; 1, 2 and 3 by default; some 2 minutes

A random Llama of 10 M parameters in float32, 32 prompts of 32 tokens, 32 new tokens each; PPO with actor, critic and
reference, one optimiser step, 8 rows in a pass. Three processes hold a trainer each, with one thread and one core; the
one alone and the two together take steps in turn, of which medians are taken. ``efficiency`` is of wall time, and holds
on an idle machine only: ``delayed`` is the share of the time in which other programs used the cores. ``work`` is the
same ratio in seconds of the processor: the rest of 100 % is what a rank does beside its half. ``waiting`` is the share
of the two's time in which they waited for each other, or for what they send. The rows are put into the file that
``bench.py`` writes, efficiency as ``ratio``.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import bench

ROWS, STEPS = 32, 3
WORK = (
    "task=work model=bench algo=ppo warmstart=none trainer.ppo_epochs=1 policy.micro_batch_size=8 "
    f"engine.batch_size={ROWS} trainer.total_training_steps=1000"
)
MODEL = {"_target_": "work.Llama", "hidden_size": 256, "num_hidden_layers": 9}
LENGTHS = {"max_prompt_length": 32, "max_response_length": 32}
DATA = {"name": "work", "plain_template": "{question}", "level_weights": None, "cut_points": "token", **LENGTHS}
FILES = {
    "task/work.yaml": "# @package _global_\n"
    + json.dumps({"task": {"_target_": "work.Work", "problems": 1024, "words": 1000}, "data": DATA}),
    "model/bench.yaml": f"# @package _global_\n{json.dumps({'model': MODEL})}\n",
}
PHASES = ("gen", "old_log_prob", "update_actor", "step")


class Spent(NamedTuple):
    """Seconds: by the wall clock, of the processor, and ready while another program used the core."""

    wall: float
    cpu: float
    delayed: float


def now() -> Spent:
    """Since some moment in the past."""
    delayed = int(Path("/proc/self/schedstat").read_text().split()[1])
    return Spent(time.perf_counter(), time.process_time(), delayed / 1e9)


def worker(overrides: list[str]) -> None:
    """For each line of the standard input make a trainer of this stage or, where it is empty, take a step; answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    import torch

    from rrl.config.check import load
    from rrl.processes.clock import Clock
    from rrl.processes.distributed import leave_process_group, start_process_group
    from rrl.runs.assemble import make_trainer, prepare

    class Measuring(Clock):
        """Keeps what each phase spent."""

        @contextmanager
        def phase(self, name: str) -> Iterator[None]:
            begin = now()
            with super().phase(name):
                yield
            spent[name] = _since(begin)

    spent: dict[str, Spent] = {}
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["RANK"]) % len(cores)]})
    torch.set_num_threads(1)
    start_process_group()
    trainer: Any = None
    for line in sys.stdin:
        if line.strip():
            config, parts = load("train", [*overrides, f"policy.zero_stage={line.strip()}"])
            trainer = make_trainer(parts, prepare(config, parts, lambda *_: None), Measuring())
        begin = now()
        trainer.step()
        spent["step"] = _since(begin)
        print(json.dumps(spent), file=answers, flush=True)
    leave_process_group()
    os._exit(0)


def _since(begin: Spent) -> Spent:
    return Spent(*(after - before for before, after in zip(begin, now(), strict=True)))


class Group:
    """Processes that train together, each on a core of its own."""

    def __init__(self, size: int, parts: Path) -> None:
        from rrl.processes.launch import free_port

        rows = ROWS * size // 2
        sizes = [f"trainer.train_batch_size={rows}", f"trainer.ppo_mini_batch_size={rows}"]
        overrides = [*WORK.split(), *sizes]
        place = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        paths = {"RRL_PARTS": str(parts), "PYTHONPATH": f"{bench.ROOT / 'src'}:{bench.HERE}", "OMP_NUM_THREADS": "1"}
        self._processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker", *overrides],
                env=os.environ | place | paths | {"RANK": str(number), "LOCAL_RANK": str(number)},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for number in range(size)
        ]  # fmt: skip

    def step(self, stage: str = "") -> dict[str, list[Spent]]:
        """What each phase of a step took on each rank; given a stage, the first step of a new trainer."""
        for process in self._processes:
            process.stdin.write(f"{stage}\n")
            process.stdin.flush()
        ranks = [json.loads(process.stdout.readline()) for process in self._processes]
        return {phase: [Spent(*spent[phase]) for spent in ranks] for phase in PHASES}

    def end(self) -> None:
        """Let them leave."""
        for process in self._processes:  # of all, before one is waited for: they leave together
            process.stdin.close()
        for process in self._processes:
            process.wait()


def measured(stage: str, groups: list[Group]) -> list[dict[str, Any]]:
    """A row for each phase; the first step of each group warms up."""
    for group in groups:
        group.step(stage)
    steps = [[group.step() for group in groups] for _ in range(STEPS)]
    return [_row(stage, phase, [[group[phase] for group in pair] for pair in steps]) for phase in PHASES]


def _row(stage: str, phase: str, steps: list[list[list[Spent]]]) -> dict[str, Any]:
    alone, halves = zip(*steps, strict=True)
    half = statistics.median(step[0].wall for step in alone)
    whole = statistics.median(max(rank.wall for rank in step) for step in halves)
    everything = [rank for step in steps for group in step for rank in group]
    together = [rank for step in halves for rank in step]
    cpu = statistics.median(max(rank.cpu for rank in step) for step in halves)
    return {
        "name": f"zero{stage}_{phase}", "ours": whole, "peer": half, "ratio": half / whole,
        "work": statistics.median(step[0].cpu for step in alone) / cpu,
        "waiting": 1 - sum(rank.cpu + rank.delayed for rank in together) / sum(rank.wall for rank in together),
        "delayed": sum(rank.delayed for rank in everything) / sum(rank.wall for rank in everything),
    }  # fmt: skip


def main(stages: list[str]) -> None:
    """Measure, print, and add the rows to the file that ``bench.py`` writes."""
    sys.path.insert(0, str(bench.ROOT / "src"))
    rows = []
    print(f"{'':20}{'half, one':>12}{'all, two':>12}{'efficiency':>12}{'work':>8}{'waiting':>9}{'delayed':>9}")
    with tempfile.TemporaryDirectory() as folder:
        parts = bench.written(folder, FILES)
        groups = [Group(size, parts) for size in (1, 2)]
        for stage in stages:
            rows += measured(stage, groups)
            for row in rows[-len(PHASES) :]:
                shares = "".join(f"{row[name]:>{width}.0%}" for name, width in
                                 (("ratio", 12), ("work", 8), ("waiting", 9), ("delayed", 9)))  # fmt: skip
                print(f"{row['name']:20}{row['peer']:10.2f} s{row['ours']:10.2f} s{shares}", flush=True)
        for group in groups:
            group.end()
    bench.record(rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2:])
    else:
        main(sys.argv[1:] or ["1", "2", "3"])
