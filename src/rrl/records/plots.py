"""Pictures of runs."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

Point = tuple[float, float, float, float]
"""Of a curve: generated tokens (or seconds), a value, and the ends of its 95 % interval."""
COLOURS = (
    "tab:blue", "tab:red", "tab:green", "tab:orange", "tab:purple", "tab:brown", "tab:pink", "tab:gray", "tab:olive",
    "tab:cyan",
)  # fmt: skip


def learning_curves(
    panels: Mapping[str, Mapping[str, Sequence[Sequence[Point]]]], measured: str, title: str, *targets: Path,
    along: Sequence[str] = (),
) -> None:  # fmt: skip
    """One panel a name: what was ``measured`` against generated tokens, one line per arm.

    ``panels`` maps a name to arms, and an arm to its curves, one a seed: the line is their mean, thin lines are the
    seeds; a single curve gets its 95 % interval as a band. ``along`` names the horizontal axes where they are others.
    Writes it to each of ``targets``, by its suffix.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="tight")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    labels = along or ["generated tokens"] * len(panels)
    for axis, label, (name, arms) in zip(axes, labels, panels.items(), strict=True):
        for colour, (arm, curves) in zip(cycle(COLOURS), arms.items(), strict=False):
            _draw_arm(axis, arm, curves, colour)
        axis.set(title=name, xlabel=label)
        if "accuracy" in measured:
            axis.set(ylim=(-0.02, 1.02))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(measured)
    axes[0].legend(fontsize="small")
    figure.suptitle(title)
    for target in targets:
        figure.savefig(target, dpi=110)


def reliability_diagram(table: Sequence[Mapping[str, Any]], title: str, target: Path) -> None:
    """Predicted probability against share chosen, with the diagonal of perfect calibration; a dot's area is its pairs.

    ``table`` is that of ``calibration.reliability``. Writes a PNG to ``target``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.8), layout="tight")
    axis = figure.subplots()
    axis.plot([0.5, 1], [0.5, 1], color="grey", linestyle="--", label="perfect")
    predicted, chosen = [row["predicted"] for row in table], [row["chosen"] for row in table]
    most = max(row["pairs"] for row in table)
    axis.plot(predicted, chosen, color=COLOURS[0])
    axis.scatter(predicted, chosen, [10 + 90 * row["pairs"] / most for row in table], COLOURS[0], label="reward model")
    axis.set(xlabel="predicted probability of the favourite", ylabel="share of pairs that chose it", title=title)
    axis.set(xlim=(0.48, 1.02), ylim=(-0.02, 1.02))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    figure.savefig(target, dpi=110)


def with_intervals(sides: Mapping[str, Mapping[str, tuple[float, float, float]]], measured: str, target: Path) -> None:
    """A line a name with a dot for each side: a value and the ends of its interval. Writes a PNG to ``target``."""
    from matplotlib.figure import Figure

    names = list(next(iter(sides.values())))
    figure = Figure(figsize=(7, 0.5 * len(names) + 1.5), layout="tight")
    axis = figure.subplots()
    for number, (side, points) in enumerate(sides.items()):
        values, lows, highs = zip(*(points[name] for name in names), strict=True)
        errors = [[max(0.0, v - low) for v, low in zip(values, lows, strict=True)],
                  [max(0.0, high - v) for v, high in zip(values, highs, strict=True)]]  # fmt: skip
        places = [place + 0.24 * number for place in range(len(names))]
        axis.errorbar(values, places, xerr=errors, fmt="o", color=COLOURS[number], label=side, capsize=2)
    axis.set(yticks=range(len(names)), yticklabels=names, xlabel=measured)
    axis.invert_yaxis()
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    figure.savefig(target, dpi=110)


def _draw_arm(axis: Any, arm: str, curves: Sequence[Sequence[Point]], colour: str) -> None:
    import numpy

    if len(curves) == 1:
        tokens, accuracy, low, high = zip(*curves[0], strict=True)
        axis.plot(tokens, accuracy, color=colour, label=arm)
        axis.fill_between(tokens, low, high, color=colour, alpha=0.15)
        return
    end = min(curve[-1][0] for curve in curves)
    grid = numpy.linspace(0, end, 50)
    heights = [numpy.interp(grid, [p[0] for p in curve], [p[1] for p in curve]) for curve in curves]
    for height in heights:
        axis.plot(grid, height, color=colour, alpha=0.3, linewidth=0.8)
    axis.plot(grid, numpy.mean(heights, axis=0), color=colour, label=f"{arm} ({len(curves)} seeds)")
