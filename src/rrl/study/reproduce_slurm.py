"""The steps of a reproduction as jobs of SLURM, each after those that it needs."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rrl.errors import ConfigError
from rrl.records.files import read_object, write_whole
from rrl.records.run_directory import write_json
from rrl.study.reproduce_steps import Step

SCRIPT = """#!/bin/bash
# The step {name} of rrl-reproduce. Before its time limit and at a pre-emption it saves, and is queued again.
srun --ntasks=1 --cpus-per-task=${{SLURM_CPUS_PER_TASK:-1}} {command}
code=$?
[ $code = 130 ] && scontrol requeue $SLURM_JOB_ID
exit $code
"""
OPTIONS = ("--requeue", "--open-mode=append", "--signal=USR1@600", "--kill-on-invalid-dep=yes")


def submit(
    steps: Sequence[Step], arguments: Sequence[str], folder: Path, options: Sequence[str], show: Callable[[str], None]
) -> None:
    """Submit a job for each step and, after all of them, one for the table; a job that still waits or runs is kept.

    ``arguments`` are those of rrl-reproduce, ``options`` those of sbatch.
    """
    record = folder / "jobs.json"
    jobs, _ = read_object(record)
    ids: dict[str, str] = {}
    needs = {step.name: [need for need in step.needs if need in {other.name for other in steps}] for step in steps}
    for name, before in {**needs, "table": list(needs)}.items():
        after = [ids[need] for need in before]
        if name in jobs and _alive(jobs[name]):
            show(f"{name}: is there as job {jobs[name]}")
        else:
            jobs[name] = _sbatch(name, arguments, folder, [*options, *_dependency(name, after)])
            write_json(record, jobs)
            show(f"{name}: job {jobs[name]}" + (f", waits for {', '.join(before)}" if before and after else ""))
        ids[name] = jobs[name]


def _dependency(name: str, after: Sequence[str]) -> list[str]:
    """The table is made of what there is, also where a job has failed."""
    kind = "afterany" if name == "table" else "afterok"
    return [f"--dependency={':'.join([kind, *after])}"] if after else []


def _sbatch(name: str, arguments: Sequence[str], folder: Path, options: Sequence[str]) -> str:
    """Submit the step's script; returns the job's number."""
    script, log = folder / "logs" / f"{name}.sh", folder / "logs" / f"{name}.job.log"
    command = shlex.join([sys.executable, "-m", "rrl.cli.reproduce", *arguments, f"only={name}"])
    script.parent.mkdir(parents=True, exist_ok=True)
    write_whole(script, SCRIPT.format(name=name, command=command).encode())
    done = _call("sbatch", "--parsable", f"--job-name={folder.name}-{name}", f"--output={log}", *OPTIONS, *options,
                 str(script))  # fmt: skip
    if done.returncode:
        raise ConfigError(f"slurm: sbatch refuses {name}: {done.stderr.strip()}; give options as in "
                          "slurm='--partition=gpu --gpus=1 --time=24:00:00'")  # fmt: skip
    return done.stdout.strip().partition(";")[0]


def _alive(job: str) -> bool:
    """Whether SLURM still has the job: waiting or running."""
    done = _call("squeue", "--noheader", "--format=%T", f"--jobs={job}")
    return done.returncode == 0 and bool(done.stdout.strip())


def _call(*command: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise ConfigError(
            f"launcher: slurm, but there is no {command[0]} here; expected a machine of the cluster; or use "
            "launcher=local"
        ) from None
