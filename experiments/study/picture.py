"""The picture of the study: curves of the baseline, the best rules, their controls and the bound."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from collect import Line
from protocol import Protocol
from results import by_arm, curve_of, percent

from rrl.records.plots import Point, learning_curves
from rrl.study.comparison import at, summary

PICTURED = 2
"""Rules in the picture: those that were best when the rule was chosen."""
POINTS = 50
"""Of a curve."""


def pictured(about: Protocol, result: Mapping[str, Any], choosing: Sequence[Line]) -> list[str]:
    """The baseline, the rules that were best where one was chosen (else the first), their controls, the best of the
    controls that were tuned by themselves, the bound."""
    arms, level, mark = result["arms"], about.level, percent(about.judged)
    rules = [arm for arm in about.named("rule") if arm in arms]
    chosen = by_arm(about, [line for line in choosing if line["arm"] in rules])
    if chosen:
        place = about.judged * about.budget
        means = {arm: fmean(at(curve_of(line, about.level), place) for line in own.values())
                 for arm, own in chosen.items()}  # fmt: skip
        rules = sorted(means, key=lambda arm: -means[arm])
    controls = [control for arm in rules[:PICTURED] if (control := about.arms[arm].control) in arms]
    tuned = [arm for arm in about.tuned_controls() if arm in arms]
    tuned.sort(key=lambda arm: -arms[arm]["accuracy"][level][mark]["mean"])
    bounds = [arm for arm in about.named("bound") if arm in arms]
    return list(dict.fromkeys([about.baseline, *rules[:PICTURED], *controls, *tuned[:1], *bounds]))


def picture(about: Protocol, lines: Sequence[Line], names: Sequence[str], target: Path) -> None:
    """Mean accuracy by tokens, steps and, where all ran on one kind of processor, seconds, with 95 % t intervals."""
    arms = by_arm(about, lines)
    shown = [line for arm in names for line in arms[arm].values()]
    timed = all(line["seconds"] is not None and line["processor"] == shown[0]["processor"] for line in shown)
    panels = {
        f"by {axis}": {arm: [_mean_curve([curve_of(line, about.level, axis) for line in arms[arm].values()], unit)]
                       for arm in names}
        for axis, unit in (("tokens", 1000), ("step", 1), ("seconds", 1))[: 2 + timed]
    }  # fmt: skip
    along = ["thousands of generated tokens", "steps", "seconds of training, without evaluations"][: len(panels)]
    title = f"{about.task}: mean over seeds with 95 % interval"
    learning_curves(panels, f"held-out accuracy of {about.level}", title, target, along=along)


def _mean_curve(curves: Sequence[Sequence[tuple[float, float]]], unit: int) -> list[Point]:
    """As far as all runs reach."""
    end = min(curve[-1][0] for curve in curves)
    points = []
    for place in (end * number / POINTS for number in range(POINTS + 1)):
        found = summary([at(curve, place) for curve in curves])
        half = found["half95"] or 0.0
        points.append((place / unit, found["mean"], found["mean"] - half, found["mean"] + half))
    return points
