"""A folder that holds a low-rank adapter as the model: base and adapter become one, or the remedy is reported."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file

from fixtures.reward_models import saved_model
from rrl.errors import DataError
from rrl.parts.reward_models.embedder import Embedder
from rrl.parts.reward_models.reading import Reading
from rrl.parts.reward_models.sequence import SequenceRewardModel
from rrl.training.models import HuggingFace, TinyLlama

SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1,
    "max_prompt_length": 32, "max_response_length": 32, "start_seed": 0,
}  # fmt: skip


def at(path: object) -> HuggingFace:
    return HuggingFace(path=str(path), revision=None, attention="sdpa", trust_remote_code=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``base`` and an ``adapter`` on it that was trained, so to say."""
    folder = tmp_path_factory.mktemp("adapters")
    model, tokenizer = TinyLlama(**SIZES).load(None)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    wrapped = get_peft_model(at(folder / "base").load(None).model, config)
    wrapped.save_pretrained(folder / "adapter")
    return folder


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        at(path).load(None)
    (fault,) = caught.value.faults
    return str(fault)


def stated_base(folder: Path, base: str | None, **changes: Any) -> Path:
    """The adapter with another base written into it."""
    file = folder / "adapter_config.json"
    about = json.loads(file.read_text()) | {"base_model_name_or_path": base} | changes
    file.write_text(json.dumps(about))
    return folder


def copied(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "adapter", tmp_path / "adapter"))


def test_base_and_adapter_are_one_plain_model(place: Path, tmp_path: Path) -> None:
    model, tokenizer = at(place / "adapter").load(None)
    base = load_file(place / "base" / "model.safetensors")
    low = load_file(place / "adapter" / "adapter_model.safetensors")
    down, up = (next(tensor for name, tensor in low.items() if f"lora_{letter}" in name) for letter in "AB")
    found = model.state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(found[name], base[name] + 6 / 2 * up @ down)  # W + alpha / r * B A (Hu et al. 2021)
    others = [other for other in base if other != name]
    assert all(torch.equal(found[other], base[other]) for other in others) and len(others) == 11
    assert (type(model).__name__, tokenizer("a").input_ids) == ("LlamaForCausalLM", [1, 68])
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(load_file(tmp_path / "model.safetensors")[name], found[name])


def test_its_outline_is_that_of_the_base(place: Path) -> None:
    model = at(place / "adapter").outline(None).model
    assert (model.device.type, sum(p.numel() for p in model.parameters())) == ("meta", 260 * 16 * 2 + 3184)


@pytest.mark.parametrize("base", ["base", "../base"])
def test_a_base_is_looked_for_from_here_and_from_the_adapter(
    base: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stated_base(copied(place, tmp_path), base)
    shutil.copytree(place / "base", tmp_path / "base")
    monkeypatch.chdir(tmp_path if base == "base" else "/")
    assert at(folder).load(None).model.num_parameters() == 260 * 16 * 2 + 3184


def test_a_tokenizer_beside_the_adapter_goes_before_that_of_the_base(place: Path, tmp_path: Path) -> None:
    folder = copied(place, tmp_path)
    tokenizer = at(place / "base").load(None).tokenizer
    tokenizer.chat_template = "mine"
    tokenizer.save_pretrained(folder)
    assert at(folder).load(None).tokenizer.chat_template == "mine"
    assert at(place / "adapter").load(None).tokenizer.chat_template is None


@pytest.mark.parametrize("base", ["/no/such/base", "./none", "a/b/c", None, ""])
def test_a_base_that_is_nowhere_is_reported_with_the_remedy(base: str | None, place: Path, tmp_path: Path) -> None:
    reported = refusal(stated_base(copied(place, tmp_path), base))
    assert reported.startswith(
        f"model.path: '{tmp_path / 'adapter'}' holds an adapter whose base model {base!r} is not there;"
    )
    assert reported.endswith("or merge both and give the result")


def test_a_hub_id_that_cannot_be_reached_is_reported_as_such(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    reported = refusal(stated_base(copied(place, tmp_path), "nobody/none-such-model"))
    assert "' holds an adapter on 'nobody/none-such-model', which cannot be read (" in reported


def test_a_folder_with_a_whole_model_and_an_adapter_is_refused(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "base", copied(place, tmp_path), dirs_exist_ok=True)
    assert refusal(tmp_path / "adapter") == (
        f"model.path: '{tmp_path / 'adapter'}' holds a whole model (config.json) and an adapter (adapter_config.json); "
        "expected one of them; move the files of the other away"
    )


def test_what_does_not_merge_is_refused(place: Path, tmp_path: Path) -> None:
    config = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    get_peft_model(at(place / "base").load(None).model, config).save_pretrained(tmp_path)
    assert "holds an adapter of kind 'PROMPT_TUNING'; expected one that merges: LORA, " in refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"peft_type": "LORA"}', "\xff"])
def test_an_adapter_config_that_is_broken_is_reported(text: str, place: Path, tmp_path: Path) -> None:
    (copied(place, tmp_path) / "adapter_config.json").write_bytes(text.encode("latin-1"))
    assert "adapter_config.json' cannot be read (" in refusal(tmp_path / "adapter")


def test_weights_that_do_not_fit_the_base_are_reported(place: Path, tmp_path: Path) -> None:
    wide = TinyLlama(**{**SIZES, "hidden_size": 32}).load(None)
    for part in wide:
        part.save_pretrained(tmp_path / "wide")
    reported = refusal(stated_base(copied(place, tmp_path), str(tmp_path / "wide")))
    assert "size mismatch" in reported
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    assert "transformers cannot read" in refusal(stated_base(tmp_path / "adapter", str(place / "base")))


def test_reward_models_and_embedders_are_whole_models(place: Path) -> None:
    reading = Reading(layout="plain", max_length=8)
    common = {"path": str(place / "adapter"), "revision": None, "reading": reading, "trust_remote_code": False}
    for load in (
        SequenceRewardModel(**common, batch_size=1, dtype="float32").start,
        Embedder(**common, pooling="mean", features="joint").fingerprint,
    ):
        with pytest.raises(DataError, match=r"it holds an adapter \(adapter_config.json\), which has to be merged"):
            load()


def test_a_reward_model_reads_past_tokens_it_does_not_know(tmp_path: Path) -> None:
    folder = saved_model(tmp_path / "reward_model")
    keys = {"revision": None, "batch_size": 2, "dtype": "float32", "trust_remote_code": False}
    plain = SequenceRewardModel(path=str(folder), reading=Reading(layout="plain", max_length=64), **keys)
    expected = plain.score([("p", "a b")])
    _, tokenizer = plain._loaded
    tokenizer.add_special_tokens({"additional_special_tokens": ["<soft>"]})
    tokenizer.split_special_tokens = False
    assert plain.score([("p", "a b<soft>")]) == pytest.approx(expected)
