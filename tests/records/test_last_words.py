"""The last words of a run: what came of it, and what to type next."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rrl.records.summary import closing_lines

pytestmark = pytest.mark.usefixtures("own_messages")


def measured(step: int, overall: float, hard: float) -> dict[str, Any]:
    def part(accuracy: float) -> dict[str, Any]:
        return {"accuracy": accuracy, "interval95": [accuracy - 0.125, accuracy + 0.125]}

    levels = {"L3": part(0.875), "L10": part(hard)}
    return {"step": step, "split": "test", "greedy": {**part(overall), "levels": levels}}


def a_run(folder: Path, *evaluations: dict[str, Any], last: int = 1) -> Path:
    """A run's directory with rows of metrics up to the step ``last``."""
    folder.mkdir()
    costs = {"timing_s/step": 100.0, "timing_s/testing": 21.0, "timing_s/gen": 60.0, "budget/tokens_generated": 2048}
    memory = {"perf/max_memory/gen": 0.5, "perf/max_memory/update_actor": 1.25, "perf/max_memory/adv": None}
    rows = [{"step": 0}, *({"step": step, **costs, **memory} for step in range(1, last + 1))]
    for name, content in (("metrics", rows), ("evaluations", evaluations)):
        text = "".join(json.dumps(row) + "\n" for row in content)
        (folder / f"{name}.jsonl").write_text(text + '{"torn')
    return folder


LIMITS = {"trainer": {"total_tokens": 300_000, "total_training_steps": None}}


def test_a_finished_run_ends_with_what_came_of_it_and_what_to_type(tmp_path: Path) -> None:
    run = a_run(tmp_path / "my run", measured(0, 0.25, 0.125), measured(2, 0.5, 0.25), last=2)
    assert closing_lines(run, "finished", LIMITS) == [
        "finished after 2 steps, 2,048 tokens generated, 4 min 2 s",
        "accuracy (greedy): 0.250 [0.125, 0.375] before, 0.500 [0.375, 0.625] at step 2",
        "  by level: L3 0.875 -> 0.875, L10 0.125 -> 0.250",
        "memory of a process: at most 1.25 GiB, in update_actor",
        f"run: {run}",
        f"model: {run / 'actor'}",
        f"measure it: rrl-evaluate from_run='{run}' evaluation.n=16",
        f"train it twice as long: rrl-train resume='{run}' trainer.total_tokens=600000",
        f"see all runs: rrl-status {tmp_path}",
    ]


def test_a_run_that_was_interrupted_or_failed_ends_with_how_to_go_on(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", measured(0, 0.25, 0.125))
    assert closing_lines(run, "interrupted", LIMITS) == [
        "interrupted after 1 step, 2,048 tokens generated, 2 min 1 s",
        "accuracy (greedy): 0.250 [0.125, 0.375] before training",
        "memory of a process: at most 1.25 GiB, in update_actor",
        f"run: {run}", "model: none is saved yet", f"continue: rrl-train resume={run}",
    ]  # fmt: skip
    (run / "checkpoints" / "step-000001" / "actor").mkdir(parents=True)
    assert closing_lines(run, "failed", LIMITS)[-3:] == [
        f"model: {run / 'checkpoints' / 'step-000001' / 'actor'}", f"logs: {run / 'logs'}",
        f"continue: rrl-train resume={run}",
    ]  # fmt: skip


def test_steps_in_which_engine_and_policy_differed_are_counted_at_the_end(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", measured(0, 0.25, 0.125))
    rows = [{"training/rollout_probs_diff_mean": 0.02}, {"training/rollout_kl": 0.5}, {"training/rollout_kl": 0.01}, {}]
    text = "".join(json.dumps({"step": step, **row}) + "\n" for step, row in enumerate(rows))
    (run / "metrics.jsonl").write_text(text)
    reported = {"trainer": {**LIMITS["trainer"], "mismatch_limit": 0.01}}
    assert "engine and policy differed by more than 0.01 in 2 steps" in closing_lines(run, "finished", reported)
    assert not any("differed" in line for line in closing_lines(run, "finished", LIMITS))


def test_the_closing_lines_of_a_failed_run_stand_below_the_traceback_too() -> None:
    program = (
        "import logging; from rrl.cli import shell; shell.quieten(); from rrl.processes.logs import log_lines_twice\n"
        "log_lines_twice(['go on: so'])\nraise ValueError('x')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    said = [line.split(" ", 1)[-1] for line in done.stderr.splitlines()]
    assert (said[0], said[-2:]) == ("go on: so", ["x", "go on: so"])


def test_a_run_that_never_began_has_no_closing_lines(tmp_path: Path) -> None:
    assert closing_lines(tmp_path, "failed", LIMITS) == []
