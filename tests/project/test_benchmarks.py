"""A benchmark that needs a machine which is not at hand runs all the same, with tiny sizes."""

import json
import subprocess
import sys

import pytest

from house import SOURCE

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
