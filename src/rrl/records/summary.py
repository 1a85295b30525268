"""The last words of a run: what came of it, where it is, what to type next."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rrl.records.files import modes, whole_rows
from rrl.records.status import last_checkpoint

Row = Mapping[str, Any]


def closing(folder: Path, state: str, config: Mapping[str, Any]) -> list[str]:
    """The lines for the run in ``folder`` that ended as ``state``: finished, interrupted or failed.

    Nothing of a run that has not come as far as its first evaluation.
    """
    rows, evaluations = whole_rows(folder / "metrics.jsonl"), whole_rows(folder / "evaluations.jsonl")
    if not rows or not evaluations:
        return []
    return [
        f"{state} after {_spent(rows)}",
        *_accuracies(evaluations[0], evaluations[-1]),
        *_mismatch(rows, config["trainer"].get("mismatch_limit")),
        *_memory(rows),
        *_place(folder, state),
        *_next(folder, state, config),
    ]


def _spent(rows: Sequence[Row]) -> str:
    """Steps, tokens, time; the evaluation and checkpoint after the last row are not in it."""
    counted = ("timing_s/step", "timing_s/testing", "timing_s/save_checkpoint")
    minutes, seconds = divmod(round(sum(row.get(name) or 0.0 for row in rows for name in counted)), 60)
    tokens = rows[-1].get("budget/tokens_generated", 0)
    return f"{rows[-1]['step']:,} steps, {tokens:,.0f} tokens generated, {minutes:,} min {seconds} s"


def _accuracies(before: Row, after: Row) -> list[str]:
    """A line for each way of sampling: overall with 95 % intervals, then by level."""
    names = modes(after)[::-1]
    if before["step"] == after["step"]:
        return [f"accuracy ({name}): {_share(before[name])} before training" for name in names]
    return [
        line
        for name in names
        for line in (
            f"accuracy ({name}): {_share(before[name])} before, {_share(after[name])} at step {after['step']:,}",
            *_levels(before[name]["levels"], after[name]["levels"]),
        )
    ]


def _levels(before: Row, after: Row) -> list[str]:
    """Where there are several levels, but not too many for a line."""
    if not 1 < len(after) <= 6:
        return []
    each = [
        f"{name} {before[name]['accuracy']:.3f} -> {after[name]['accuracy']:.3f}" for name in after if name in before
    ]
    return [f"  by level: {', '.join(each)}"]


def _share(part: Row) -> str:
    low, high = part["interval95"]
    return f"{part['accuracy']:.3f} [{low:.3f}, {high:.3f}]"


def _mismatch(rows: Sequence[Row], limit: float | None) -> list[str]:
    """In how many steps the engine was too far from the policy."""
    names = ("training/rollout_probs_diff_mean", "training/rollout_kl")
    steps = sum(any((row.get(name) or 0.0) > limit for name in names) for row in rows) if limit is not None else 0
    return [f"engine and policy differed by more than {limit:g} in {steps:,} steps"] if steps else []


def _memory(rows: Sequence[Row]) -> list[str]:
    """The phase that took most."""
    prefix = "perf/max_memory/"
    sizes = [(value, name) for row in rows for name, value in row.items() if name.startswith(prefix) and value]
    if not sizes:
        return []
    most, name = max(sizes)
    return [f"memory of a process: at most {most:.2f} GiB, in {name.removeprefix(prefix)}"]


def _place(folder: Path, state: str) -> list[str]:
    saved = last_checkpoint(folder)
    model = folder / "actor" if state == "finished" else saved / "actor" if saved else None
    return [f"run: {folder}", f"model: {model or 'none is saved yet'}"]


def _next(folder: Path, state: str, config: Mapping[str, Any]) -> list[str]:
    """What to type."""
    run = shlex.quote(str(folder))
    if state != "finished":
        return [
            *([f"what it said: {folder / 'logs'}"] if state == "failed" else []),
            f"go on: rrl-train resume={run}",
        ]
    limits = [(name, config["trainer"].get(name)) for name in ("total_tokens", "total_training_steps", "iterations")]
    longer = " ".join(f"trainer.{name}={2 * value}" for name, value in limits if value)
    return [
        f"measure it: rrl-evaluate from_run={run} evaluation.n=16",
        f"train it twice as long: rrl-train resume={run} {longer}",
        f"see all runs: rrl-status {shlex.quote(str(folder.parent))}",
    ]
