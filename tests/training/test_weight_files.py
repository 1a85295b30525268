"""Weights left in their files: each process reads only its share at ZeRO stage 3, and nothing else changes."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fixtures.llama import llama
from fixtures.ranks import on_ranks
from fixtures.training import improve, make_policy, ppo, raw_batch, reward_kl, rollout, settings
from rrl.records.fingerprints import weights_fingerprint
from rrl.training.loop import weigh
from rrl.training.models import HuggingFace, LoadedModel
from rrl.training.networks import Actor
from rrl.training.weight_files import in_files, weights
from rrl.training.zero import frozen

pytestmark = pytest.mark.ranks

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "spread": 0.15}


def at(folder: Path) -> HuggingFace:
    return HuggingFace(path=str(folder), revision=None, attention="sdpa", trust_remote_code=False)


def saved(folder: Path, *, tied: bool = False, shard: str = "1GB", **changes: Any) -> Path:
    loaded = llama(None, tie_word_embeddings=tied, **{**SHAPE, **changes})
    loaded.model.save_pretrained(folder, max_shard_size=shard)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def facts(loaded: LoadedModel) -> tuple[Any, ...]:
    """All but the weights."""
    model = loaded.model
    buffers = {name: buffer.tolist() for name, buffer in model.named_buffers()}
    return model.config.to_dict(), model.generation_config.to_dict(), buffers, loaded.tokenizer.get_vocab()


@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"shard": "20KB"}])
def test_a_model_in_files_is_the_loaded_one_without_its_weights(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = saved(tmp_path, **changes)
    whole, left = at(folder).load(None), at(folder).unread(None)
    assert facts(left) == facts(whole)
    assert {parameter.device.type for parameter in left.model.parameters()} == {"meta"}
    assert in_files(left.model) and not in_files(whole.model)
    assert weights_fingerprint(weights(left.model)) == weights_fingerprint(weights(whole.model))
    assert (len(list(folder.glob("*.safetensors"))) > 1) == ("shard" in changes)


def test_without_a_file_of_its_own_the_generation_config_is_that_of_the_model(tmp_path: Path) -> None:
    (saved(tmp_path) / "generation_config.json").unlink()
    assert facts(at(tmp_path).unread(None)) == facts(at(tmp_path).load(None))


def renamed(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file({name.removeprefix("model."): weight for name, weight in load_file(file).items()}, file, {"format": "pt"})


def in_another_format(folder: Path) -> None:
    torch.save(at(folder).load(None).model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def quantized(folder: Path) -> None:
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | {"auto_map": {"AutoConfig": "none.Such"}}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (renamed, "model.embed_tokens.weight is stored 0 times"),
        (in_another_format, "model.embed_tokens.weight is stored 0 times"),
        (quantized, "its code is its own, or it is quantized"),
    ],
)
def test_files_of_another_kind_are_loaded_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Any, why: str
) -> None:
    change(saved(tmp_path))
    with caplog.at_level(logging.WARNING):
        loaded = at(tmp_path).unread(None)
    assert not in_files(loaded.model)
    assert f"model.path: every process loads all weights, not only its share: {why}" in caplog.text


def _trained(folder: str) -> list[tuple[dict[str, torch.Tensor], Any]]:
    """Weights after a step, and what all networks read then, by way of loading."""
    results = []
    for model in (at(Path(folder)).load(None).model, at(Path(folder)).unread(None).model):
        policy = make_policy(model=model, reference=True, zero_stage=3, dtype="bfloat16", head_size=4)
        batch = policy.annotate(weigh(raw_batch([rollout([5, 7], (), [6, 8, 2]), rollout([5], (), [9, 3])]), "token"))
        ones = batch.mask.float()
        improve(policy, ppo(kl=reward_kl(0.1)), batch.with_(advantages=ones, returns=ones), 2)
        with policy.generation_model() as made:
            after = {name: weight.clone() for name, weight in made.named_parameters()}
        again = policy.annotate(batch)
        results.append((after, (again.old_logprobs, again.ref_logprobs, again.values)))
    return results


def test_training_is_that_of_a_loaded_model_bit_for_bit(tmp_path: Path) -> None:
    for ranks in on_ranks(2, _trained, str(saved(tmp_path, tied=True))):
        torch.testing.assert_close(ranks[1], ranks[0], rtol=0, atol=0)
        assert all(float(column.abs().sum()) > 0 for column in ranks[1][1])


LARGE = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 6, "spread": 0.02}
MIB = 2**20


def _peaks(small: str, large: str) -> dict[str, float]:
    """Peak of main memory in MiB above that before, by way of loading, of a network that is then kept."""
    found: dict[str, float] = {}
    kept: list[nn.Module] = []
    for name, folder in {"first": small, "unread": large, "load": large}.items():  # the first imports libraries
        before = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forgets the former peak
        model = at(Path(folder)).load(None).model if name == "load" else at(Path(folder)).unread(None).model
        kept.append(frozen(Actor(model, 1.0), settings(zero_stage=3)))
        found[name] = _memory("VmHWM") - before
    return found


def _memory(name: str) -> float:
    return int(re.findall(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def test_a_process_needs_less_memory_than_the_model_has(tmp_path: Path) -> None:
    saved(tmp_path / "small")
    saved(tmp_path / "large", **LARGE)
    size = (tmp_path / "large" / "model.safetensors").stat().st_size / MIB
    assert 60 < size < 100
    for peak in on_ranks(2, _peaks, str(tmp_path / "small"), str(tmp_path / "large")):
        assert peak["unread"] < 0.75 * size < size < peak["load"], peak
