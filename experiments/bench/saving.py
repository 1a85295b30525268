"""How long training waits for a checkpoint: written in place, and copied and written while the next steps run.

    python experiments/bench/saving.py

GRPO's actor of ``plan.py``'s shapes in float32 and in bfloat16, one thread; both ways in turn, five times, in one
sitting. Prints median seconds, and those of the range: the wait; the whole until it is on disk; a step of 16 rows of 24
tokens while nothing is written, and while something is.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import bench
import plan
import torch

from rrl.config.check import load
from rrl.processes.clock import Clock
from rrl.processes.distributed import start_process_group
from rrl.runs import checkpoint
from rrl.runs.assemble import make_trainer, prepare
from rrl.training.loop import Loop

TIMES = 5
WORK = (
    "task=work model=bench algo=ppo objective=grpo trainer.n=2 warmstart=none trainer.train_batch_size=8 "
    "trainer.ppo_mini_batch_size=16 policy.micro_batch_size=16 engine.batch_size=16 trainer.ppo_epochs=1 "
    "evaluation.limit=1 data.max_prompt_length=16 data.max_response_length=8"
)


def main() -> None:
    """Print the seconds for every shape and type."""
    torch.set_num_threads(1)
    start_process_group()
    for name, shape in plan.SHAPES.items():
        for dtype in ("float32", "bfloat16"):
            with tempfile.TemporaryDirectory() as folder:
                found = measured(bench.written(folder, plan.files(shape)), dtype, Path(folder) / "run")
            for what, each in found.items():
                print(f"{name}, {dtype}, {what}: {median(each):.2f} s ({min(each):.2f} to {max(each):.2f})", flush=True)


def made(parts: Path, dtype: str) -> Loop:
    """The loop of a run."""
    os.environ["RRL_PARTS"] = str(parts)
    sys.path.insert(0, str(parts))
    config, checked = load("train", [*WORK.split(), f"policy.dtype={dtype}"])
    return make_trainer(checked, prepare(config, checked, lambda *_: None), Clock())


def measured(parts: Path, dtype: str, folder: Path) -> dict[str, list[float]]:
    """Seconds by name."""
    trainer, checkpoints = made(parts, dtype), checkpoint.Checkpoints(folder, keep_last=1, keep_best=0)
    found: dict[str, list[float]] = {}
    fits = checkpoint.fits

    def timed(name: str, work: Callable[[], object]) -> None:
        begin = time.perf_counter()
        work()
        found.setdefault(name, []).append(time.perf_counter() - begin)

    trainer.step()
    for _ in range(TIMES):
        timed("a step", trainer.step)
        checkpoint.fits = lambda size: False
        timed("wait in place", lambda: checkpoints.save(trainer, None))
        trainer.step()
        checkpoint.fits = fits
        begin = time.perf_counter()
        timed("wait aside", lambda: checkpoints.begin(trainer, None))
        timed("a step beside it", trainer.step)
        checkpoints.finish()
        found.setdefault("on disk after", []).append(time.perf_counter() - begin)
    return found


if __name__ == "__main__":
    main()
