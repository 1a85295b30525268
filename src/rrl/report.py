"""Comparing arms over seeds at equal budgets: means, intervals, paired differences."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rrl.errors import DataError
from rrl.plots import read_jsonl

T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t, 97.5 % quantile, for 1 to 10 degrees of freedom (any statistics table)."""


def compare(arms: Mapping[str, Sequence[Path]], mode: str, level: str, marks: Sequence[int]) -> dict[str, Any]:
    """Accuracy of each arm at each budget of generated tokens, over seeds, and its difference from the first arm.

    ``arms`` maps a name to run directories. An accuracy between two evaluations is interpolated linearly. Intervals
    are 95 % by Student's t over seeds. Differences are paired by seed; they need the same seeds in both arms.
    """
    arms = {arm: sorted(folders, key=seed_of) for arm, folders in arms.items()}
    seeds = {arm: [seed_of(folder) for folder in folders] for arm, folders in arms.items()}
    curves = {arm: [accuracy_curve(folder, mode, level) for folder in folders] for arm, folders in arms.items()}
    _refuse_short_runs(arms, curves, max(marks))
    heights = {arm: [[at(curve, mark) for curve in rows] for mark in marks] for arm, rows in curves.items()}
    name = next(iter(heights))
    first = heights[name]
    result: dict[str, Any] = {"mode": mode, "level": level, "tokens": list(marks), "arms": {}}
    for arm, by_mark in heights.items():
        row: dict[str, Any] = {"seeds": len(by_mark[0]), "accuracy": [summary(values) for values in by_mark]}
        if seeds[arm] == seeds[name] and len(set(seeds[arm])) == len(seeds[arm]):
            pairs = zip(by_mark, first, strict=True)
            row["minus_first"] = [summary([a - b for a, b in zip(x, y, strict=True)]) for x, y in pairs]
        row["tokens_to_half"] = [tokens_to(curve, 0.5) for curve in curves[arm]]
        result["arms"][arm] = row
    return result


def accuracy_curve(folder: Path, mode: str, level: str) -> list[tuple[int, float]]:
    """(generated tokens, held-out accuracy) of every evaluation of a run."""
    path = folder / "evaluations.jsonl"
    if not path.is_file():
        raise DataError(f"{folder}: holds no evaluations.jsonl; expected the directory of a run")
    rows = read_jsonl(path)
    known = [key for key, part in rows[0].items() if isinstance(part, dict)]
    if mode not in known or level not in rows[0][mode]["levels"]:
        raise DataError(
            f"{path}: has no {mode!r} of level {level!r}; it has {known} with {list(rows[0][known[0]]['levels'])}"
        )
    return [(row["tokens_generated"], row[mode]["levels"][level]["accuracy"]) for row in rows]


def seed_of(folder: Path) -> int:
    """The seed that a run was made with, by its manifest."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise DataError(f"{folder}: holds no manifest.json; expected the directory of a run")
    return int(json.loads(path.read_text(encoding="utf-8"))["seed"])


def _refuse_short_runs(
    arms: Mapping[str, Sequence[Path]], curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]], tokens: int
) -> None:
    """A run that ended early says nothing about a larger budget."""
    short = [
        f"{folder}: its last evaluation is at {curve[-1][0]} tokens; expected {tokens} or more"
        for arm, folders in arms.items()
        for folder, curve in zip(folders, curves[arm], strict=True)
        if curve[-1][0] < tokens
    ]
    if short:
        raise DataError(*short, "remedy: let these runs come to their end, or compare at smaller budgets by tokens=...")


def at(curve: Sequence[tuple[int, float]], tokens: int) -> float:
    """The curve's height at a budget, interpolated; its last height beyond the end."""
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 <= tokens <= x1:
            return y0 + (y1 - y0) * (tokens - x0) / max(1, x1 - x0)
    return curve[-1][1]


def tokens_to(curve: Sequence[tuple[int, float]], height: float) -> int | None:
    """The budget at which the curve first reaches a height, interpolated; None if it never does."""
    if curve[0][1] >= height:
        return curve[0][0]
    for (x0, y0), (x1, y1) in pairwise(curve):
        if y0 < height <= y1:
            return round(x0 + (x1 - x0) * (height - y0) / (y1 - y0))
    return None


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (n-1) and half the 95 % interval (Student's t); None for a single value."""
    n = len(values)
    deviation = stdev(values) if n > 1 else None
    half = None if deviation is None else t975(n - 1) * deviation / math.sqrt(n)
    return {"mean": fmean(values), "sd": deviation, "half95": half, "values": list(values)}


def t975(freedom: int) -> float:
    """Student's t, 97.5 % quantile; beyond the table by its expansion around the normal quantile z.

    t = z + (z^3 + z) / 4v + (5 z^5 + 16 z^3 + 3 z) / 96 v^2 (Abramowitz and Stegun, 26.7.5, its first terms).
    """
    if freedom <= len(T975):
        return T975[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def as_markdown(result: Mapping[str, Any]) -> str:
    """The comparison as a table: mean and deviation over seeds, and the paired difference from the first arm."""
    heads = [f"{mark // 1000} k" for mark in result["tokens"]]
    lines = [
        f"Held-out accuracy of level {result['level']} ({result['mode']}) by generated tokens: mean ± sd over seeds",
        "",
        f"| arm | seeds | {' | '.join(heads)} | minus first arm at {heads[-1]} (95 %) |",
        "| --- " * (len(heads) + 3) + "|",
    ]
    for arm, row in result["arms"].items():
        cells = [_plus_minus(cell["mean"], cell["sd"]) for cell in row["accuracy"]]
        difference = row.get("minus_first", [None])[-1]
        last = "" if difference is None else _plus_minus(difference["mean"], difference["half95"])
        lines.append(f"| {arm} | {row['seeds']} | {' | '.join(cells)} | {last} |")
    return "\n".join(lines) + "\n"


def _plus_minus(mean: float, spread: float | None) -> str:
    return f"{mean:.3f}" if spread is None else f"{mean:.3f} ± {spread:.3f}"
