"""The runs of the study: tunes every arm, compares the tuned arms on development seeds, trains them on reported ones.

``python experiments/study/study.py TASK STAGE [JOBS [ARM ...]]`` with STAGE tuning, choosing or reported; JOBS runs at
a time (2), of all arms of arms.yaml or those named. Runs lie in runs/study/TASK/STAGE/ARM; what is finished there is
left alone, and what was interrupted goes on. The values that tuning found are written to
experiments/results/study/TASK/tuned.json.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rrl.records.files import read_object
from rrl.records.run_directory import write_json

HERE = Path(__file__).parent
STAGES = ("tuning", "choosing", "reported")


class Job(NamedTuple):
    """The arguments of an ``rrl-train``, the folder that it writes, and the arm."""

    arguments: Sequence[str]
    folder: Path
    arm: str


def tuned(task: str) -> dict[str, list[str]]:
    """The overrides that tuning found, by arm."""
    file = _tuned_file(task)
    return read_object(file)[0] if file.exists() else {}


def jobs(task: str, stage: str, plan: dict[str, Any], arms: Sequence[str]) -> Iterator[Job]:
    """What a stage still has to run, seed by seed, so that one that is interrupted has whole pairs."""
    known = tuned(task)
    for seed in plan["seeds"][stage]:
        for name in arms:
            arm, folder = plan["arms"][name], Path("runs", "study", task, stage, name)
            words = ["resume=auto", f"experiment=study/{task}", f"seed={seed}", *arm["overrides"]]
            if stage != "reported":
                words += [f"trainer.total_tokens={round(plan['judged'] * plan['budget'])}", "run.test_freq=null"]
            if stage != "tuning":
                source = arm.get("tuned", name)
                if source not in known:
                    raise SystemExit(f"{source}: not in tuned.json; expected the stage tuning to be run before {stage}")
                run = folder / f"seed-{seed}"
                if not (run / "result.json").exists():
                    yield Job([*words, f"run.dir={run}", *known[source]], run, name)
            elif "tuned" not in arm and name not in known:
                space = {**plan["search"], **arm.get("search", {})}
                search = ["-m", "search=optuna", "search.pruner=none", f"search.n_trials={plan['trials']}",
                          f"search.startup_trials={plan['random']}", f"search.seed={plan['search_seed']}"]  # fmt: skip
                values = [f"{key}={value}" for key, value in space.items()]
                yield Job([*search, *words, f"hydra.sweep.dir={folder}", *values], folder, name)


def work(waiting: list[Job], at_once: int) -> Iterator[tuple[Job, bool]]:
    """Run all; each with whether it ended well, as they end. What it prints is in a file beside its folder."""
    running = list[tuple[Job, subprocess.Popen[bytes]]]()
    while waiting or running:
        while waiting and len(running) < at_once:
            job = waiting.pop(0)
            job.folder.parent.mkdir(parents=True, exist_ok=True)
            with _log(job).open("ab") as log:
                command = [sys.executable, "-m", "rrl.cli.train", *job.arguments]
                running.append((job, subprocess.Popen(command, stdout=log, stderr=log)))
        time.sleep(0.5)
        for job, process in [pair for pair in running if pair[1].poll() is not None]:
            running.remove((job, process))
            yield job, process.returncode == 0


def main(task: str, stage: str, at_once: str = "2", *names: str) -> None:
    """Run a stage; exit with 1 where a job failed."""
    plans = yaml.safe_load((HERE / "arms.yaml").read_text(encoding="utf-8"))
    if task not in plans or stage not in STAGES:
        raise SystemExit(f"{task} {stage}: expected one of {', '.join(plans)} and one of {', '.join(STAGES)}")
    plan = plans[task]
    if unknown := set(names) - set(plan["arms"]):
        raise SystemExit(f"{', '.join(sorted(unknown))}: no such arm; expected some of {', '.join(plan['arms'])}")
    failed, waiting = [], list(jobs(task, stage, plan, names or list(plan["arms"])))
    total = len(waiting)
    for number, (job, well) in enumerate(work(waiting, int(at_once)), 1):
        print(f"{number} of {total}: {job.folder}", flush=True)
        if not well:
            failed.append(f"{job.folder}: failed; {_log(job)} says why")
        elif stage == "tuning":
            _tuned_file(task).parent.mkdir(parents=True, exist_ok=True)
            write_json(_tuned_file(task), tuned(task) | {job.arm: read_object(job.folder / "best.json")[0]["overrides"]})
    if failed:
        raise SystemExit("\n".join(failed))


def _tuned_file(task: str) -> Path:
    return HERE.parent / "results" / "study" / task / "tuned.json"


def _log(job: Job) -> Path:
    return job.folder.with_name(job.folder.name + ".log")


if __name__ == "__main__":
    main(*sys.argv[1:])
