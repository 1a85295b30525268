"""Plans of large models: what they need, and the smallest machine that they fit on."""

import json
from pathlib import Path

import pytest
from transformers import Qwen2Config

from rrl.config.check import load
from rrl.errors import ConfigError
from rrl.preflight.plan import Plan, before_warm_start, plan, plan_text
from rrl.training.models import TinyLlama

GIB = 2**30
SEVEN = {"hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28,
         "num_key_value_heads": 4, "vocab_size": 152_064, "tie_word_embeddings": False}  # fmt: skip
HALF = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True}  # fmt: skip
"""The shapes of Qwen2.5-7B and Qwen2.5-0.5B."""
ON_EIGHT = ("launcher.num_processes=8", "policy.zero_stage=3", "policy.dtype=bfloat16",
            "policy.gradient_checkpointing=true")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Problems of MATH whose longest prompt has the 512 tokens that are allowed, and a tokenizer."""
    folder = tmp_path_factory.mktemp("large")
    sizes = {"hidden_size": 2, "num_hidden_layers": 1, "max_prompt_length": 1, "max_response_length": 1}
    tokenizer = TinyLlama(**sizes, start_seed=0).load(None).tokenizer
    for name, shape in (("seven", SEVEN), ("half", HALF)):
        tokenizer.save_pretrained(folder / name)
        Qwen2Config(**shape, max_position_embeddings=32_768).save_pretrained(folder / name)
    rows = [
        {"problem": "a" * size, "solution": r"\boxed{4}", "level": "Level 1", "type": "Algebra"} for size in (9, 456)
    ]
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def planned(folder: Path, model: str, *keys: str) -> Plan:
    at = ["task=math", f"data.path={folder}", "model=hf", f"model.path={folder / model}", f"run.dir={folder / 'run'}"]
    return plan(*load("train", [*at, "run.save_freq=null", *keys]))


def test_seven_billion_parameters_load_and_train_in_shares(folder: Path) -> None:
    made = planned(folder, "seven", "algo=ppo", "trainer.ppo_mini_batch_size=64", *ON_EIGHT)
    need = {phase.name: phase.total / GIB for phase in made.phases}
    assert (made.need.width, made.need.rows["update_actor"]) == (1280, 8)
    assert need["loading"] < 16
    assert max(need["gen"], need["old_log_prob"], need["update_actor"]) < 64
    fit = "1 x 80 GiB with launcher.num_processes=1 policy.micro_batch_size=1 offload=optimizer"
    where = "; the smallest of 1 x 16, 1 x 24, 1 x 80, 8 x 80 GiB"
    assert f"fits on      {fit}, and 219 GiB of main memory a process{where}" in plan_text(made)


def test_seven_billion_parameters_fit_on_eight_cards_as_they_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrl.preflight.cards.MACHINES", ((8, 24), (8, 80)))
    made = planned(folder, "seven", "algo=ppo", "trainer.ppo_mini_batch_size=64", *ON_EIGHT)
    assert str(made.smallest) == "8 x 80 GiB"


def test_whole_weights_are_needed_where_they_are_not_divided(folder: Path) -> None:
    whole = planned(folder, "seven", "algo=ppo", *ON_EIGHT[:1], "policy.zero_stage=2")
    assert whole.phases[0].total / GIB > 80


def test_half_a_billion_parameters_with_a_critic_fit_on_one_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ("policy.dtype=bfloat16", "policy.gradient_checkpointing=true")
    made = planned(folder, "half", "algo=ppo", *keys)
    assert [one.name for one in made.need.networks] == ["actor", "critic"]
    with_offload = " with policy.zero_stage=1 offload=optimizer, and 14.7 GiB of main memory a process"
    assert str(made.smallest) == f"1 x 16 GiB{with_offload}"
    monkeypatch.setattr("rrl.preflight.cards.MACHINES", ((1, 24),))
    assert str(planned(folder, "half", "algo=ppo", *keys).smallest) == "1 x 24 GiB"
    float32 = planned(folder, "half", "algo=ppo")
    assert str(float32.smallest) == "1 x 24 GiB with policy.gradient_checkpointing=true policy.micro_batch_size=1"


def test_a_model_that_fits_nowhere_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrl.preflight.cards.MACHINES", ((1, 16),))
    made = planned(folder, "seven", "algo=ppo")
    assert "\nfits on      none; the smallest of 1 x 16 GiB\n" in plan_text(made)


# --- vLLM -------------------------------------------------------------------------------------------------------------


VLLM = ("engine=vllm", "algo=ppo", "objective.importance_cap=2")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM counts as installed: nothing here starts it."""
    monkeypatch.setattr("rrl.parts.engines.vllm.VLLM.faults", lambda self: [])


def test_the_share_of_vllm_is_in_every_phase(folder: Path, installed: None) -> None:
    made = planned(folder, "half", *VLLM)
    room = made.phases[-1].room.total
    for phase in made.phases[1:]:
        assert phase.parts["the engine's share"] == int(0.4 * room)
    assert "keys and values" not in made.phases[1].parts
    assert any("engine.memory=0.2" in warning for warning in made.warnings if warning.startswith("update_actor"))


def test_a_share_below_the_weights_is_reported(folder: Path, installed: None) -> None:
    [warning] = [each for each in planned(folder, "seven", *VLLM, "engine.memory=0.1").warnings if "alone" in each]
    assert warning.startswith("engine.memory: 0.1, which is ")
    assert "its weights alone take 14.2 GiB; raise it, or engine.tensor_parallel_size" in warning


def test_no_machine_is_named_that_vllm_cannot_begin_on(folder: Path, installed: None) -> None:
    """Its share of 80 GiB is below the weights; two processes divide them, which one accelerator does not have."""
    assert planned(folder, "seven", *VLLM, *ON_EIGHT, "engine.memory=0.1").smallest is None
    divided = planned(folder, "half", *VLLM, "launcher.num_processes=2", "engine.tensor_parallel_size=2")
    assert str(divided.smallest) == "8 x 80 GiB with launcher.num_processes=8 policy.gradient_checkpointing=true"


@pytest.mark.parametrize("size", [3, 8])
def test_what_vllm_cannot_divide_is_refused_before_a_model_loads(
    folder: Path, installed: None, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    _, parts = load("train", [
        "task=math", f"data.path={folder}", "model=hf", f"model.path={folder / 'seven'}", f"run.dir={folder / 'run'}",
        *VLLM, *ON_EIGHT, f"engine.tensor_parallel_size={size}",
    ])  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        before_warm_start(parts, lambda vocabulary: pytest.fail("a model was loaded"))
    expected = (
        f"engine.tensor_parallel_size: {size}; expected a divisor of launcher.num_processes = 8 and of the model's 28 "
        "attention heads (4 of keys and values); set one of 1, 2, 4"
    )
    assert list(caught.value.faults) == [expected]
