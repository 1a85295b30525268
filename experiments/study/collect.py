"""Collects the finished runs of the study into one line of JSON each, small enough to be committed.

``python experiments/study/collect.py TASK [RUNS] [RESULTS]`` reads RUNS/TASK/<stage>/<arm>/<any folders> (runs/study),
and adds to RESULTS/TASK/<stage>.jsonl (experiments/results/study). Lines of runs that are no longer there stay.
"""

import hashlib
import json
import platform
import socket
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import protocol

from rrl.errors import DataError, nearest
from rrl.records.files import modes, read_object, read_yaml, whole_rows, write_whole
from rrl.records.status import read_state
from rrl.study.arms import runs_below
from rrl.study.comparable import questions
from rrl.study.comparison import evaluations, seed_of

RUNS, RESULTS = Path("runs", "study"), Path("experiments", "results", "study")
NAMES = (
    "arm", "seed", "run", "config", "overrides", "started", "code", "processor", "questions", "tokens", "step",
    "seconds", "first_solves", "entropy", "replay", "unsolved", "accuracy", "k", "pass",
)  # fmt: skip
"""What a line has; ``line_of`` explains it."""
Line = dict[str, Any]


def collect(about: protocol.Protocol, runs: Path, results: Path) -> list[str]:
    """Add the finished runs of each stage to its file; a line of text for each file, and for each run left out.

    Raises DataError, and changes no file, where two runs claim one place.
    """
    texts: list[str] = []
    written: dict[Path, list[Line]] = {}
    faults: list[str] = []
    for stage in about.seeds:
        path = results / about.task / f"{stage}.jsonl"
        new, left_out, wrong = found_in(about, runs / about.task / stage, stage)
        lines, counts, again = merged(lines_in(path), [] if wrong else new, stage, path)
        faults += [*wrong, *again]
        texts += left_out
        if new:
            written[path] = lines
            texts.append(f"{path}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    if faults:
        raise DataError(*faults)
    for path, lines in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, "".join(compact(line) for line in lines).encode())
    return texts


def found_in(about: protocol.Protocol, folder: Path, stage: str) -> tuple[list[Line], list[str], list[str]]:
    """The lines of a stage's finished runs, a text for each run that is left out, and all faults."""
    lines: list[Line] = []
    left_out: list[str] = []
    faults: list[str] = []
    arms = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for arm in arms:
        if arm.name not in about.arms:
            near = nearest(arm.name, list(about.arms))
            faults.append(f"{arm}: arms.yml has no arm {arm.name!r} of {about.task}{near}")
            continue
        for run in runs_below(arm):
            state = read_state(run).state
            if state != "finished":
                left_out.append(f"left out: {run} ({state})")
                continue
            line = line_of(run, arm)
            if line["seed"] not in about.seeds[stage]:
                seeds = ", ".join(map(str, about.seeds[stage]))
                faults.append(f"{run}: seed {line['seed']} is none of {stage}; expected one of {seeds}")
            lines.append(line)
    return lines, left_out, faults + twice(lines, stage, folder)


def twice(lines: Sequence[Line], stage: str, folder: Path) -> list[str]:
    """A fault for each two runs of one arm and seed; in tuning every run is a trial of its own."""
    groups = defaultdict[Any, list[Line]](list)
    for line in lines:
        groups[place(line, stage)].append(line)
    return [
        f"{folder / one['run']} and {folder / other['run']}: both are arm {one['arm']!r} with seed {one['seed']}, of "
        f"{'the same configuration' if one['config'] == other['config'] else 'different configurations'}; expected "
        "one run of an arm and seed; move one of them elsewhere"
        for group in groups.values()
        for one, other in pairwise(group)
    ]


def place(line: Mapping[str, Any], stage: str) -> tuple[str, int | str]:
    """What may have one line."""
    return line["arm"], line["run"] if stage == "tuning" else line["seed"]


def lines_in(path: Path) -> list[Line]:
    """The lines of a file of results; raises DataError for one that is none."""
    texts = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    lines: list[Line] = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            lines.append({name: line[name] for name in NAMES})
        except (ValueError, KeyError, TypeError) as error:
            expected = "expected what collect.py writes; restore the file from git, or remove the line"
            raise DataError(f"{path}:{number}: no line of this study ({error!r}); {expected}") from error
    return lines


def merged(
    old: Sequence[Line], new: Sequence[Line], stage: str, path: Path
) -> tuple[list[Line], dict[str, int], list[str]]:
    """All lines in order, how many came how, and a fault for each other run of what is there already."""
    kept = {place(line, stage): line for line in old}
    counts = dict.fromkeys(("new", "as before", "of another configuration than before"), 0)
    faults = []
    for line in new:
        before = kept.get(place(line, stage))
        if before is None:
            counts["new"] += 1
        elif before["config"] != line["config"]:
            counts["of another configuration than before"] += 1
        elif before["started"] == line["started"]:
            counts["as before"] += 1
        else:
            faults.append(
                f"{path}: has arm {line['arm']!r} with seed {line['seed']} from {before['run']}, started "
                f"{before['started']}; {line['run']}, started {line['started']}, is another run of the same "
                "configuration; expected one run of an arm and seed; remove that line or this run, or give RESULTS"
            )
        kept[place(line, stage)] = line
    counts["kept"] = len(kept) - len(new)
    return sorted(kept.values(), key=lambda line: (line["arm"], line["seed"], line["run"])), counts, faults


def compact(line: Line) -> str:
    return json.dumps(line, separators=(",", ":")) + "\n"


def line_of(run: Path, arm: Path) -> Line:
    """What the tables need of a run. ``tokens``, ``step`` and all other lists have one value for each evaluation.

    ``seconds`` are those of training so far, without evaluations and saving. ``accuracy`` is by way of sampling and
    level, ``pass`` is pass@k of the largest k by level. ``first_solves`` are counted so far, ``unsolved`` is the share
    of the problems tried so far that were never solved; ``entropy`` and ``replay`` (the share of replayed starts) are
    means over the steps since the evaluation before. None is what a run does not record.
    """
    manifest, _ = read_object(run / "manifest.json")
    points, rows = evaluations(run), whole_rows(run / "metrics.jsonl")
    sampled = modes(points[-1])[0]
    most = max((int(k) for k in points[-1][sampled].get("pass@k") or {}), default=None)
    steps = [int(point["step"]) for point in points]
    sums = {name: so_far(rows, steps, key) for name, key in (("seconds", "timing_s/step"),
                                                              ("first_solves", "replay/first_solves"))}  # fmt: skip
    means = {name: since(rows, steps, key) for name, key in (("entropy", "actor/entropy"), ("replay", "replay/ratio"))}
    return {
        "arm": arm.name,
        "seed": seed_of(run),
        "run": run.relative_to(arm.parent).as_posix(),
        "config": configuration(run),
        "overrides": overrides(manifest),
        "started": manifest.get("started"),
        "code": manifest.get("git_commit"),
        "processor": processor(run),
        "questions": questions(run),
        "tokens": [int(point["tokens_generated"]) for point in points],
        "step": steps,
        **sums,
        **means,
        "unsolved": last(rows, steps, "explore/unsolved_frac"),
        "accuracy": {mode: by_level([point[mode] for point in points], "accuracy") for mode in modes(points[-1])},
        "k": most,
        "pass": None if most is None else by_level([point[sampled] for point in points], str(most)),
    }


def configuration(run: Path) -> str:
    """A hash of the configuration without its seed and place; paths below the working directory count from there."""
    config, faults = read_yaml(run / "config.yaml")
    if faults or not isinstance(config, dict):
        why = faults[0] if faults else "config.yaml is no mapping"
        raise DataError(f"{run}: {why}; expected a run's configuration")
    own = {key: value for key, value in config.items() if key != "seed"}
    own["run"] = {key: value for key, value in (config.get("run") or {}).items() if key != "dir"}
    text = json.dumps(own, sort_keys=True, default=str).replace(f"{Path.cwd()}/", "")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def overrides(manifest: Mapping[str, Any]) -> list[str]:
    """The overrides of the run's command, without its seed and place."""
    return [text for text in manifest.get("command", [])[1:] if not text.startswith(("seed=", "run.dir=", "resume="))]


def processor(run: Path) -> str | None:
    """This machine's processor, if the run was made on it: kinds of one name round differently."""
    if read_object(run / "status.json")[0].get("host") != socket.gethostname():
        return None
    about = Path("/proc/cpuinfo")
    lines = about.read_text().partition("\n\n")[0].splitlines() if about.is_file() else []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = said.get("model name") or platform.processor() or platform.machine()
    kind = [f"{key} {said[key]}" for key in ("cpu family", "model") if key in said]
    return f"{name} ({', '.join(kind)})" if kind else name


def by_level(parts: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[float | None]]:
    """The accuracies, or pass@k for a number k as ``name``, of all problems and of each level."""
    levels = list(parts[-1].get("levels", {}))
    found = {"all": [_value(part, name) for part in parts]}
    found |= {level: [_value(part.get("levels", {}).get(level, {}), name) for part in parts] for level in levels}
    return {level: values for level, values in found.items() if any(value is not None for value in values)}


def _value(part: Mapping[str, Any], name: str) -> float | None:
    value = part.get("accuracy") if name == "accuracy" else part.get("pass@k", {}).get(name, {}).get("value")
    return None if value is None else round(value, 6)


def so_far(rows: Sequence[Mapping[str, Any]], steps: Iterable[int], name: str) -> list[float] | None:
    """Sums up to each of the steps; None of what no row has."""
    if all(row.get(name) is None for row in rows):
        return None
    parts = (sum(row.get(name) or 0.0 for row in between) for between in _between(rows, steps))
    return [round(total, 3) for total in accumulate(parts)]


def since(rows: Sequence[Mapping[str, Any]], steps: Iterable[int], name: str) -> list[float | None]:
    """Means over the rows since the step before; None where no row has it."""
    found = [[row[name] for row in between if row.get(name) is not None] for between in _between(rows, steps)]
    return [round(fmean(values), 6) if values else None for values in found]


def last(rows: Sequence[Mapping[str, Any]], steps: Iterable[int], name: str) -> list[float | None]:
    """The latest value at each of the steps."""
    found = [[row[name] for row in rows if row["step"] <= step and row.get(name) is not None] for step in steps]
    return [round(values[-1], 6) if values else None for values in found]


def _between(rows: Sequence[Mapping[str, Any]], steps: Iterable[int]) -> list[list[Mapping[str, Any]]]:
    """The rows after each step's forerunner and up to it."""
    return [[row for row in rows if low < row["step"] <= high] for low, high in pairwise([-1, *steps])]


def main(task: str, runs: str = str(RUNS), results: str = str(RESULTS)) -> None:
    """Collect, and print what was done."""
    try:
        print("\n".join(collect(protocol.read(task), Path(runs), Path(results))) or f"{runs}/{task}: no finished run")
    except DataError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    protocol.run(main, __doc__)
