"""The memory of a run: what is estimated is what is really held."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, GPT2Config, LlamaConfig, Qwen2Config

from fixtures.memory import held_and_needed, phases, states_on_each_rank
from fixtures.ranks import on_ranks
from fixtures.training import problems, settings, tiny, tokenizer
from rrl.preflight import memory, passes
from rrl.preflight.memory import Need, Network
from rrl.training import policy_settings
from rrl.training.compiling import CompiledLayers
from rrl.training.policy_settings import Offload, PolicySettings
from rrl.training.warm_start import WarmStart

pytestmark = pytest.mark.ranks

EVERY = [
    {"critic": critic, "zero_stage": stage, "dtype": dtype}
    for critic in ("own", "shared")
    for stage in range(4)
    for dtype in ("float32", "bfloat16")
]
SIZE = {"vocabulary": 300, "hidden": 256, "layers": 2}
DEEP = {"vocabulary": 300, "hidden": 128, "layers": 4}


def test_states_at_rest_are_what_tensors_hold() -> None:
    [(held, needed)] = on_ranks(1, states_on_each_rank, {"critic": "own", "dtype": "bfloat16", "zero_stage": 2})
    assert needed == pytest.approx(held, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("changes", EVERY, ids=str)
def test_states_at_rest_are_what_tensors_hold_at_every_stage(changes: dict[str, Any]) -> None:
    [(held, needed)] = on_ranks(1, states_on_each_rank, changes)
    assert needed == pytest.approx(held, rel=0.06 if changes["zero_stage"] == 3 else 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [c for c in EVERY if c["critic"] == "own"], ids=str)
def test_states_at_rest_are_shared_out_as_estimated(changes: dict[str, Any]) -> None:
    for held, needed in on_ranks(2, states_on_each_rank, changes):
        assert needed == pytest.approx(held, rel=0.06 if changes["zero_stage"] == 3 else 0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "rows", "lengths", "changes"),
    [
        (SIZE, 2, (8, 8), {"critic": "own"}),
        (SIZE, 2, (8, 8), {"critic": "shared", "zero_stage": 1}),
        (SIZE, 2, (8, 8), {"critic": "own", "zero_stage": 2, "dtype": "bfloat16"}),
        (SIZE, 2, (8, 8), {"critic": "own", "zero_stage": 3}),
        (SIZE, 2, (8, 8), {"critic": "own", "lora": True}),
        ({"vocabulary": 20_000, "hidden": 64, "layers": 2}, 8, (16, 32), {"critic": "none"}),
        (DEEP, 8, (64, 64), {"critic": "shared"}),
        (DEEP, 8, (64, 64), {"critic": "none", "dtype": "bfloat16"}),
        (DEEP, 8, (64, 64), {"critic": "none", "gradient_checkpointing": True}),
    ],
    ids=["stage 0", "stage 1", "stage 2", "stage 3", "adapters", "logits", "activations", "bfloat16", "checkpoints"],
)
def test_the_peak_of_every_phase_is_near_what_the_allocator_gave_out(
    size: dict[str, int], rows: int, lengths: tuple[int, int], changes: dict[str, Any]
) -> None:
    [found] = on_ranks(1, held_and_needed, size, rows, lengths, changes)
    assert _ratios(found) == {name: pytest.approx(1.05, abs=0.2) for name in found}


def _ratios(found: dict[str, tuple[int, int]]) -> dict[str, float]:
    return {name: needed / held for name, (held, needed) in found.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config, GPT2Config])
def test_a_layer_saves_about_as_much_as_estimated(kind: Any, attention: str, dtype: Any) -> None:
    names = {"n_embd": 64, "n_head": 4, "n_layer": 1} if kind is GPT2Config else {
        "hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": 1,
    }  # fmt: skip
    config = kind(vocab_size=50, **names)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), attn_implementation=attention).train()
    needed = passes.saved_by_layer(passes.shape(model.config), 3, 64, dtype)
    assert needed / _saved(model, 3, 64) == pytest.approx(1.0, abs=0.35)


def _saved(model: Any, rows: int, width: int) -> int:
    """Bytes that a forward pass saves, logits aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    attention = torch.ones(rows, width, dtype=torch.long)
    attention[0, width // 2 :] = 0
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.base_model(input_ids=torch.ones(rows, width, dtype=torch.long), attention_mask=attention, use_cache=False)
    return sum(storage.nbytes() for place, storage in storages.items() if place not in weights)


def test_keys_and_values_are_those_of_the_cache() -> None:
    config = Qwen2Config(
        vocab_size=50, hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2,
        num_hidden_layers=3, attn_implementation="sdpa",
    )  # fmt: skip
    model, cache = AutoModelForCausalLM.from_config(config), DynamicCache()
    model(input_ids=torch.ones(5, 7, dtype=torch.long), past_key_values=cache, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    # One layer of three is there twice while it grows.
    assert passes.key_value_cache(passes.shape(model.config), 5, 7, "float32") == held * 4 // 3


@pytest.mark.slow
def test_a_warm_start_holds_what_is_estimated() -> None:
    [(held, needed)] = on_ranks(1, _warm_start)
    assert needed / held == pytest.approx(1.05, abs=0.2)


def _warm_start() -> tuple[int, int]:
    model, rows = tiny(layers=3), 256
    warm = WarmStart(steps=2, batch_size=rows, lr=1e-3, lr_warmup_steps=0, start_seed=0)
    hard = [problem for problem in problems() if problem.level == "L10"]

    def work(mark: Any) -> None:
        mark("warm start")
        warm.train(model, tokenizer(), hard, rows, lambda progress, metrics: None)

    whole = sum(p.numel() for p in model.parameters())
    need = replace(
        need_of(settings(), Network("actor", whole, 0, whole, 1536)), whole=whole, shape=passes.shape(model.config),
        longest_prompt=13, longest_reference=11, rows={"warm start": rows},
    )  # fmt: skip
    return phases(work)["warm start"] + 4 * whole, sum(memory.supervised(need).values())


# --- DeepSpeed's numbers ----------------------------------------------------------------------------------------------


def test_the_sizes_of_deepspeeds_buffers_are_its_defaults() -> None:
    from deepspeed.runtime.engine import MEMORY_OPT_ALLREDUCE_SIZE
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    assert DeepSpeedZeroConfig(stage=2).reduce_bucket_size == policy_settings.BUCKET
    assert MEMORY_OPT_ALLREDUCE_SIZE == policy_settings.BUCKET  # at stage 0
    third = DeepSpeedZeroConfig(stage=3)
    found = (third.max_live_parameters, third.param_persistence_threshold, third.prefetch_bucket_size)
    assert found == (memory.LIVE, memory.PERSISTENT, memory.PREFETCH)


def need_of(chosen: PolicySettings, *networks: Network, processes: int = 1, on_cpu: bool = True) -> Need:
    """What a run with these networks needs; the rest of it is as small as can be."""
    return Need(
        settings=chosen, networks=networks, shape=passes.shape(tiny().config), whole=1,
        engine=None, share=None, sleeps=False, divided=False, reference=False,
        processes=processes, on_cpu=on_cpu, shortest_prompt=10, longest_prompt=30, longest_reference=0,
        longest_response=50, rows={"gen": 1, "update_actor": 1},
    )  # fmt: skip


def test_more_processes_share_states_out_from_stage_1_on() -> None:
    need = need_of(settings(dtype="bfloat16"), Network("actor", 1_000_000, 0, 0, 100_000), processes=4)
    # Weights 2, copy and moments 12; at stage 3 gradients of 2 too, and a bucket of 2 that is not shared out.
    assert [memory.at_rest(there) for there in memory.by_stage(need)] == [14_000_000, 5_000_000, 5_000_000, 6_000_000]


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"compile": CompiledLayers()}, [0, 1, 2]),
        ({"offload": Offload(optimizer=True, reference=False), "zero_stage": 1}, [1, 2, 3]),
        ({"offload": Offload(optimizer=True, reference=True), "zero_stage": 3}, [3]),
    ],
)
def test_only_the_stages_that_other_settings_allow_are_planned(changes: dict[str, Any], stages: list[int]) -> None:
    found = memory.by_stage(need_of(settings(**changes), Network("actor", 1000, 0, 0, 500)))
    assert [there.settings.zero_stage for there in found] == stages


def test_frozen_parameters_have_no_states_and_small_tensors_stay_whole() -> None:
    adapted, cut = Network("actor", 1000, 9000, 0, 500), Network("actor", 1000, 0, 300, 500)
    # Weights 4 and moments 8; at stage 3 weights, gradients, copy and moments, a bucket of 4, and 300 weights again.
    assert memory.at_rest(need_of(settings(), adapted)) == 4 * 10_000 + 8 * 1000
    assert memory.at_rest(need_of(settings(zero_stage=3), cut, processes=4)) == 20_000 // 4 + 4000 + 4 * 300


def test_logits_are_needed_from_the_end_of_the_shortest_prompt_on() -> None:
    need = need_of(settings(), Network("actor", 1, 0, 0, 1))
    assert (need.width, need.columns) == (80, 71)


@pytest.mark.parametrize(("size", "rest"), [(10**6, 24 * 10**6), (10**9, 20 * 10**9 + 4 * 500_000_000)])
def test_a_bucket_is_as_large_as_the_network_up_to_a_limit(size: int, rest: int) -> None:
    # Weights and gradients 4 each, copy and moments 12, and a bucket of 4 bytes an element.
    need = need_of(settings(zero_stage=3), Network("actor", size, 0, 0, 1), on_cpu=False)
    assert memory.at_rest(need) == rest


def test_a_phase_that_does_not_come_is_left_out() -> None:
    assert list(memory.by_phase(need_of(settings(), Network("actor", 1, 0, 0, 1)))) == [
        "loading",
        "gen",
        "update_actor",
    ]


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, 4 * 14 + 8 * 3),  # 3 trained and 4 frozen weights and an actor of 7, in 4 bytes each; two moments
        ({"zero_stage": 1}, 4 * 14 + 12 * 3),
        ({"dtype": "bfloat16"}, 2 * 14 + 12 * 3),
        ({"dtype": "bfloat16", "zero_stage": 3}, 2 * 14 + 12 * 3),
    ],
)
def test_a_checkpoint_has_networks_moments_copies_and_an_actor(changes: dict[str, Any], size: int) -> None:
    assert settings(**changes).checkpoint_bytes(trained=3, frozen=4, whole=7) == size
