"""The results of a trial of rules as Markdown and as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrl.records.plots import with_intervals
from rrl.study.audit_table import head, line, number

COLUMNS = {
    "error_free": "error-free", "position": "position", "success": "success", "gain": "minus prompt",
    "mixed": "mixed", "redraw_mixed": "mixed from prompt",
    "per_kilotoken": "successes per 1,000 tokens", "redraw_per_kilotoken": "of re-draws", "lead_per_kilotoken": "lead",
    "rank_correlation": "rank correlation of score",
}  # fmt: skip


def as_markdown(result: Mapping[str, Any]) -> str:
    """A table of the rules, one of their agreement, and the tokens spent."""
    told = [name for name in COLUMNS if any(name in row for row in result["rules"].values())]
    settings, tokens = result["settings"], result["tokens"]
    rows = [
        line(rule, f"{row['found']:.0%}", row["states"], *(number(row.get(name)) for name in told))
        for rule, row in result["rules"].items()
    ]
    agreement = [
        line(rule, *("-" if share is None else f"{share:.2f}" for share in row.values()))
        for rule, row in result["agreement"].items()
    ]
    return "\n".join(
        [
            f"## {result['failures']} failures of {result['run']} at step {result['step']}: "
            f"{settings['continuations']} continuations of each cut and of each prompt",
            "",
            *head("rule", "finds a cut", "states", *(COLUMNS[name] for name in told)),
            *rows,
            "",
            "## Of the failures in which both find a cut, the share in which they have one in common",
            "",
            *head("rule", *result["agreement"]),
            *agreement,
            "",
            *(f"{rule} is left out: {why}." for rule, why in result["left_out"].items()),
            f"{tokens['generated']:,} tokens generated, {tokens['scored']:,} scored; 95 % intervals over problems.",
        ]
    )


def draw(result: Mapping[str, Any], target: Path) -> None:
    """Successes per 1,000 new tokens of each rule and of re-drawing the same problems; nothing without states."""
    rules = {rule: row for rule, row in result["rules"].items() if "per_kilotoken" in row}
    sides = {"from the rule's states": "per_kilotoken", "from their prompts": "redraw_per_kilotoken"}
    points = {
        side: {
            rule: (row[name]["value"], *(row[name]["interval95"] or [row[name]["value"]] * 2))
            for rule, row in rules.items()
        }
        for side, name in sides.items()
    }
    if rules:
        with_intervals(points, "successes per 1,000 new tokens", target)
