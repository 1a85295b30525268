"""HH from files to results: a reward model of either kind judges, its running moments survive a resume."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from fixtures.reward_models import embedder, planted_pairs, saved_encoder, saved_model, sequence_trainer, silent, tiny
from rrl.cli import sft, train
from rrl.errors import ConfigError, DataError
from rrl.parts.reward_models.embeddings import Head, save_head

BASE = {
    "task": "hh", "model": "tiny", "warmstart": "none", "seed": 1, "run.test_freq": "null", "run.rollout_freq": 1,
    "run.save_freq": 1, "task.subsets": "[helpful-base,harmless-base]", "data.max_prompt_length": 80,
    "data.max_response_length": 12, "data.cut_points": "token", "model.hidden_size": 32, "model.num_hidden_layers": 1,
    "trainer.train_batch_size": 8, "trainer.ppo_mini_batch_size": 4, "trainer.ppo_epochs": 1,
    "trainer.total_tokens": "null", "trainer.total_training_steps": 2,
    "trainer.critic_warmup": 0, "evaluation.limit": 2, "evaluation.n": 0,
}  # fmt: skip
SUBSETS = ("helpful-base", "harmless-base")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hh")
    for subset in SUBSETS:
        (folder / subset).mkdir()
        for split, count in (("train", 12), ("test", 4)):
            prompts = [f"\n\nHuman: {subset} {i}\n\nAssistant: Yes?\n\nHuman: Go\n\nAssistant:" for i in range(count)]
            rows = [{"chosen": f"{prompt} good {i}", "rejected": f"{prompt} bad"} for i, prompt in enumerate(prompts)]
            (folder / subset / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def reward_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind."""
    folder = tmp_path_factory.mktemp("reward_models")
    encoder = saved_encoder(folder / "encoder")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_head(folder / "head", embedder(encoder), Head(32, (8,), 0.0), (8,))
    return {"sequence": saved_model(folder / "sequence"), "embeddings": folder / "head"}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, data: Path, reward_models: dict[str, Path]) -> Callable[..., Path]:
    """Trains with this kind of reward model and returns the run's directory."""

    def train_it(kind: str, **changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("runs") / "run"
        places = {"data.path": data, "run.dir": folder}
        judge = {"reward_model": kind, "reward_model.path": reward_models[kind]}
        train._train([f"{key}={value}" for key, value in {**BASE, **places, **judge, **changes}.items()])
        return folder

    return train_it


@pytest.fixture(scope="module")
def runs(start: Callable[..., Path]) -> dict[str, Path]:
    """A finished run with each kind of reward model."""
    return {
        "sequence": start("sequence", algo="ppo"), "embeddings": start("embeddings", algo="rrl", selection="random_cut")
    }  # fmt: skip


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.parametrize("kind", ["sequence", "embeddings"])
def test_a_reward_model_pays_for_responses(kind: str, runs: dict[str, Path]) -> None:
    run = runs[kind]
    _, first, second = rows(run / "metrics.jsonl")
    dump = [row for path in sorted((run / "rollouts").iterdir()) for row in rows(path)]
    rewards = [row["evidence"]["reward"] for row in dump if row["verdict"] != "unparseable"]
    assert second["reward/raw/max"] <= max(rewards)
    assert second["reward/running_mean"] == pytest.approx(sum(rewards) / len(rewards))
    assert first["critic/rewards/mean"] != 0
    assert all(row["score"] == pytest.approx(_sigmoid(row["evidence"])) for row in dump if row["verdict"] == "right")
    result = json.loads((run / "result.json").read_text())
    assert set(result["after"]["greedy"]["levels"]) == {"helpful", "harmless"}


def _sigmoid(evidence: dict[str, float]) -> float:
    return float(torch.sigmoid(torch.tensor(evidence["reward"] - evidence["reference_reward"], dtype=torch.float64)))


def test_the_running_moments_survive_a_resume(start: Callable[..., Path], runs: dict[str, Path]) -> None:
    halves = start("sequence", algo="ppo", **{"trainer.total_training_steps": 1})
    train._train([f"resume={halves}", "trainer.total_training_steps=2"])
    names = ("reward/running_mean", "reward/running_std", "reward/raw/mean", "critic/rewards/mean")
    reported = [{name: rows(run / "metrics.jsonl")[-1][name] for name in names} for run in (runs["sequence"], halves)]
    assert reported[0] == pytest.approx(reported[1], rel=1e-6)  # a product may round by where in memory it stands


def test_training_without_a_reward_model_is_refused_with_the_other_faults(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        train._train(["task=hh", "trainer.n=0", f"data.path={data}", f"run.dir={tmp_path / 'run'}"])
    assert {fault.split(":")[0] for fault in caught.value.faults} == {"reward_model", "trainer.n"}


def test_a_model_that_is_no_reward_model_is_refused_before_the_first_step_and_leaves_nothing(
    start: Callable[..., Path], reward_models: dict[str, Path], tmp_path: Path
) -> None:
    encoder = reward_models["sequence"].parent / "encoder"
    with pytest.raises(DataError, match="a model without a reward head"):
        start("sequence", **{"reward_model.path": encoder, "run.dir": tmp_path / "run"})
    assert not (tmp_path / "run").exists()


def test_supervised_training_needs_no_reward_model(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"{key}={value}" for key, value in BASE.items() if key.startswith(("task", "data", "model"))]
    more = ["warmstart.steps=2", "warmstart.batch_size=4", f"data.path={data}"]
    monkeypatch.setattr(sys, "argv", ["rrl-sft", *given, *more])
    with pytest.raises(SystemExit) as caught:
        sft.main()
    assert not caught.value.code
    assert (Path(capsys.readouterr().out.strip()) / "config.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ppo", "rrl"])
def test_training_climbs_a_reward_model_that_was_itself_trained(algo: str, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "helpful-base"
    folder.mkdir(parents=True)
    pairs = planted_pairs(320, seed=0)
    for split, part in (("train", pairs[:256]), ("test", pairs[256:])):
        rows_ = [{"chosen": f"{p.prompt} {p.chosen}", "rejected": f"{p.prompt} {p.rejected}"} for p in part]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_))
    sequence_trainer().train(*tiny(), pairs[:256], tmp_path / "reward_model", 0, silent)
    changes = {
        "data.path": folder.parent, "task.subsets": "[helpful-base]", "reward_model": "sequence", "algo": algo,
        "reward_model.path": tmp_path / "reward_model", "run.dir": tmp_path / "run",
        "trainer.total_training_steps": 120, "policy.actor_lr": 1e-3, "trainer.train_batch_size": 64,
        "trainer.ppo_mini_batch_size": 32, "run.save_freq": "null", "run.rollout_freq": "null",
    }  # fmt: skip
    train._train([f"{key}={value}" for key, value in {**BASE, **changes}.items()])
    raw = [row["reward/raw/mean"] for row in rows(tmp_path / "run" / "metrics.jsonl")[1:]]
    spread = rows(tmp_path / "run" / "metrics.jsonl")[1]["reward/running_std"]
    assert fmean(raw[-5:]) > fmean(raw[:5]) + spread
