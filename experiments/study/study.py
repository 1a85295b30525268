"""The runs of the study: tunes every arm, compares the tuned arms on development seeds, trains them on reported ones.

``python experiments/study/study.py TASK STAGE [JOBS [RESULTS [ARM ...]]]`` with STAGE tuning, choosing or reported;
JOBS runs at a time (2), of all arms of arms.yml or those named. Runs lie in runs/study/TASK/STAGE/ARM; what is
finished there is left alone, and what was interrupted goes on. The values that tuning found are written to
RESULTS/TASK/tuned.json (experiments/results/study); arms that stand there are not tuned again. A task with arms of
another takes the values from there, but for keys that its own overrides set. Everything is checked
before the first run.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import NamedTuple

import protocol
from collect import RESULTS, RUNS

from rrl.config.check import load
from rrl.errors import ConfigError, DataError, UsageError, nearest
from rrl.records.files import modes, read_object
from rrl.records.run_directory import writable, write_json
from rrl.study.comparison import at, evaluations
from rrl.study.sweep_plan import check_plan, read_plan


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


def check(waiting: Sequence[Job]) -> None:
    """Raise ConfigError with the faults of what would be started; of an arm's runs the first is composed."""
    faults = []
    for job in {job.arm: job for job in reversed(waiting)}.values():
        try:
            if "-m" in job.arguments:
                check_plan(read_plan(job.arguments))
            else:
                load("train", [text for text in job.arguments if not text.startswith("resume=")])
        except UsageError as error:
            faults += [f"arm {job.arm}: {fault}" for fault in error.faults]
    if faults:
        raise ConfigError(*faults)


def best(sweep: Path, level: str, tokens: float) -> list[str]:
    """The overrides of the first finished trial with the highest accuracy on problems of the level after ``tokens``.

    Raises DataError where there is none.
    """
    found = {}
    for job in sorted((sweep / "jobs").glob("*.json")):
        about = read_object(job)[0]
        if about.get("state") == "finished":
            rows = evaluations(sweep / job.stem)
            mode = modes(rows[0])[0]
            if level not in (levels := rows[0][mode]["levels"]):
                raise DataError(f"{sweep / job.stem}: has no level {level!r}{nearest(level, list(levels))}; expected "
                                "the level of arms.yml; correct it there")  # fmt: skip
            curve = [(row["tokens_generated"], row[mode]["levels"][level]["accuracy"]) for row in rows]
            found.setdefault(at(curve, tokens), about["overrides"])
    if not found:
        raise DataError(f"{sweep}: no trial finished; expected one or more; {sweep.name}.log beside it says why")
    return list(found[max(found)])


@contextmanager
def alone(folder: Path, arms: Sequence[str]) -> Iterator[None]:
    """Of each arm the only program that has it run; raises DataError where there is another."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        busy = [arm for arm in arms if not _locked(held, folder / f".{arm}.lock")]
        if busy:
            raise DataError(
                f"{folder}: another study.py is at work on {', '.join(busy)}; expected one at a time; wait for its "
                "end, stop it, or name other arms"
            )
        yield


def _locked(held: ExitStack, path: Path, how: int = fcntl.LOCK_NB) -> bool:
    """Lock a file or a folder until ``held`` ends, or this process does."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o644)
    held.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | how)
    except BlockingIOError:
        return False
    return True


def keep(file: Path, arm: str, overrides: Sequence[str]) -> None:
    """Add what tuning an arm found, beside what others have written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        _locked(held, file.parent, 0)
        write_json(file, protocol.tuned(file) | {arm: list(overrides)})


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        about = protocol.read(task)
        file = Path(results, about.tuned_of, protocol.TUNED)
        arms = _asked(about, stage, at_once, names)
        writable(file.parent, "RESULTS")
        writable(RUNS, "the working directory")
        waiting = list(jobs(about, stage, arms, protocol.tuned(file)))
        check(waiting)
        with alone(RUNS / task / stage, list(dict.fromkeys(job.arm for job in waiting))):
            failed = _done(waiting, int(at_once), file, about)
    except UsageError as error:
        raise SystemExit(str(error)) from None
    if failed:
        raise SystemExit("\n".join(failed))


def _asked(about: protocol.Protocol, stage: str, at_once: str, names: Sequence[str]) -> list[str]:
    """The arms that are asked for, each once; all faults of the arguments end the program."""
    faults = unfit(about, stage, names)
    if not at_once.isdecimal() or int(at_once) < 1:
        faults.append(f"JOBS: expected a whole number from 1 of runs at a time, got {at_once!r}")
    if faults:
        raise SystemExit("\n".join(faults))
    return list(dict.fromkeys(names or about.arms))


def _done(waiting: list[Job], at_once: int, file: Path, about: protocol.Protocol) -> list[str]:
    """Run all, keep what tuning found; a text for each that failed."""
    failed, total = [], len(waiting)
    for number, (job, well) in enumerate(work(waiting, at_once), 1):
        print(f"{number} of {total}: {job.folder}", flush=True)
        try:
            if not well:
                failed.append(f"{job.folder}: failed; {_log(job)} says why")
            elif "-m" in job.arguments:
                keep(file, job.arm, best(job.folder, about.level, about.judged * about.budget))
        except DataError as error:
            failed += error.faults
    return failed


def _log(job: Job) -> Path:
    return job.folder.with_name(job.folder.name + ".log")


if __name__ == "__main__":
    protocol.run(main, __doc__)
