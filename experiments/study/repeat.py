"""Repeats one run of the study from its kept line, and says where the two differ: the code or the processor changed.

``python experiments/study/repeat.py TASK ARM SEED [STAGE [RESULTS]]`` with STAGE reported or choosing, of
RESULTS/TASK/STAGE.jsonl (experiments/results/study). The run lies in runs/repeat/TASK/STAGE/ARM; one that was
interrupted goes on, one that has ended is refused. Exits with 1 where something differs. Seconds, dates and
versions are not compared.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import protocol
from collect import RESULTS, RUNS, Line, line_of, lines_in

from rrl.errors import DataError, nearest

MEASURED = ("tokens", "step", "first_solves", "entropy", "replay", "unsolved", "accuracy", "pass")
"""What a line has for each evaluation, and a repetition has to have too."""
SHOWN = 3


def kept(path: Path, arm: str, seed: str) -> Line:
    """The line of a run; raises DataError where there is none."""
    lines = lines_in(path)
    seeds = {str(line["seed"]): line for line in lines if line["arm"] == arm}
    if seed in seeds:
        return seeds[seed]
    arms = list(dict.fromkeys(line["arm"] for line in lines))
    near, known = (f" with seed {seed}", seeds) if seeds else (nearest(arm, arms), arms)
    raise DataError(f"{path}: no line of arm {arm!r}{near}; expected one of {', '.join(known) or 'none'}")


def measured(line: Line) -> list[dict[str, Any]]:
    """What each evaluation of a line has, by name."""
    lists = dict(_lists("", {name: line[name] for name in MEASURED}))
    return [{name: values[place] for name, values in lists.items()} for place in range(len(line["step"]))]


def difference(old: Line, new: Line) -> str | None:
    """The first evaluation in which two lines differ, and in what; None where they agree."""
    first, second = measured(old), measured(new)
    for before, now in zip(first, second, strict=False):
        names = [name for name in before if before[name] != now.get(name)]
        if names:
            what = (f"{name} {before[name]} in the line, {now.get(name)} here" for name in names[:SHOWN])
            return f"differs from step {before['step']} on: {'; '.join(what)}"
    few = f"has {len(first)} evaluations in the line, {len(second)} here"
    return few if len(first) != len(second) else None


def _lists(name: str, found: Any) -> Iterator[tuple[str, Sequence[Any]]]:
    """Every list below ``found`` with the names that lead to it; what was not recorded has none."""
    if isinstance(found, Mapping):
        for key, value in found.items():
            yield from _lists(f"{name}/{key}" if name else key, value)
    elif found is not None:
        yield name, found


def repeated(line: Line, arm: protocol.Arm, folder: Path) -> Line:
    """The line of the same run, made here; raises DataError where it fails or has ended before.

    What ``arm`` sets today and the line does not was a default when the line was made.
    """
    run, own = folder / f"seed-{line['seed']}", set(map(protocol.key_of, line["overrides"]))
    if (run / "result.json").exists():
        raise DataError(f"{run}: a run that has ended; expected none, or one that was interrupted; remove the folder")
    since = [text for text in arm.overrides if protocol.key_of(text) not in own]
    words = ["resume=auto", f"seed={line['seed']}", f"run.dir={run}", *line["overrides"], *since]
    done = subprocess.run([sys.executable, "-m", "rrl.cli.train", *words], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise DataError(f"{run}: rrl-train ended with {done.returncode}; expected a whole run; see above")
    return line_of(run, folder)


def main(task: str, arm: str, seed: str, stage: str = "reported", results: str = str(RESULTS)) -> None:
    """Repeat, compare, print; exit with 1 where something differs."""
    if stage not in ("reported", "choosing"):
        raise DataError(f"STAGE: expected reported or choosing, got {stage!r}")
    about, line = protocol.read(task), kept(Path(results, task, f"{stage}.jsonl"), arm, seed)
    if arm not in about.arms:
        near = nearest(arm, list(about.arms))
        version = f"or the version {line['code']}"
        raise DataError(f"{task}: no arm {arm!r} any more{near}; expected one of arms.yml, {version}")
    new = repeated(line, about.arms[arm], RUNS.parent / "repeat" / task / stage / arm)
    found = difference(line, new)
    print(f"{task} {arm} seed {seed}: {found or 'the same at every evaluation'}")
    if found:
        print(f"made on {line['processor']} by {line['code']}; here {new['processor']} by {new['code']}")
        sys.exit(1)


if __name__ == "__main__":
    protocol.run(main, __doc__)
