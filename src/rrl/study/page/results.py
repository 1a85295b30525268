"""The tables of a page: results, the keys in which configurations differ, seconds by phase."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rrl.config.choices import walk
from rrl.errors import DataError
from rrl.study.arms import ASIDE
from rrl.study.comparison import Measure, as_table, compare_arms, marks, plus_minus, summary, token_count
from rrl.study.page.records import RunRecords
from rrl.study.tables import Table

Arms = Mapping[str, Sequence[Path]]


def tables(
    arms: Arms, runs: Sequence[RunRecords], groups: Sequence[Sequence[int]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The tables of each group of comparable runs (``group``, title, head, rows, Markdown, LaTeX), and what is amiss.

    A group has three tables for each way of sampling that all of its finished runs have: accuracy at thirds of the
    tokens that all have generated, accuracy by level at the last of them, and what the last evaluation has beside it.
    """
    made, faults = [], []
    if len(groups) > 1:
        others = "; ".join(", ".join(runs[i].name for i in members) for members in groups)
        remedy = "choose the questions above the curves, or make a page of each"
        faults.append(f"runs of {len(groups)} kinds of questions are not compared: {others}; {remedy}")
    for number, members in enumerate(groups):
        finished = [runs[i] for i in members if runs[i].is_comparable]
        try:
            for table in _of_group(arms, finished):
                made.append({"group": number, **plain(table)})
        except DataError as error:
            faults += [f"no table of results: {fault}" for fault in error.faults]
    return made, faults


def _of_group(every: Arms, runs: Sequence[RunRecords]) -> Iterator[Table]:
    here = {run.folder for run in runs}
    some = {arm: [folder for folder in folders if folder in here] for arm, folders in every.items()}
    arms = {arm: folders for arm, folders in some.items() if folders}
    common = [mode for mode in (runs[0].modes if runs else []) if all(mode in run.modes for run in runs)]
    for mode in common:
        budgets = marks(arms, Measure("accuracy", mode, None))
        yield as_table(compare_arms(arms, Measure("accuracy", mode, None), budgets))
        levels = _levels(runs, mode)
        if len(levels) > 1:
            yield _by_level(arms, mode, levels, budgets[-1])
        yield _beside(arms, {run.folder: _figures(run.evaluations[-1][mode]) for run in runs}, mode)


def _levels(runs: Sequence[RunRecords], mode: str) -> list[str]:
    """The levels that every evaluation of every run has, in the order of the first."""
    rows = [row[mode].get("levels", {}) for run in runs for row in run.evaluations if mode in row]
    return [level for level in rows[0] if all(level in row for row in rows)] if rows else []


def _by_level(arms: Arms, mode: str, levels: Sequence[str], budget: int) -> Table:
    """Mean and half the 95 % interval over seeds at the budget, a column for each level."""
    by_level = [compare_arms(arms, Measure("accuracy", mode, level), [budget])["arms"] for level in levels]
    rows = [
        [arm, str(len(folders)), *(plus_minus(row["mean"], row["half95"]) for row in _at(by_level, arm))]
        for arm, folders in arms.items()
    ]
    title = f"Accuracy ({mode}) by level at {token_count(budget)} tokens: mean ± half of the 95 % interval over seeds"
    return Table(title, ["arm", "seeds", *levels], rows)


def _figures(part: Mapping[str, Any]) -> dict[str, float]:
    """What is known of a way of sampling: accuracy, then what explains it."""
    found = {name: part.get(name) for name in ("accuracy", "length", "truncated", "unparseable", "error_frac")}
    by_k = part.get("pass@k")
    more = {f"pass@{k}": each for k, each in by_k.items()} if isinstance(by_k, dict) else {}
    more["maj@n"] = part.get("maj@n")
    found.update({name: each.get("value") for name, each in more.items() if isinstance(each, dict)})
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _beside(arms: Arms, last: Mapping[Path, Mapping[str, float]], mode: str) -> Table:
    """What the last evaluations of all runs have beside their accuracy: mean and deviation over seeds."""
    names = [name for name in next(iter(last.values())) if all(name in each for each in last.values())]
    cells = {arm: [summary([last[run][name] for run in folders]) for name in names] for arm, folders in arms.items()}
    rows = [[arm, str(len(arms[arm])), *(plus_minus(c["mean"], c["sd"]) for c in row)] for arm, row in cells.items()]
    return Table(f"The last evaluation ({mode}): mean ± sd over seeds", ["arm", "seeds", *names], rows)


def _at(by_level: Sequence[Mapping[str, Any]], arm: str) -> list[Any]:
    return [found[arm]["values"][0] for found in by_level]


def differences(arms: Arms, runs: Sequence[RunRecords]) -> dict[str, Any]:
    """The keys in which configurations differ, with each arm's values, as a plain table."""
    leaves = {
        run.folder: {key: _told(value) for key, value in walk(run.config) if _is_shown(key, value)} for run in runs
    }
    keys = sorted({key for each in leaves.values() for key in each})
    differing = [key for key in keys if len({each.get(key) for each in leaves.values()}) > 1]
    rows = [
        [
            key,
            *(
                ", ".join(dict.fromkeys(leaves[run].get(key, "not set") for run in folders))
                for folders in arms.values()
            ),
        ]
        for key in differing
    ]
    return plain(Table("Keys in which the configurations differ", ["key", *arms], rows))


def _is_shown(key: str, value: Any) -> bool:
    return not isinstance(value, Mapping) and (key == "seed" or key.split(".")[0] not in ASIDE)


def _told(value: Any) -> str:
    """A value as in YAML; of a class of this project its name."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text.rsplit(".", 1)[-1] if text.startswith("rrl.") else text


def seconds(arms: Arms, runs: Sequence[RunRecords]) -> dict[str, Any]:
    """Seconds by phase, the mean of each arm's runs, as a plain table."""
    spent = {run.folder: run.phases for run in runs}
    names = list(dict.fromkeys(phase for each in spent.values() for phase in each))
    rows = [
        [arm, *(f"{fmean(spent[run].get(phase, 0.0) for run in folders):.1f}" for phase in names)]
        for arm, folders in arms.items()
    ]
    return plain(Table("Seconds by phase, mean of the seeds", ["arm", *names], rows))


def plain(table: Table) -> dict[str, Any]:
    """A table as data, with its Markdown and LaTeX."""
    rows = [list(row) for row in table.rows]
    content = {"title": table.title, "head": list(table.head), "rows": rows}
    return {**content, "markdown": table.markdown(), "latex": table.latex()}
