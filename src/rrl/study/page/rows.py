"""What a row of rollouts must have, and of which kind, to be shown: checked once, so that nothing after it has to."""

from collections.abc import Mapping
from typing import Any

NEEDED: dict[str, Any] = {
    "problem": dict, "response": str, "verdict": str, "score": int | float, "tokens": int, "finished": bool,
}  # fmt: skip
OPTIONAL: dict[str, Any] = {
    "prefix": str, "prefix_tokens": list, "replayed_from": str | None, "help": str | None, "mode": str | None,
    "version": int | None, "evidence": dict, "logprobs": list, "numbers": dict,
}  # fmt: skip
OF_PROBLEM: dict[str, Any] = {
    "level": str, "question": str, "reference": str, "answer": str, "strata": dict, "turns": list,
}  # fmt: skip


def unfit(row: Mapping[str, Any]) -> str | None:
    """The first thing that keeps a row from being shown: missing, or of another kind; None where there is none."""
    found = [key for key, kind in NEEDED.items() if not isinstance(row.get(key), kind)]
    found += [key for key, kind in OPTIONAL.items() if key in row and not isinstance(row[key], kind)]
    if found:
        return found[0]
    problem = row["problem"]
    if not isinstance(problem.get("id"), str):
        return "problem.id"
    found = [
        f"problem.{key}" for key, kind in OF_PROBLEM.items() if key in problem and not isinstance(problem[key], kind)
    ]
    return found[0] if found else _unfit_numbers(row)


def _unfit_numbers(row: Mapping[str, Any]) -> str | None:
    """A list with an entry for each token that has something else in it."""
    lists: dict[str, Any] = {"logprobs": row.get("logprobs", []), **row.get("numbers", {})}
    for name, values in lists.items():
        kind = str if name == "texts" else int | float | None
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            return name
    return None
