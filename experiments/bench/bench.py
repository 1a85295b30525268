"""Seconds of a training step beside TRL's, on the same work, alternately and in one sitting.

    python experiments/bench/bench.py [name ...]     # of ROWS; all by default

The work: a random Llama (hidden 128, 4 layers, vocabulary 64, float32), 128 prompts of 32 tokens a step, 64 new tokens
each, one epoch in mini-batches of 32, AdamW; for PPO policy, critic and frozen reference, for GRPO 8 responses a prompt
and neither. Beside the ratios it prints the floor: the counted arithmetic (2 operations a parameter and token forward,
6 with the backward pass) over the rate of a large matrix product, measured in the same sitting. Run it alone: two busy
processes on two cores slow each other manifold. Writes ``experiments/results/bench/<machine>.json``.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SIZES = {"hidden": 128, "layers": 4, "rollouts": 128, "minibatch": 32, "prompt": 32, "response": 64}
STEPS, SITTINGS = 6, 2
THREADS = len(os.sched_getaffinity(0))
TARGET = ROOT / "experiments" / "results" / "bench" / f"{platform.machine()}-{THREADS}.json"
PARTS = {
    "task/work.yaml": """# @package _global_
task: {_target_: work.Work, problems: 4096, words: 60}
data:
  name: work
  plain_template: "{question}"
  max_prompt_length: 32
  max_response_length: 64
  level_weights: null
  cut_points: token
""",
    "model/bench.yaml": """# @package _global_
model: {_target_: work.Llama, hidden_size: 128, num_hidden_layers: 4}
""",
}
COMMON = (
    "task=work model=bench warmstart=none engine.batch_size=128 trainer.ppo_epochs=1 trainer.ppo_mini_batch_size=32 "
    "policy.micro_batch_size=32 policy.actor_lr=1e-5 evaluation.limit=1 run.test_freq=null run.rollout_freq=null "
    f"run.save_freq=null run.threads={THREADS} trainer.total_training_steps={STEPS + 1}"
).split()
PHASES = ("gen", "reward", "old_log_prob", "adv", "observe", "update_actor")
WORK = ("gen", "reward", "old_log_prob", "update_actor")
"""What a step is for: the rest of its time is the runner's own."""


@dataclass(frozen=True)
class Row:
    """A line of the table: our overrides, the peer, and the passes over every network of which arithmetic is made."""

    ours: str
    peer: str
    forward: int
    trained: int

    def floor(self, rate: float) -> float:
        """Seconds of the counted arithmetic of a step at so many operations a second."""
        hidden, layers = SIZES["hidden"], SIZES["layers"]
        parameters = layers * (4 * hidden**2 + 3 * hidden * 4 * hidden) + 64 * hidden
        tokens = SIZES["rollouts"] * (SIZES["prompt"] + SIZES["response"])
        return (2 + 2 * self.forward + 6 * self.trained) * parameters * tokens / rate


PPO = "algo=ppo compile=layers old_log_prob=engine trainer.train_batch_size=128"
ROWS = {
    "ppo_float32": Row(PPO, "ppo", forward=3, trained=2),
    "grpo_float32": Row(
        "algo=ppo objective=grpo compile=layers old_log_prob=engine trainer.train_batch_size=16 trainer.n=8", "grpo",
        forward=0, trained=1,
    ),
}  # fmt: skip
if "amx_bf16" in Path("/proc/cpuinfo").read_text():  # the peer stays in float32, as does the floor
    ROWS["ppo_bfloat16"] = Row(f"{PPO} policy.dtype=bfloat16 old_log_prob.tolerance=0.01", "ppo", forward=3, trained=2)


def rate() -> float:
    """Operations a second of a large matrix product in float32; the best of a dozen."""
    import torch

    torch.set_num_threads(THREADS)
    a, b, best = torch.randn(2048, 2048), torch.randn(2048, 2048), 0.0
    for _ in range(12):
        begin = time.perf_counter()
        a @ b
        best = max(best, 2 * 2048**3 / (time.perf_counter() - begin))
    return best


def run(overrides: list[str], parts: Path) -> tuple[list[float], list[dict[str, float]]]:
    """Wall-clock seconds from step to step, and the metrics of these steps; the first step warms up."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        command = [sys.executable, "-m", "rrl.cli.train", *overrides, f"run.dir={directory}"]
        paths = {"RRL_PARTS": str(parts), "RRL_CACHE": folder, "PYTHONPATH": f"{ROOT / 'src'}:{HERE}"}
        said = (Path(folder) / "said").open("w+")
        process = subprocess.Popen(command, env=os.environ | paths, stdout=said, stderr=subprocess.STDOUT)
        marks: list[float] = []
        metrics = directory / "metrics.jsonl"
        while process.poll() is None:
            lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
            if lines > len(marks):
                marks += [time.perf_counter()] * (lines - len(marks))
            time.sleep(0.01)
        if process.returncode:
            raise SystemExit((Path(folder) / "said").read_text())
        steps = [json.loads(line) for line in metrics.read_text().splitlines()][2:]
    seconds = [end - begin for begin, end in pairwise(marks[1:])]
    return seconds[:-1], steps  # the last line comes with the evaluation at the end


def median(name: str, steps: list[dict[str, float]]) -> float:
    """Of a metric over steps; 0 for a phase that there is not."""
    return statistics.median(step.get(name, 0.0) for step in steps)


def ours(row: Row, parts: Path) -> tuple[list[float], dict[str, float]]:
    """Seconds from step to step; the median seconds of each phase, and the mean of what is in none of WORK."""
    seconds, steps = run([*COMMON, *row.ours.split()], parts)
    work = [sum(step.get(f"timing_s/{name}", 0.0) for name in WORK) for step in steps]
    own = statistics.mean(whole - part for whole, part in zip(seconds, work, strict=False))  # of all steps but the last
    return seconds, {name: median(f"timing_s/{name}", steps) for name in PHASES} | {"own": own}


def written(folder: str, files: dict[str, str]) -> Path:
    """A folder of the parts of the benchmark."""
    parts = Path(folder)
    for name, text in files.items():
        (parts / name).parent.mkdir(exist_ok=True)
        (parts / name).write_text(text)
    (parts / "work.py").symlink_to(HERE / "work.py")
    return parts


def peer(row: Row) -> list[float]:
    """Seconds from step to step."""
    python = ROOT / "build" / "peers" / row.peer / "bin" / "python"
    sizes = {**SIZES, "steps": STEPS, "threads": THREADS}
    options = [part for name, size in sizes.items() for part in (f"--{name}", str(size))]
    done = subprocess.run([python, HERE / "peer.py", row.peer, *options], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stderr[-2000:]}\nthe peer failed; `make bench-peers` installs it")
    return list(json.loads(done.stdout.splitlines()[-1]))


def record(rows: list[dict[str, Any]]) -> None:
    """Put rows into the file, in place of those of the same names."""
    result = json.loads(TARGET.read_text())
    names = {row["name"] for row in rows}
    result["rows"] = [row for row in result["rows"] if row["name"] not in names] + rows
    TARGET.write_text(json.dumps(result, indent=1) + "\n")


def main(names: list[str]) -> None:
    """Run the sittings, print the table, and write the file."""
    rows, best = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        parts = written(folder, PARTS)
        for name in names or ROWS:
            mine, theirs, phases = [], [], {}
            for _ in range(SITTINGS):
                best = max(best, rate())
                seconds, phases = ours(ROWS[name], parts)
                mine += seconds
                theirs += peer(ROWS[name])
                print(f"{name}: ours {seconds}, peer {theirs[-STEPS + 1 :]}", file=sys.stderr, flush=True)
            rows.append((name, statistics.median(mine), statistics.median(theirs), phases))
    print(f"{THREADS} threads, matrix product {best / 1e9:.0f} GFLOP/s")
    print(f"{'':14}{'ours':>8}{'TRL':>8}{'ratio':>8}{'floor':>8}{'/floor':>8}  phases")
    table = []
    for name, mine, theirs, phases in rows:
        floor = ROWS[name].floor(best)
        shown = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in phases.items() if seconds >= 0.005)
        print(f"{name:14}{mine:8.2f}{theirs:8.2f}{theirs / mine:8.2f}{floor:8.2f}{mine / floor:8.2f}  {shown}")
        table.append(
            {"name": name, "ours": mine, "peer": theirs, "ratio": theirs / mine, "floor_ratio": mine / floor,
             "floor": floor, "phases": phases}
        )  # fmt: skip
    result = {"machine": platform.processor() or platform.machine(), "threads": THREADS, "matrix_flops": best}
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(result | {"rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
