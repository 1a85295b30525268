"""Many architectures of transformers: what the engine writes is what the networks read, and they train.

The models are random and small, so that rows pass the ends of sliding windows and chunks.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from fixtures.architectures import SERVED, build, disagreement, rows
from fixtures.matrix import few_rows
from fixtures.replay import engine, tiny
from rrl.cli import evaluate, train
from rrl.errors import DataError
from rrl.training.models import HuggingFace, LoadedModel

TOKENIZER = tiny(None).tokenizer
HUB = {"revision": None, "trust_remote_code": False}
RUN = {
    "task": "gsm8k", "algo": "rrl", "model": "hf", "run.threads": 1, "data.max_response_length": 12,
    "trainer.train_batch_size": 4, "trainer.ppo_mini_batch_size": 4, "trainer.ppo_epochs": 1, "policy.actor_lr": 1e-3,
    "trainer.total_training_steps": 1, "selection": "random_cut", "sampler.schedule.share": 0.5, "evaluation.n": 0,
    "evaluation.limit": 2, "run.save_freq": 1, "run.test_freq": "null",
    "objective.entropy_coef": 0.1, "reward.truncation_penalty": 0.5,
}  # fmt: skip


def save(kind: str, folder: Path, **changes: Any) -> Any:
    """A model of an architecture with a tokenizer of bytes, as transformers saves them."""
    model = build(kind, **changes)
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", SERVED)
def test_engine_and_networks_agree(kind: str) -> None:
    loaded = LoadedModel(build(kind, **SERVED[kind]), TOKENIZER)
    assert disagreement(loaded, engine(loaded, max_response_length=16).generate(rows())) < 1e-5


QUICK = (("gemma3", "shared"), ("mamba2", "own"))
"""What cannot be reported from keys, values and a text configuration alone."""
PAIRS = [(kind, critic) for kind in SERVED for critic in ("own", "shared")]


@pytest.mark.parametrize(
    ("kind", "critic"), [pair if pair in QUICK else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS]
)
def test_it_trains_is_saved_and_goes_on(kind: str, critic: str, tmp_path: Path) -> None:
    few_rows(tmp_path, "gsm8k")
    model = save(kind, tmp_path / "model", **SERVED[kind])
    places = {"data.path": tmp_path / "gsm8k", "model.path": tmp_path / "model", "run.dir": tmp_path / "run"}
    attention = "sdpa" if model._supports_sdpa else "eager"
    words = {**RUN, **places, "critic": critic, "model.attention": attention}
    train._train([f"{key}={value}" for key, value in words.items()])
    train._train([f"resume={tmp_path / 'run'}", "trainer.total_training_steps=2"])

    start, *steps = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert [start["step"], *(row["step"] for row in steps)] == [0, 1, 2]
    assert all(row["training/rollout_probs_diff_max"] < 1e-5 for row in steps)
    assert all(row["critic/vf_explained_var"] != 0 for row in steps[1:])
    actor = HuggingFace(path=str(tmp_path / "run" / "actor"), attention=attention, **HUB).load(None).model
    assert type(actor) is type(model)
    assert not torch.equal(actor.get_output_embeddings().weight, model.get_output_embeddings().weight)


@pytest.mark.parametrize(
    ("command", "kind", "name"),
    [
        (train._train, "bert", "BertLMHeadModel"), (train._train, "rwkv", "RwkvForCausalLM"),
        (evaluate._evaluate, "recurrent_gemma", "RecurrentGemmaForCausalLM"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_by_name(command: Any, kind: str, name: str, tmp_path: Path) -> None:
    few_rows(tmp_path, "gsm8k")
    save(kind, tmp_path / "model")
    places = {"data.path": tmp_path / "gsm8k", "model.path": tmp_path / "model"}
    words = {**RUN, **places, "model.attention": "eager"}
    if command is train._train:
        words["run.dir"] = tmp_path / "run"
    with pytest.raises(DataError) as caught:
        command([f"{key}={value}" for key, value in words.items()])
    assert str(caught.value.faults[0]).startswith(f"model: {name} cannot be served by AutoHF (")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("t5", "T5Config", "has an encoder beside its decoder"),
        ("bart", "BartConfig", "has an encoder beside its decoder"),
        ("qwen2_5_vl", "Qwen2_5_VLConfig", "is not among AutoModelForCausalLM's"),
        ("vit", "ViTConfig", "is not among AutoModelForCausalLM's"),
    ],
)
def test_another_kind_of_model_is_refused_by_name_before_its_weights_are_read(
    kind: str, name: str, reason: str, tmp_path: Path
) -> None:
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    hub = HuggingFace(path=str(tmp_path), attention="sdpa", **HUB)
    for read in (hub.load, hub.outline):
        with pytest.raises(DataError) as caught:
            read(None)
        assert f"holds {name} ({kind}), which {reason}; expected a causal language model" in caught.value.faults[0]
