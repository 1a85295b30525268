"""The numbers of runs as curves over four axes: steps, generated tokens, trained tokens, seconds; thinned evenly."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

AXES = {
    "step": "step",
    "generated": "budget/tokens_generated",
    "trained": "budget/tokens_trained",
}
"""Names of axes, and the numbers of metrics.jsonl that they are; ``seconds`` is the sum of ``SECONDS`` so far."""
SECONDS = ("timing_s/step", "timing_s/testing", "timing_s/save_checkpoint")
ACCURACY = "accuracy"
Row = Mapping[str, Any]
Rows = Sequence[Row]


def curves(metrics: Rows, evaluations: Rows, most: int) -> dict[str, Any]:
    """A run's ``axes`` (name to numbers, one for each row that is shown), and ``metrics`` over them.

    A metric is ``{"at": rows, "y": numbers}``, an accuracy (``accuracy/<mode>``, with ``/<level>``) has the ends of its
    95 % interval too. Of more than ``most`` rows those are shown that are evenly apart, and those with an evaluation.
    """
    rows = _with_axes(metrics, evaluations)
    shown = _evenly(len(rows), most) | {i for i, row in enumerate(rows) if row["evaluation"] is not None}
    rows = [row for i, row in enumerate(rows) if i in shown]
    names = sorted({name for row in rows for name in row["numbers"]})
    columns = {name: _column(name, rows) for name in names}
    axes = {axis: [row["axes"][axis] for row in rows] for axis in (*AXES, "seconds")}
    return {"axes": axes, "metrics": {**_accuracies(rows), **{name: c for name, c in columns.items() if c["y"]}}}


def phases(metrics: Rows) -> dict[str, float]:
    """The seconds of all steps by phase, the longest first."""
    sums: dict[str, float] = {}
    for row in metrics:
        for name, value in row.items():
            phase = name.removeprefix("timing_s/")
            if phase not in (name, "step") and _is_number(value):
                sums[phase] = sums.get(phase, 0.0) + value
    return {name: round(sums[name], 3) for name in sorted(sums, key=lambda name: -sums[name])}


def _with_axes(metrics: Rows, evaluations: Rows) -> list[dict[str, Any]]:
    """A row for each step with a metric or an evaluation."""
    numbers, measured = ({row["step"]: row for row in rows} for rows in (metrics, evaluations))
    steps = sorted(numbers.keys() | measured.keys())
    clock = accumulate(sum(_number(numbers.get(step, {}).get(name)) for name in SECONDS) for step in steps)
    rows, last = [], dict.fromkeys(AXES, 0.0)
    for step, seconds in zip(steps, clock, strict=True):
        row, evaluation = numbers.get(step, {}), measured.get(step)
        generated = {} if evaluation is None else {AXES["generated"]: evaluation["tokens_generated"]}
        known = {**generated, **row, "step": step}
        last = {axis: _number(known.get(name)) or last[axis] for axis, name in AXES.items()}
        own = {name: value for name, value in row.items() if _is_number(value) and _is_shown(name)}
        axes = {**last, "seconds": round(seconds, 3)}
        rows.append({"axes": axes, "numbers": own, "evaluation": evaluation})
    return rows


def _is_shown(name: str) -> bool:
    """Accuracies are read from evaluations.jsonl, and axes are no metrics."""
    return not name.startswith(("val/", "val-core/")) and name not in (*AXES.values(), "training/global_step")


def _evenly(count: int, most: int) -> set[int]:
    if count <= most:
        return set(range(count))
    return {round(i * (count - 1) / (most - 1)) for i in range(most)}


def _column(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    there = [i for i, row in enumerate(rows) if name in row["numbers"]]
    return {"at": there, "y": [_short(rows[i]["numbers"][name]) for i in there]}


def _accuracies(rows: Sequence[Row]) -> dict[str, Any]:
    """Accuracy by way of sampling, and by level."""
    columns: dict[str, dict[str, Any]] = {}
    for i, row in enumerate(rows):
        for mode, part in (row["evaluation"] or {}).items():
            if isinstance(part, dict) and _is_number(part.get("accuracy")):
                levels = part.get("levels", {})
                for name, each in {"": part, **{f"/{level}": x for level, x in levels.items()}}.items():
                    low, high = each.get("interval95") or 2 * [each["accuracy"]]
                    column = columns.setdefault(f"{ACCURACY}/{mode}{name}", {"at": [], "y": [], "low": [], "high": []})
                    for key, value in zip(column, (i, each["accuracy"], low, high), strict=True):
                        column[key].append(_short(value))
    return columns


def _short(value: float) -> float:
    """Six digits, which no reader can tell from more."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _number(value: Any) -> float:
    return value if _is_number(value) else 0.0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
