"""What is for machines that are not at hand: it runs with tiny sizes, or calculates."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

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
    # a share of the rate of bfloat16, which some CPUs multiply more slowly than float32: there it may be above 1
    assert all(row["phases"]["gen"] > 0 and row["update_utilisation"] > 0 for row in rows[4:])


@pytest.mark.slow
def test_the_demonstration_on_a_gpu_compares_its_arms_with_a_tiny_model(tmp_path: Path) -> None:
    tuned = tmp_path / "results" / "trace_all" / "tuned.json"
    tuned.parent.mkdir(parents=True)
    tuned.write_text('{"ppo": ["policy.actor_lr=0.1"], "reanalyse": ["sampler.schedule.share=0.5"]}')
    for words in ("study.py gpu_tiny reported 1 results", "collect.py gpu_tiny runs/study results",
                  "table.py gpu_tiny reported results"):  # fmt: skip
        script, *arguments = words.split()
        subprocess.run([sys.executable, ROOT / "experiments/study" / script, *arguments], cwd=tmp_path, check=True)
    study = json.loads((tmp_path / "results" / "gpu_tiny" / "study.json").read_text())
    assert (list(study["arms"]), study["missing"]) == (["ppo", "reanalyse", "reanalyse_redraw"], {})
    assert list(study["arms"]["reanalyse"]["accuracy"]) == ["all", "L3", "L6", "L10", "L20"]


def test_settings_of_a_policy_are_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "experiments" / "bench")
    settings = importlib.import_module("padding").SETTINGS
    assert PolicySettings(**settings).dtype == "float32"


def test_the_table_of_scaling_is_what_is_calculated() -> None:
    printed = subprocess.check_output([sys.executable, ROOT / "experiments/bench/scaling.py"], text=True)
    assert "| 7 B, 64 | 16 | 20.5 s |" in printed  # 1,024 tokens of 20 ms
    assert printed in (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
