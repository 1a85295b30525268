"""Asymptote against speed: a sigmoid fitted to learning curves, with intervals over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

RESAMPLES = 1000
EXPONENTS = (0.25, 16.0)
MIDPOINTS = (1 / 32, 8.0)
"""Of the largest budget."""
GRID = 33
"""Points for the exponent and for the midpoint, evenly on a logarithmic scale."""
ROUNDS, WIDTH, SHRINK = 20, 5, 0.7
"""Of the refinement: how often, points across, and by how much the distance of points shrinks each time."""
NEAR = 0.01
"""As near to a bound as this is at it: of A, and of the logarithm of Cmid."""


def fit(budgets: Sequence[float], heights: Sequence[Sequence[float]], seed: int = 0) -> dict[str, Any]:
    """The sigmoid of the mean curve: R(C) = R0 + (A - R0) / (1 + (Cmid / C)^B) (ScaleRL, arXiv 2510.13786, eq. 1).

    ``budgets`` [points] begin with 0 and are those of every curve of ``heights`` [seeds, points], which are shares
    between 0 and 1. R0 is the mean height at budget 0, as measured; A, Cmid and B make the squared error least, with
    A in [0, 1], Cmid and B between ``MIDPOINTS`` (of the last budget) and ``EXPONENTS``. Intervals are 95 %, by the
    percentile bootstrap over seeds, each of which is a whole curve; None with a single one.

    Of ``asymptote``, ``midpoint`` and ``exponent`` there are ``value``, ``low`` and ``high``; ``error`` is the root of
    the mean squared error. ``identified`` says whether the asymptote is: not with a single seed, nor where the interval
    of A or of Cmid touches a bound, for then the curve does not bend enough to tell a high asymptote from a slow rise.
    Raises ValueError for other budgets.
    """
    import numpy

    if budgets[0] != 0 or len(budgets) < 5:
        raise ValueError(f"budgets: expected five or more that begin with 0, got {list(budgets)}")
    rows, count = numpy.asarray(heights, dtype=float), len(heights)
    drawn = numpy.random.default_rng(seed).integers(count, size=(RESAMPLES if count > 1 else 0, count))
    curves = numpy.concatenate([rows.mean(0, keepdims=True), rows[drawn].mean(1)])
    scaled = numpy.asarray(budgets[1:], dtype=float) / budgets[-1]
    found = _least_squares(scaled, curves)
    found["midpoint"] = found["midpoint"] * budgets[-1]
    result: dict[str, Any] = {"start": float(curves[0, 0]), "error": float(found.pop("error")[0])}
    for name, values in found.items():
        low, high = map(float, numpy.quantile(values[1:], (0.025, 0.975))) if count > 1 else (None, None)
        result[name] = {"value": float(values[0]), "low": low, "high": high}
    result["identified"] = count > 1 and not _touches(result, budgets[-1])
    return result


def _touches(found: Mapping[str, Any], budget: float) -> bool:
    """Whether the interval of asymptote or midpoint touches a bound."""
    asymptote, midpoint = found["asymptote"], found["midpoint"]
    ratios = (midpoint["low"] / budget / MIDPOINTS[0], MIDPOINTS[1] * budget / midpoint["high"])
    return bool(min(asymptote["low"], 1 - asymptote["high"]) <= NEAR or min(ratios) <= 1 + NEAR)


def _least_squares(budgets: Any, curves: Any) -> dict[str, Any]:
    """The parameters of each curve [curves, 1 + points], whose first height is R0; ``budgets`` [points] end with 1.

    For each midpoint and exponent the best asymptote is known (the error is a parabola in it), so that only those two
    are searched for: on a grid, then around its best point, ever nearer.
    """
    import numpy

    ends = numpy.log([MIDPOINTS, EXPONENTS])
    axes = [numpy.linspace(low, high, GRID) for low, high in ends]
    grid = numpy.stack(numpy.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, 2)
    best = _best(budgets, curves, grid)
    step = (ends[:, 1] - ends[:, 0]) / (GRID - 1)
    around = numpy.linspace(-1, 1, WIDTH)
    offsets = numpy.stack(numpy.meshgrid(around, around, indexing="ij"), -1).reshape(1, -1, 2)
    for turn in range(ROUNDS):
        near = best["places"][:, None] + offsets * step * 2 * SHRINK**turn
        best = _best(budgets, curves, near.clip(ends[:, 0], ends[:, 1]))
    midpoint, exponent = numpy.exp(best["places"]).T
    return {"asymptote": best["asymptote"], "midpoint": midpoint, "exponent": exponent, "error": best["error"]}


def _best(budgets: Any, curves: Any, places: Any) -> dict[str, Any]:
    """The best of the places [curves or 1, places, 2], logarithms of midpoint and exponent, for each curve."""
    import numpy

    start, gains = curves[:, :1], curves[:, 1:] - curves[:, :1]
    midpoint, exponent = numpy.exp(places[..., :1]), numpy.exp(places[..., 1:])
    risen = 1 / (1 + (midpoint / budgets) ** exponent)  # [curves or 1, places, points]
    square, product = (risen**2).sum(-1), (risen @ gains[:, :, None])[..., 0]
    lead = (product / square).clip(-start, 1 - start)  # A - R0
    errors = lead**2 * square - 2 * lead * product
    chosen = errors.argmin(-1)[:, None]
    total = numpy.take_along_axis(errors, chosen, 1)[:, 0] + (gains**2).sum(-1)
    places = numpy.broadcast_to(places, (*errors.shape, 2))
    return {
        "places": numpy.take_along_axis(places, chosen[..., None], 1)[:, 0],
        "asymptote": (start + numpy.take_along_axis(lead, chosen, 1))[:, 0],
        "error": numpy.sqrt(total.clip(0) / len(budgets)),
    }
