"""Everything that the page shows, as plain data: the JSON beside it, and the blocks inside of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rrl import __version__
from rrl.study.comparable import questions
from rrl.study.page.lineage import Step, lineage
from rrl.study.page.records import RunRecords, read_runs
from rrl.study.page.results import differences, seconds, tables
from rrl.study.page.rollouts import RULE, Dump, census, chosen, dumps_of, kept_rows

FORMAT = 1
"""The version of this data."""
MADE_BY = "rrl-report"
ABOUT = ("reference", "answer", "question", "turns")
"""Texts of a problem that are kept once, whatever the number of its rollouts."""
Blocks = dict[str, Any]


def collect(arms: Mapping[str, Sequence[Path]], megabytes: float, points: int) -> tuple[dict[str, Any], Blocks]:
    """The page's ``index`` (small, read at once) and its ``blocks`` by name (read one at a time when needed).

    ``arms`` maps names to directories of runs. Keeps rollouts of ``megabytes`` of records, and ``points`` rows of each
    run's metrics. ``index["faults"]`` has a line for everything that could not be read or compared.
    """
    runs = read_runs(list(dict.fromkeys(folder for folders in arms.values() for folder in folders)), points)
    dumps = [dump for number, run in enumerate(runs) for dump in dumps_of(number, run.folder)]
    counted = census(dumps, [run.name for run in runs])
    problems = {problem: number for number, problem in enumerate(chosen(counted.sizes, int(megabytes * 1e6)))}
    groups = _groups(runs)
    results, left_out = tables(arms, runs, groups)
    index = {
        "made_by": MADE_BY,
        "format": FORMAT,
        "version": __version__,
        "made": datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds"),
        "faults": [*(fault for run in runs for fault in run.faults), *counted.faults, *left_out],
        "groups": [_label(runs, members) for members in groups],
        "arms": _arms(arms, runs),
        "runs": [_run(run, number, groups) for number, run in enumerate(runs)],
        "differences": differences(arms, runs),
        "seconds": seconds(arms, runs),
        "tables": results,
        "rule": RULE.format(megabytes=megabytes),
        "steps": [{**step, "kept": 0} for step in counted.steps],
    }
    blocks = {**_metrics(runs), **_rollouts(runs, dumps, problems, index)}
    return index, blocks


def _groups(runs: Sequence[RunRecords]) -> list[list[int]]:
    """The runs by the questions that they were measured on; those whose records do not say are with the first ones."""
    asked = [questions(run.folder) for run in runs]
    first = next((found for found in asked if found is not None), "unknown")
    groups: dict[str, list[int]] = {}
    for number, found in enumerate(asked):
        groups.setdefault(found or first, []).append(number)
    return list(groups.values())


def _task(run: RunRecords) -> str:
    data = run.config.get("data")
    return str(data.get("name", "unknown") if isinstance(data, dict) else "unknown")


def _label(runs: Sequence[RunRecords], members: Sequence[int]) -> str:
    first = next((runs[i] for i in members if runs[i].evaluations), runs[members[0]])
    asked = first.evaluations[-1].get("problems") if first.evaluations else None
    return _task(first) + (f", {asked:,} questions" if isinstance(asked, int) else "")


def _arms(arms: Mapping[str, Sequence[Path]], runs: Sequence[RunRecords]) -> list[dict[str, Any]]:
    """The arms by name, with the numbers of their runs."""
    numbers = {run.folder: number for number, run in enumerate(runs)}
    return [{"name": arm, "runs": [numbers[folder] for folder in folders]} for arm, folders in arms.items()]


def _run(run: RunRecords, number: int, groups: Sequence[Sequence[int]]) -> dict[str, Any]:
    template = run.evaluations[-1].get("template") if run.evaluations else None
    state = {key: value for key, value in asdict(run.state).items() if key in ("state", "reason", "started", "step")}
    return {
        "name": run.name,
        "seed": run.seed,
        "group": next(i for i, members in enumerate(groups) if number in members),
        **state,
        "tokens": run.state.tokens,
        "command": run.manifest.get("command", []),
        "versions": run.manifest.get("packages", {}),
        "commit": run.manifest.get("git_commit"),
        "hardware": run.manifest.get("hardware", {}),
        "template": template if isinstance(template, str) else None,
        "kept": 0,
        "of": 0,
    }


def _metrics(runs: Sequence[RunRecords]) -> Blocks:
    """``axes`` has those of every run, ``metric/<name>`` that metric of every run (null where it has none)."""
    each = [run.curves for run in runs]
    names = sorted({name for found in each for name in found["metrics"]})
    blocks = {f"metric/{name}": [found["metrics"].get(name) for found in each] for name in names}
    return {"axes": [found["axes"] for found in each], **blocks}


def _rollouts(
    runs: Sequence[RunRecords], dumps: Sequence[Dump], problems: Mapping[str, int], index: dict[str, Any]
) -> Blocks:
    """``rollouts/<run>/<source>/<step>``, ``rows`` (what is sorted by), ``states/<run>`` and ``problems/<hundred>``.

    Counts in the index what is kept.
    """
    blocks: Blocks = {}
    about: dict[int, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    trained: list[list[Step]] = [[] for _ in runs]
    for dump, step in zip(dumps, index["steps"], strict=True):
        kept = kept_rows(dump, problems)
        for row in kept:
            about.setdefault(row["p"], row["problem"])
        rows += [_sortable(dump, row) for row in kept]
        trained[dump.run] += [(dump.step, row) for row in kept if dump.source == "training"]
        step["kept"] = len(kept)
        for count in ("kept", "of"):
            index["runs"][dump.run][count] += step[count]
        if kept:
            blocks[f"rollouts/{dump.run}/{dump.source}/{dump.step}"] = [_without_problem(row) for row in kept]
    blocks["rows"] = {key: [row[key] for row in rows] for key in rows[0]} if rows else {}
    return {**blocks, **_states(runs, trained, problems, index["faults"]), **_problems(about, index)}


def _states(
    runs: Sequence[RunRecords], trained: Sequence[Sequence[Step]], problems: Mapping[str, int], faults: list[str]
) -> Blocks:
    """The lineage of each run's states, from its kept rollouts of training."""
    blocks = {f"states/{number}": lineage(run.folder, trained[number], problems) for number, run in enumerate(runs)}
    for run, found in zip(runs, blocks.values(), strict=True):
        if found["torn"]:
            what = f"{found['torn']} lines that are no event of this version of rrl"
            faults.append(f"{run.name}: states.jsonl: {what}; left out; copy the file again")
    return blocks


def _problems(about: Mapping[int, Mapping[str, Any]], index: dict[str, Any]) -> Blocks:
    """The texts of problems, a hundred to a block; the index gets their names and what they are reported by."""
    index["problems"] = [
        {"id": about[p]["id"], "level": about[p].get("level", ""), "strata": about[p].get("strata", {})}
        for p in sorted(about)
    ]
    index["of_rollouts"] = sum(step["of"] for step in index["steps"])
    texts = [{key: about[p].get(key) for key in ABOUT} for p in sorted(about)]
    return {f"problems/{start // 100}": texts[start : start + 100] for start in range(0, len(texts), 100)}


def _without_problem(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("problem", "step")}


def _sortable(dump: Dump, row: Mapping[str, Any]) -> dict[str, Any]:
    """What rollouts are sorted and filtered by."""
    numbers = row.get("numbers") or {}
    advantages, rewards = numbers.get("advantages"), numbers.get("rewards")
    evidence = row.get("evidence")
    return {
        "run": dump.run,
        "source": dump.source,
        "step": dump.step,
        "row": row["r"],
        "p": row["p"],
        "verdict": row["verdict"],
        "outcome": str(evidence["outcome"]) if isinstance(evidence, dict) and evidence.get("outcome") else None,
        "score": round(row["score"], 6),
        "reward": round(sum(rewards), 6) if rewards else None,
        "advantage": round(sum(advantages) / len(advantages), 6) if advantages else None,
        "tokens": row["tokens"],
        "finished": row["finished"],
        "replayed": row.get("replayed_from") is not None,
        "help": row.get("help"),
        "mode": row.get("mode"),
    }
