"""Peak memory of a PPO step on this machine beside what the plan says, for 10 M and 100 M parameters.

    python experiments/bench/plan.py

Random models of a Qwen2.5's shape with actor, critic and reference in float32, 16 rows of 64 + 64 tokens; no timing, so
the machine may be busy. The peak is the process's resident memory in ``update_actor``, steps 2 and 3; from the first
update on the other phases of a step keep what it left in the process.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import bench

SHAPES = {
    "10 M": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 9, "num_attention_heads": 4},
    "100 M": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
}
WORK = (
    "task=work model=bench algo=ppo warmstart=none trainer.train_batch_size=16 trainer.ppo_mini_batch_size=16 "
    "policy.micro_batch_size=8 engine.batch_size=16 trainer.total_training_steps=3 evaluation.limit=1 "
    "run.test_freq=null run.rollout_freq=null run.save_freq=null trainer.ppo_epochs=1"
)
LENGTHS = {"max_prompt_length": 64, "max_response_length": 64}
UNITS = {"MiB": 2**-10, "GiB": 1.0}


def main() -> None:
    """Print both for every shape."""
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            parts = bench.written(folder, files(shape))
            planned = _planned(parts)
            _, steps = bench.run(WORK.split(), parts)
        peak = max(step["perf/max_memory/update_actor"] for step in steps)
        print(f"{name}: planned {planned['update_actor']:.2f} GiB, measured {peak:.2f} GiB")


def files(shape: dict[str, int]) -> dict[str, str]:
    """The parts of the benchmark for a model of this shape."""
    model = {"_target_": "work.Qwen2", "num_key_value_heads": 2, **shape, **LENGTHS}
    data = {"name": "work", "plain_template": "{question}", "level_weights": None, "cut_points": "token", **LENGTHS}
    task = {"_target_": "work.Work", "problems": 256, "words": 1000}
    return {
        "task/work.yaml": f"# @package _global_\n{json.dumps({'task': task, 'data': data})}\n",
        "model/bench.yaml": f"# @package _global_\n{json.dumps({'model': model})}\n",
    }


def _planned(parts: Path) -> dict[str, float]:
    paths = {"RRL_PARTS": str(parts), "PYTHONPATH": f"{bench.ROOT / 'src'}:{bench.HERE}"}
    command = [sys.executable, "-m", "rrl.cli.train", *WORK.split(), "dry_run=true"]
    said = subprocess.run(command, env=bench.os.environ | paths, capture_output=True, text=True, check=True)
    sizes = re.findall(r"(\w+) +([\d.]+) (MiB|GiB)", said.stdout + said.stderr)
    return {phase: float(size) * UNITS[unit] for phase, size, unit in sizes}


if __name__ == "__main__":
    main()
