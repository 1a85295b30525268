"""Benchmarks of machines that are not at hand: one runs with tiny sizes, the other calculates."""

import importlib
import json
import subprocess
import sys

import pytest

from house import SOURCE
from rrl.training.policy_settings import PolicySettings

ROOT = SOURCE.parents[1]


@pytest.mark.slow
def test_the_benchmark_of_gpus_measures_every_row() -> None:
    command = [sys.executable, ROOT / "experiments/bench/gpu.py", "--tiny"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()[1:]]
    assert [row["name"] for row in rows] == [
        "decode_HFEngine_tiny", "decode_StaticHF_tiny", "logits_pieces_tiny", "logits_at_once_tiny", "ppo_tiny",
        "grpo_tiny",
    ]  # fmt: skip
    assert all(row["phases"]["gen"] > 0 and 0 < row["update_utilisation"] < 1 for row in rows[4:])


def test_settings_of_a_policy_are_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "experiments" / "bench")
    settings = importlib.import_module("padding").SETTINGS
    assert PolicySettings(**settings).dtype == "float32"


def test_the_table_of_scaling_is_what_is_calculated() -> None:
    printed = subprocess.check_output([sys.executable, ROOT / "experiments/bench/scaling.py"], text=True)
    assert "| 7 B, 64 | 16 | 20.5 s |" in printed  # 1,024 tokens of 20 ms
    assert printed in (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
