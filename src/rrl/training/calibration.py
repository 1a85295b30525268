"""Agreement of predicted preferences with those of people: log-loss, calibration error, reliability table."""

import math
from collections.abc import Sequence
from typing import Any


def preference(difference: float) -> float:
    """The Bradley-Terry probability that the first response is preferred: sigmoid of its reward less the other's."""
    if difference >= 0:
        return 1 / (1 + math.exp(-difference))
    return math.exp(difference) / (1 + math.exp(difference))


def log_loss(differences: Sequence[float]) -> float:
    """Mean of - log sigmoid(r_chosen - r_rejected), in nats; a coin has log 2 = 0.693."""
    return math.fsum(math.log1p(math.exp(-abs(d))) + max(0.0, -d) for d in differences) / len(differences)


def reliability(differences: Sequence[float], bins: int) -> list[dict[str, Any]]:
    """How often people chose the response that the model prefers, by the probability that the model gives it.

    ``differences`` are r_chosen - r_rejected. Each pair counts once, with the model's favourite first: its probability
    is between 1/2 and 1, cut into ``bins`` of equal width. (Both orders would add the mirror image and no
    information.) A tie of rewards counts as half a choice. Empty bins are left out.
    """
    places: dict[int, list[tuple[float, float]]] = {}
    for difference in differences:
        probability = preference(abs(difference))
        place = min(int((probability - 0.5) * 2 * bins), bins - 1)
        places.setdefault(place, []).append((probability, share_chosen(difference)))
    width = 0.5 / bins
    return [
        {
            "from": round(0.5 + place * width, 6),
            "to": round(0.5 + (place + 1) * width, 6),
            "pairs": len(rows),
            "predicted": math.fsum(p for p, _ in rows) / len(rows),
            "chosen": math.fsum(c for _, c in rows) / len(rows),
        }
        for place, rows in sorted(places.items())
    ]


def share_chosen(difference: float) -> float:
    """1 where the response that people chose has the higher reward, 0 where the other has, 1/2 for a tie."""
    return 0.5 if difference == 0 else float(difference > 0)


def expected_calibration_error(table: Sequence[dict[str, Any]]) -> float:
    """Mean distance of predicted from chosen over a reliability table, weighted by pairs (Guo et al., 1706.04599)."""
    pairs: int = sum(row["pairs"] for row in table)
    return math.fsum(row["pairs"] * abs(row["predicted"] - row["chosen"]) for row in table) / pairs
