"""Comparing arms over seeds at equal budgets: means, intervals, paired differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rrl.errors import DataError, nearest
from rrl.records.files import modes, read_object, whole_rows
from rrl.records.plots import Point
from rrl.study.tables import Table


@dataclass(frozen=True)
class Measure:
    """The compared number: held-out accuracy, or any other number in metrics.jsonl.

    ``metric`` is "accuracy" or a name in metrics.jsonl. Of an accuracy, ``mode`` is as in evaluations.jsonl (None: the
    sampled one if any, else greedy) and ``level`` a level or ``kind:stratum`` (None: all problems).
    """

    metric: str
    mode: str | None
    level: str | None

    def points(self, folder: Path) -> list[Point]:
        """The curve of a run: generated tokens, value, and the ends of its 95 % interval (or the value itself)."""
        if self.metric == "accuracy":
            rows = [(row["tokens_generated"], self._part(row, folder)) for row in evaluations(folder)]
            return [(at, part["accuracy"], *part.get("interval95", 2 * [part["accuracy"]])) for at, part in rows]
        metrics = _read_rows(folder, "metrics.jsonl")
        found = [row for row in metrics if row.get(self.metric) is not None]
        if not found:
            near = nearest(self.metric, list(dict.fromkeys(name for row in metrics for name in row)))
            raise DataError(f"{folder}: no {self.metric!r} in metrics.jsonl{near}; expected a name there")
        return [(int(row["budget/tokens_generated"]), *(3 * (row[self.metric],))) for row in found]

    def heading(self) -> str:
        if self.metric != "accuracy":
            return f"`{self.metric}`"
        mode = "" if self.mode is None else f" ({self.mode})"
        return f"held-out accuracy{mode}" + ("" if self.level is None else f" of {self.level}")

    def _part(self, row: Mapping[str, Any], folder: Path) -> Any:
        known = modes(row)
        mode = known[0] if self.mode is None else self.mode
        if mode not in known:
            raise DataError(f"{folder}: no mode {mode!r} in evaluations.jsonl; expected one of {', '.join(known)}")
        if self.level is None and "accuracy" not in row[mode]:
            raise DataError(
                f"{folder}: no accuracy of all problems in evaluations.jsonl; expected one, or give a level"
            )
        if self.level is None:
            return row[mode]
        strata = {f"{kind}:{name}": x for kind, part in row[mode].get("strata", {}).items() for name, x in part.items()}
        levels = {**row[mode]["levels"], **strata}
        if self.level not in levels:
            raise DataError(f"{folder}: no level {self.level!r}; expected one of {', '.join(levels)}, or none for all")
        return levels[self.level]


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """The evaluations of a run that can be read; raises DataError where there is none."""
    rows = [row for row in _read_rows(folder, "evaluations.jsonl") if is_evaluation(row)]
    if not rows:
        expected = "expected 'tokens_generated', and numbers as accuracies and intervals"
        raise DataError(f"{folder}: no evaluation of this version of rrl in evaluations.jsonl; {expected}")
    return rows


def is_evaluation(row: Mapping[str, Any]) -> bool:
    """Whether a row of evaluations.jsonl has what is compared, all of it numbers."""
    known = modes(row)
    return isinstance(row.get("tokens_generated"), int | float) and bool(known) and all(_sound(row[m]) for m in known)


def _sound(part: Mapping[str, Any]) -> bool:
    """Whether accuracies and intervals of a way of sampling, or of a level, are numbers."""
    interval, levels = part.get("interval95", [0, 0]), part.get("levels", {})
    numbers = [part.get("accuracy", 0), *interval] if isinstance(interval, list) and len(interval) == 2 else [None]
    inner = levels.values() if isinstance(levels, dict) else [None]
    return all(isinstance(number, int | float) for number in numbers) and all(
        isinstance(each, dict) and "accuracy" in each and _sound(each) for each in inner
    )


def _read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    if not (folder / name).is_file():
        raise DataError(f"{folder}: holds no {name}; expected the directory of a run")
    rows = whole_rows(folder / name)
    if not rows:
        raise DataError(f"{folder}: no whole row in {name}; expected one or more")
    return rows


def marks(arms: Mapping[str, Sequence[Path]], measure: Measure) -> list[int]:
    """Thirds of the tokens that all runs have generated, to two digits, where all have a value; else all of them."""
    curves = [measure.points(folder) for folders in arms.values() for folder in folders]
    begin, end = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    rounded = int(float(f"{end:.6e}"[:3] + "e" + f"{end:.6e}"[-3:])) if end else 0
    return [mark for mark in (rounded // 3, 2 * rounded // 3, rounded) if mark and mark >= begin] or [int(end)]


def compare_arms(arms: Mapping[str, Sequence[Path]], measure: Measure, marks: Sequence[int]) -> dict[str, Any]:
    """The measure of each arm at each budget of generated tokens, over seeds, and its difference from the first arm.

    ``arms`` maps a name to run directories. Values between evaluations are interpolated linearly. Intervals are 95 % by
    Student's t over seeds. Differences are paired by seed, and need the same seeds in both arms.
    """
    _refuse_mixed_modes(arms, measure)
    arms = {arm: sorted(folders, key=seed_of) for arm, folders in arms.items()}
    seeds = {arm: [seed_of(folder) for folder in folders] for arm, folders in arms.items()}
    curves = {
        arm: [[point[:2] for point in measure.points(folder)] for folder in folders] for arm, folders in arms.items()
    }
    _refuse_beyond(arms, curves, marks)
    heights = {arm: [[at(curve, mark) for curve in rows] for mark in marks] for arm, rows in curves.items()}
    name = next(iter(heights))
    first = heights[name]
    result: dict[str, Any] = {"measure": measure.heading(), **asdict(measure), "tokens": list(marks), "arms": {}}
    for arm, by_mark in heights.items():
        row: dict[str, Any] = {"seeds": len(by_mark[0]), "values": [summary(values) for values in by_mark]}
        if seeds[arm] == seeds[name] and len(set(seeds[arm])) == len(seeds[arm]):
            pairs = zip(by_mark, first, strict=True)
            row["minus_first"] = [summary([a - b for a, b in zip(x, y, strict=True)]) for x, y in pairs]
        if measure.metric == "accuracy":
            row["tokens_to_half"] = [tokens_to(curve, 0.5) for curve in curves[arm]]
        result["arms"][arm] = row
    return result


def seed_of(folder: Path) -> int:
    """The seed in a run's manifest."""
    manifest, faults = read_object(folder / "manifest.json")
    if faults or not isinstance(manifest.get("seed"), int):
        why = faults[0] if faults else "holds no manifest.json with a seed"
        raise DataError(f"{folder}: {why}; expected the directory of a run")
    return int(manifest["seed"])


def _refuse_mixed_modes(arms: Mapping[str, Sequence[Path]], measure: Measure) -> None:
    """Raise DataError where runs would be compared by different ways of sampling because none is given."""
    if measure.metric != "accuracy" or measure.mode is not None:
        return
    folders = [folder for each in arms.values() for folder in each]
    first = {modes(evaluations(folder)[-1])[0]: folder for folder in folders}
    if len(first) > 1:
        found = [f"{folder}: evaluated by {mode}, others are not; expected one mode" for mode, folder in first.items()]
        raise DataError(*found, "remedy: give a mode that all of them have, as in mode=greedy")


def _refuse_beyond(
    arms: Mapping[str, Sequence[Path]], curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    marks: Sequence[int],
) -> None:  # fmt: skip
    """Raise DataError for runs that ended before the largest budget, or have no value yet at the smallest."""
    least, most = min(marks), max(marks)
    every = [(folder, curves[arm][number]) for arm, folders in arms.items() for number, folder in enumerate(folders)]
    short = [
        f"{folder}: its last evaluation is at {curve[-1][0]} tokens; expected {most} or more"
        for folder, curve in every
        if curve[-1][0] < most
    ]
    late = [
        f"{folder}: its first value is at {curve[0][0]} tokens; expected {least} or less"
        for folder, curve in every
        if curve[0][0] > least
    ]
    if short or late:
        remedy = "finish these runs, or compare at smaller budgets" if short else "compare at larger budgets"
        raise DataError(*short, *late, f"remedy: {remedy} with tokens=...")


def at(curve: Sequence[tuple[float, float]], place: float) -> float:
    """The curve's height at a budget (of tokens, steps or seconds), interpolated; its first height before its
    beginning, its last beyond the end."""
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 <= place <= x1:
            return y0 + (y1 - y0) * (place - x0) / (x1 - x0 or 1)
    return curve[0 if place < curve[0][0] else -1][1]


def tokens_to(curve: Sequence[tuple[float, float]], height: float) -> int | None:
    """The budget at which the curve first reaches a height, interpolated; None if it never does."""
    if curve[0][1] >= height:
        return round(curve[0][0])
    for (x0, y0), (x1, y1) in pairwise(curve):
        if y0 < height <= y1:
            return round(x0 + (x1 - x0) * (height - y0) / (y1 - y0))
    return None


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (n-1) and half the 95 % interval (Student's t); None for a single value."""
    n = len(values)
    deviation = stdev(values) if n > 1 else None
    half = None if deviation is None else students_quantile(n - 1) * deviation / math.sqrt(n)
    return {"mean": fmean(values), "sd": deviation, "half95": half, "values": list(values)}


@cache
def students_quantile(freedom: int) -> float:
    """Student's t below which 97.5 % of the values lie, for so many degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


def as_markdown(result: Mapping[str, Any]) -> str:
    """The comparison as a table in Markdown."""
    return as_table(result).markdown()


def as_table(result: Mapping[str, Any]) -> Table:
    """The comparison: mean and deviation over seeds, and the paired difference from the first arm."""
    heads = [token_count(mark) for mark in result["tokens"]]
    title = f"{result['measure'][:1].upper()}{result['measure'][1:]} by generated tokens: mean ± sd over seeds"
    rows = []
    for number, (arm, row) in enumerate(result["arms"].items()):
        cells = [plus_minus(cell["mean"], cell["sd"]) for cell in row["values"]]
        difference = row.get("minus_first", [None])[-1]
        last = "" if difference is None or number == 0 else plus_minus(difference["mean"], difference["half95"])
        rows.append([arm, str(row["seeds"]), *cells, last])
    return Table(title, ["arm", "seeds", *heads, f"minus first arm at {heads[-1]} (95 %)"], rows)


def token_count(tokens: int) -> str:
    """A number of tokens as text: 300 k, 1.5 k, 640."""
    return f"{tokens / 1000:,g} k" if tokens >= 1000 and tokens % 100 == 0 else f"{tokens:,}"


def plus_minus(mean: float, spread: float | None) -> str:
    """Three decimals, or four digits where these would be too many or too few."""
    size = max(abs(mean), spread or 0.0)
    form = ".3f" if size == 0 or 0.001 <= size < 100 else ".4g"
    return f"{mean:{form}}" if spread is None else f"{mean:{form}} ± {spread:{form}}"
