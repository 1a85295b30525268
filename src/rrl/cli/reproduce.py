"""rrl-reproduce: from the base model to a table beside the paper's."""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rrl.cli import shell
from rrl.errors import ConfigError, nearest

if TYPE_CHECKING:
    from rrl.study.reproduce import Target
    from rrl.study.reproduce_steps import Step

HELP = """
rrl-reproduce makes a table of the paper anew: supervised fine-tuning, reward models where answers are judged, all arms
with all seeds, the whole test set, and table.md. What is there is left alone, what was interrupted goes on.

  rrl-reproduce task=gsm8k                     of gsm8k, math, code, dialogue; one card of 80 GiB, three seeds
  ... scale=paper                              a model of the paper's size on eight cards (see docs/reproduction.md)
  ... seeds=0,1,2,3,4                          the seeds of every arm
  ... data=DIR                                 data.path: files instead of the hub
  ... out=DIR                                  where everything lies (runs/reproduce/<task>-<scale>)
  ... jobs=2                                   steps at a time; each takes the devices that it needs
  ... launcher=slurm slurm='--partition=gpu --gpus=1 --time=24:00:00'     a job for each step, after those it needs
  ... limit=4                                  only so many test problems of each level
  ... only=ppo-s0                              one step
  ... dry_run=true                             print the steps and what they wait for, and exit
  ... KEY=VALUE                                overrides for all trainings (judge.* for the judge, model.* for the base)
"""
OPTIONS = ("task", "scale", "seeds", "data", "out", "jobs", "launcher", "slurm", "limit", "only", "dry_run")
TABLE = "table"
"""The name of the last step."""
PLANNED = {"experiment": "scale", "seed": "seeds", "run.dir": "out", "data.path": "data", "resume": "out"}
"""Keys that the plan sets, and the option to give instead."""


def main() -> None:
    sys.exit(shell.run_command(_reproduce, HELP))


def _reproduce(arguments: Sequence[str]) -> None:
    from rrl.records.status import RunLock
    from rrl.study.reproduce import ARMS, steps, undone
    from rrl.study.reproduce_slurm import submit
    from rrl.study.reproduce_table import write_page, write_table
    from rrl.study.reproduce_work import outlook, work_here

    given, overrides = shell.options(arguments, OPTIONS)
    target = _target(given, overrides)
    only, jobs = given["only"], _whole_number("jobs", given["jobs"] or "1")
    dry, options = shell.is_true("dry_run", given["dry_run"]), _split(given["slurm"] or "")
    every = [] if only == TABLE else _chosen(steps(target), only)
    left = undone(every)
    for step in every:
        print(f"{step.name}: {outlook(step, left) if step in left else 'is there'}")
    if dry:
        return
    if given["launcher"] == "slurm":
        own = ("launcher=", "slurm=", "jobs=", "out=", "only=")
        again = [text for text in arguments if not text.startswith(own)]
        submit(left, [*again, f"out={target.folder}"], target.folder, options, print)
        return
    if only in (None, TABLE):
        with RunLock(target.folder):
            code = work_here(left, target.folder / "logs", jobs, print)
            print(write_table(target))
        write_page(target.folder, ARMS[target.task], print)
        sys.exit(code)
    ready = [step for step in left if step.name == only]
    sys.exit(work_here(ready, target.folder / "logs", 1, print) if len(ready) == len(left) else 1)


def _target(given: Mapping[str, str | None], overrides: Sequence[str]) -> "Target":
    """The table to make; raises ConfigError with all faults of the options."""
    from rrl.records.run_directory import writable
    from rrl.study.reproduce import Target

    faults = [*_faults(given), *_misplaced(overrides)]
    if faults:
        raise ConfigError(*faults)
    task, scale = str(given["task"]), given["scale"] or "small"
    folder = Path(given["out"] or f"runs/reproduce/{task}-{scale}").expanduser().absolute()
    writable(folder, "out")
    return Target(
        task=task,
        scale=scale,
        seeds=[int(seed) for seed in (given["seeds"] or "0,1,2").split(",")],
        data=given["data"],
        limit=None if given["limit"] in (None, "null") else _whole_number("limit", str(given["limit"])),
        folder=folder,
        overrides=overrides,
    )


def _faults(given: Mapping[str, str | None]) -> Iterator[str]:
    from rrl.study.reproduce import ARMS, scales

    task, scale, data = given["task"] or "", given["scale"] or "small", given["data"]
    if task not in ARMS:
        yield f"task: expected one of {', '.join(ARMS)}, got {task!r}{nearest(task, list(ARMS))}"
    elif scale not in scales(task):
        yield f"scale: expected one of {', '.join(scales(task))}, got {scale!r}{nearest(scale, scales(task))}"
    seeds = (given["seeds"] or "0").split(",")
    if not all(seed.isdecimal() for seed in seeds) or len(set(seeds)) < len(seeds):
        yield f"seeds: expected different whole numbers with commas between them, got {given['seeds']!r}"
    if given["launcher"] not in (None, "local", "slurm"):
        yield f"launcher: expected local or slurm, got {given['launcher']!r}"
    if data is not None and not Path(data).expanduser().exists():
        yield f"data: {data!r} does not exist; expected the files of the data set, as in data.path"


def _misplaced(overrides: Sequence[str]) -> Iterator[str]:
    for key in dict.fromkeys(text.lstrip("+").partition("=")[0] for text in overrides):
        if key in PLANNED:
            yield f"{key}: is set by the plan; give {PLANNED[key]}=... instead"


def _whole_number(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{name}: expected a whole number above 0, got {text!r}")
    return int(text)


def _split(text: str) -> list[str]:
    """The options for sbatch, as a shell divides them."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"slurm: {text!r} cannot be divided ({error}); expected options for sbatch") from error


def _chosen(every: "Sequence[Step]", only: str | None) -> "Sequence[Step]":
    """The step named ``only`` with those that it needs, or all."""
    if only is None:
        return every
    names = [step.name for step in every]
    if only not in names:
        raise ConfigError(f"only: no step {only!r}{nearest(only, names)}; dry_run=true lists them")
    needs = next(step.needs for step in every if step.name == only)
    return [step for step in every if step.name == only or step.name in needs]


if __name__ == "__main__":
    main()
