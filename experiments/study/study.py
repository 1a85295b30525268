"""The runs of the study: tunes every arm, compares the tuned arms on development seeds, trains them on reported ones.

``python experiments/study/study.py TASK STAGE [JOBS [RESULTS [ARM ...]]]`` with STAGE tuning, choosing or reported;
JOBS runs at a time (2), of all arms of arms.yaml or those named. Runs lie in runs/study/TASK/STAGE/ARM; what is
finished there is left alone, and what was interrupted goes on. The values that tuning found are written to
RESULTS/TASK/tuned.json (experiments/results/study); arms that stand there are not tuned again. A task with arms of
another takes the values from there, but for keys that its own overrides set.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import protocol
from collect import RESULTS, RUNS

from rrl.errors import DataError, nearest
from rrl.records.files import modes, read_object
from rrl.records.run_directory import write_json
from rrl.study.comparison import evaluations


class Job(NamedTuple):
    """The arguments of an ``rrl-train``, the folder that it writes, and the arm."""

    arguments: Sequence[str]
    folder: Path
    arm: str


Running = tuple[Job, subprocess.Popen[bytes]]


def jobs(
    about: protocol.Protocol, stage: str, arms: Sequence[str], known: Mapping[str, Sequence[str]]
) -> Iterator[Job]:
    """What a stage still has to run, seed by seed, so that one that is interrupted has whole pairs.

    ``known`` are the tuned overrides by arm. Runs that are not reported end where arms are judged.
    """
    for seed, name in product(about.seeds[stage], arms):
        arm, folder = about.arms[name], RUNS / about.task / stage / name
        words = ["resume=auto", f"experiment={about.experiment}", f"seed={seed}", *arm.overrides]
        words.append(f"trainer.total_tokens={about.at(stage).budget}")
        if stage != "tuning":
            if arm.tuned not in known:
                where = f"not in tuned.json of {about.tuned_of}"
                raise SystemExit(f"{arm.tuned}: {where}; expected the stage tuning to be run before {stage}")
            run, own = folder / f"seed-{seed}", set(map(protocol.key_of, arm.overrides))
            if not (run / "result.json").exists():
                tuned = [text for text in known[arm.tuned] if protocol.key_of(text) not in own]
                yield Job([*words, f"run.dir={run}", *tuned], run, name)
        elif arm.tuned == name and name not in known:
            search = ["-m", "search=optuna", "search.pruner=none", f"search.n_trials={about.trials}",
                      f"search.startup_trials={about.random}", f"search.seed={about.search_seed}",
                      "run.test_freq=null"]  # fmt: skip
            values = [f"{key}={value}" for key, value in arm.search.items()]
            yield Job([*search, *words, f"hydra.sweep.dir={folder}", *values], folder, name)


def best(sweep: Path, level: str) -> list[str]:
    """The overrides of the finished trial that ended with the highest accuracy on problems of the level."""
    found = {}
    for job in sorted((sweep / "jobs").glob("*.json")):
        about = read_object(job)[0]
        if about["state"] == "finished":
            end = evaluations(sweep / job.stem)[-1]
            found[end[modes(end)[0]]["levels"][level]["accuracy"]] = about["overrides"]
    return list(found[max(found)])


def work(waiting: list[Job], at_once: int) -> Iterator[tuple[Job, bool]]:
    """Run all; each with whether it ended well, as they end. What it prints is in a file beside its folder.

    Those that run when this ends are told to save and end.
    """
    running = list[Running]()
    try:
        yield from _worked(waiting, at_once, running)
    finally:
        for _, process in running:
            process.terminate()
        for _, process in running:
            process.wait()


def _worked(waiting: list[Job], at_once: int, running: list[Running]) -> Iterator[tuple[Job, bool]]:
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


def unfit(about: protocol.Protocol, stage: str, names: Sequence[str]) -> list[str]:
    """What of the arguments does not fit the protocol."""
    faults = [f"{name}: no such arm{nearest(name, list(about.arms))}" for name in names if name not in about.arms]
    if stage not in about.seeds:
        return [*faults, f"{stage}: no such stage of {about.task}{nearest(stage, list(about.seeds))}"]
    seeds = about.seeds[stage]
    if stage == "tuning" and len(seeds) > 1:
        faults.append(f"seeds.tuning: expected one, got {list(seeds)}: an arm is tuned by one sweep, in one folder")
    return faults


def main(task: str, stage: str, at_once: str = "2", results: str = str(RESULTS), *names: str) -> None:
    """Run a stage; exit with 1 where a job failed."""
    try:
        about = protocol.read(task)
    except DataError as error:
        raise SystemExit(str(error)) from None
    unknown = unfit(about, stage, names)
    if unknown:
        raise SystemExit("\n".join(unknown))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    file = Path(results, about.tuned_of, "tuned.json")
    known = read_object(file)[0] if file.exists() else {}
    waiting = list(jobs(about, stage, names or list(about.arms), known))
    failed, total = [], len(waiting)
    for number, (job, well) in enumerate(work(waiting, int(at_once)), 1):
        print(f"{number} of {total}: {job.folder}", flush=True)
        if not well:
            failed.append(f"{job.folder}: failed; {_log(job)} says why")
        elif stage == "tuning":
            known[job.arm] = best(job.folder, about.level)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, known)
    if failed:
        raise SystemExit("\n".join(failed))


def _log(job: Job) -> Path:
    return job.folder.with_name(job.folder.name + ".log")


if __name__ == "__main__":
    main(*sys.argv[1:])
