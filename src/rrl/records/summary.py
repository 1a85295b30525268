"""The closing lines of a run: its results, its folder, the next commands."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rrl.records.files import modes, whole_rows
from rrl.records.status import last_checkpoint
from rrl.records.texts import with_interval

Row = Mapping[str, Any]


def closing_lines(folder: Path, state: str, config: Mapping[str, Any]) -> list[str]:
    """For a run that ended as ``state`` (finished, interrupted, failed); none before its first evaluation."""
    rows, evaluations = whole_rows(folder / "metrics.jsonl"), whole_rows(folder / "evaluations.jsonl")
    if not rows or not evaluations:
        return []
    return [
        f"{state} after {_spent(rows)}",
        *_accuracies(evaluations[0], evaluations[-1]),
        *_mismatch(rows, config["trainer"].get("mismatch_limit")),
        *_memory(rows),
        f"run: {folder}",
        f"model: {_model(folder, state) or 'none is saved yet'}",
        *_commands(folder, state, config),
    ]


def _spent(rows: Sequence[Row]) -> str:
    """Steps, tokens, time; without the evaluation and checkpoint after the last row."""
    counted = ("timing_s/step", "timing_s/testing", "timing_s/save_checkpoint")
    minutes, seconds = divmod(round(sum(row.get(name) or 0.0 for row in rows for name in counted)), 60)
    tokens = rows[-1].get("budget/tokens_generated", 0)
    steps = rows[-1]["step"]
    return f"{steps:,} step{'s' * (steps != 1)}, {tokens:,.0f} tokens generated, {minutes:,} min {seconds} s"


def _accuracies(before: Row, after: Row) -> list[str]:
    """A line for each way of sampling: overall with 95 % intervals, then by level."""
    names = modes(after)[::-1]
    if before["step"] == after["step"]:
        return [f"accuracy ({name}): {_accuracy(before[name])} before training" for name in names]
    return [
        line
        for name in names
        for line in (
            f"accuracy ({name}): {_accuracy(before[name])} before, {_accuracy(after[name])} at step {after['step']:,}",
            *_by_level(before[name]["levels"], after[name]["levels"]),
        )
    ]


def _by_level(before: Row, after: Row) -> list[str]:
    """One line for two to six levels."""
    if not 1 < len(after) <= 6:
        return []
    each = [
        f"{name} {before[name]['accuracy']:.3f} -> {after[name]['accuracy']:.3f}" for name in after if name in before
    ]
    return [f"  by level: {', '.join(each)}"]


def _accuracy(part: Row) -> str:
    return with_interval(part["accuracy"], part["interval95"])


def _mismatch(rows: Sequence[Row], limit: float | None) -> list[str]:
    """The number of steps in which engine and policy differed by more than ``limit``."""
    names = ("training/rollout_probs_diff_mean", "training/rollout_kl")
    steps = sum(any((row.get(name) or 0.0) > limit for name in names) for row in rows) if limit is not None else 0
    return [f"engine and policy differed by more than {limit:g} in {steps:,} steps"] if steps else []


def _memory(rows: Sequence[Row]) -> list[str]:
    """The phase that took the most memory."""
    prefix = "perf/max_memory/"
    sizes = [(value, name) for row in rows for name, value in row.items() if name.startswith(prefix) and value]
    if not sizes:
        return []
    most, name = max(sizes)
    return [f"memory of a process: at most {most:.2f} GiB, in {name.removeprefix(prefix)}"]


def _model(folder: Path, state: str) -> Path | None:
    saved = folder if state == "finished" else last_checkpoint(folder)
    return saved and saved / "actor"


def _commands(folder: Path, state: str, config: Mapping[str, Any]) -> list[str]:
    run = shlex.quote(str(folder))
    if state != "finished":
        return [*([f"logs: {folder / 'logs'}"] if state == "failed" else []), f"continue: rrl-train resume={run}"]
    limits = [(name, config["trainer"].get(name)) for name in ("total_tokens", "total_training_steps", "iterations")]
    longer = " ".join(f"trainer.{name}={2 * value}" for name, value in limits if value)
    return [
        f"measure it: rrl-evaluate from_run={run} evaluation.n=16",
        f"train it twice as long: rrl-train resume={run} {longer}",
        f"see all runs: rrl-status {shlex.quote(str(folder.parent))}",
    ]
