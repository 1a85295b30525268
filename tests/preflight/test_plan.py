"""The plan of a run: it counts what a run does, estimates what memory is really held, and makes nothing."""

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, GPT2Config, LlamaConfig, Qwen2Config

from fixtures.memory import held_and_needed, phases, states_on_each_rank
from fixtures.ranks import on_ranks
from fixtures.training import LORA, make_policy, networks, problems, settings, tiny, tokenizer, trainer_settings
from rrl.cli import train
from rrl.config.check import Parts, load
from rrl.errors import ConfigError, DataError
from rrl.preflight import capacity, forecast, memory_model
from rrl.preflight.capacity import Disk, Phase, full, shortages
from rrl.preflight.forecast import Between
from rrl.preflight.memory_by_phase import Lengths, Need, Rows
from rrl.preflight.memory_model import Network, World
from rrl.preflight.plan import Plan, as_text, at_start, plan
from rrl.processes.machine import MemoryInfo
from rrl.runs.assemble import prepare
from rrl.training import policy_settings
from rrl.training.evaluation import Evaluation
from rrl.training.models import TinyLlama
from rrl.training.networks import on_meta
from rrl.training.warm_start import WarmStart

SMALL = ("task.train_per_level=20", "task.test_per_level=5", "evaluation.limit=5")


def planned(folder: Path, *overrides: str) -> Plan:
    """The plan of a small run of the embedded task."""
    return plan(*configured(folder, *overrides))


def configured(folder: Path, *overrides: str) -> tuple[dict[str, Any], Parts]:
    return load("train", [*SMALL, f"run.dir={folder / 'run'}", f"run.cache_dir={folder / 'cache'}", *overrides])


# --- what a run does --------------------------------------------------------------------------------------------------


def test_sequences_become_optimiser_steps_and_micro_batches() -> None:
    sizes = trainer_settings(train_batch_size=6, n=4, ppo_mini_batch_size=12, ppo_epochs=3)
    step = forecast.step(sizes, settings(micro_batch_size=4), processes=2)
    assert (step.sequences, step.mini_batches, step.optimiser_steps) == (24, 2, 6)
    assert (step.rows, step.micro_batches, step.micro_rows) == (6, 2, 4)


def test_rows_that_do_not_divide_are_rounded_up() -> None:
    step = forecast.step(trainer_settings(ppo_mini_batch_size=4), settings(micro_batch_size=8), processes=3)
    assert (step.rows, step.micro_batches, step.micro_rows) == (2, 1, 2)


def test_a_limit_in_tokens_bounds_the_steps() -> None:
    limits = trainer_settings(train_batch_size=10, ppo_mini_batch_size=10, total_training_steps=None, total_tokens=1001)
    # 10 responses of 1 to 8 tokens a step: 1001 / 80, / 10, and / 25 where 2.5 is likely.
    assert forecast.training_steps(limits, longest=8, likely=2.5) == Between(13, 41, 101)
    assert forecast.training_steps(limits, longest=8, likely=0.0) == Between(13, None, 101)
    assert forecast.training_steps(limits, longest=8, likely=99.0).likely == 13


def test_the_lower_of_two_limits_counts() -> None:
    limits = trainer_settings(train_batch_size=10, ppo_mini_batch_size=10, total_training_steps=50, total_tokens=1001)
    assert forecast.training_steps(limits, longest=8, likely=2.5) == Between(13, 41, 50)
    steps = trainer_settings(total_training_steps=7, total_tokens=None)
    assert forecast.training_steps(steps, longest=8, likely=None) == Between(7, 7, 7)


def test_the_last_step_may_go_over_the_limit_in_tokens() -> None:
    limits = trainer_settings(train_batch_size=10, ppo_mini_batch_size=10, total_training_steps=None, total_tokens=1001)
    assert forecast.most_tokens(limits, Between(13, 41, 101), longest=8) == 1080
    steps = trainer_settings(train_batch_size=10, ppo_mini_batch_size=10, total_training_steps=3)
    assert forecast.most_tokens(steps, Between(3, 3, 3), longest=8) == 240


@pytest.mark.parametrize(("steps", "every", "count"), [(10, 5, 3), (11, 5, 4), (3, 5, 2), (10, None, 2)])
def test_evaluations_come_before_in_between_and_at_the_end(steps: int, every: int | None, count: int) -> None:
    assert forecast.evaluations(steps, every) == count


@pytest.mark.parametrize(("steps", "every", "count"), [(10, 5, 2), (11, 5, 3), (3, None, 1)])
def test_a_checkpoint_is_written_at_the_end_too(steps: int, every: int | None, count: int) -> None:
    assert forecast.checkpoints(steps, every) == count


def test_an_evaluation_writes_one_greedy_response_and_n_sampled_ones() -> None:
    shape = {"split": "test", "limit": None, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "seed": 0}
    assert forecast.responses(Evaluation(greedy=True, n=4, **shape), 6) == 30
    assert forecast.responses(Evaluation(greedy=False, n=4, **shape), 6) == 24


# --- the data and the parameters of a configuration -------------------------------------------------------------------


def test_problems_are_counted_by_level(tmp_path: Path) -> None:
    made = planned(tmp_path)
    assert made.train.levels == {"L3": 20, "L10": 20}
    assert made.test.levels == {"L3": 5, "L6": 5, "L10": 5}
    assert set(made.train.prompts) == {13}  # a digit, ten instructions, "=" and the begin token
    assert sum(made.train.references) / 40 == 7.5  # 3 or 10 digits and the end token


@pytest.mark.parametrize("critic", ["own", "shared", "none"])
@pytest.mark.parametrize("lora", [None, LORA])
def test_parameters_are_those_of_the_policy(critic: Any, lora: Any) -> None:
    from rrl.preflight.capacity import _networks

    chosen = settings(critic=critic, lora=lora, head_size=3)
    real = networks(make_policy(**{"critic": critic, "lora": lora, "head_size": 3}))
    expected = [[sum(p.numel() for p in m.parameters() if p.requires_grad is on) for on in (True, False)] for m in real]
    assert [[one.trained, one.frozen] for one in _networks(tiny(), chosen)] == expected


def test_a_model_of_seven_billion_parameters_is_planned_without_allocating_it(tmp_path: Path) -> None:
    [(parameters, networks_, peak)] = on_ranks(1, _plan_of_a_large_model, str(tmp_path))
    assert parameters == 7_615_616_512  # Qwen2.5-7B, as its authors count
    assert networks_ == [("actor", 7_615_616_512), ("critic", 7_615_616_512 - 152_064 * 3584 + 3585)]
    assert peak < 2 * 2**30


def _plan_of_a_large_model(folder: str) -> tuple[int, list[tuple[str, int]], int]:
    path = Path(folder)
    _write_large_model(path / "large")
    rows = [{"question": "Two and two?", "answer": "Four.\n#### 4"}] * 9
    for split in ("train", "test"):
        (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = ["task=gsm8k", f"data.path={path}", "model=hf", f"model.path={path / 'large'}", f"run.dir={path / 'run'}"]
    made = plan(*load("train", [*keys, "run.save_freq=null"]))
    assert any("large" in warning and "weights" in warning for warning in made.warnings)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return made.need.whole, [(one.name, one.trained) for one in made.need.networks], peak


def _write_large_model(folder: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    small = TinyLlama(**sizes, max_position_embeddings=64, initializer_range=0.1, init_seed=0)
    small.load(None).tokenizer.save_pretrained(folder)
    Qwen2Config(
        vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, max_position_embeddings=32_768, tie_word_embeddings=False,
    ).save_pretrained(folder)  # fmt: skip


# --- memory: what is estimated is what is held ------------------------------------------------------------------------

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
    needed = memory_model.saved_by_layer(memory_model.shape(model.config), 3, 64, dtype)
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
    assert memory_model.key_value_cache(memory_model.shape(model.config), 5, 7, "float32") == held * 4 // 3


@pytest.mark.slow
def test_a_warm_start_holds_what_is_estimated() -> None:
    [(held, needed)] = on_ranks(1, _warm_start)
    assert needed / held == pytest.approx(1.05, abs=0.2)


def _warm_start() -> tuple[int, int]:
    model, rows = tiny(layers=3), 256
    warm = WarmStart(
        steps=2, batch_size=rows, micro_batch_size=rows, lr=1e-3, lr_warmup_steps=0, weight_decay=0.0, grad_clip=1.0,
        demonstrations=None, seed=0,
    )  # fmt: skip
    hard = [problem for problem in problems() if problem.level == "L10"]

    def work(mark: Any) -> None:
        mark("warm start")
        warm.train(model, tokenizer(), hard, lambda progress, metrics: None)

    whole, shape = sum(p.numel() for p in model.parameters()), memory_model.shape(model.config)
    one = Network("actor", whole, 0, whole, 1536)
    need = Need(
        settings=settings(), engine=None, shape=shape, whole=whole, networks=[one], reference=False,
        lengths=Lengths(13, 13, 11, 16), rows=Rows(1, 1, 1, rows), world=World(1, on_cpu=True),
    )  # fmt: skip
    return phases(work)["warm start"] + 4 * whole, sum(need.warm_start().values())


# --- memory: DeepSpeed's numbers and its own estimate -----------------------------------------------------------------


def test_the_sizes_of_deepspeeds_buffers_are_its_defaults() -> None:
    from deepspeed.runtime.engine import MEMORY_OPT_ALLREDUCE_SIZE
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    assert DeepSpeedZeroConfig(stage=2).reduce_bucket_size == policy_settings.BUCKET
    assert MEMORY_OPT_ALLREDUCE_SIZE == policy_settings.BUCKET  # at stage 0
    third = DeepSpeedZeroConfig(stage=3)
    found = (third.max_live_parameters, third.param_persistence_threshold, third.prefetch_bucket_size)
    assert found == (memory_model.LIVE, memory_model.PERSISTENT, memory_model.PREFETCH)


def test_deepspeeds_own_estimate_is_given_where_it_fits() -> None:
    one = Network("actor", 1_000_000, 0, 0, 100_000)
    half = settings(dtype="bfloat16")
    assert memory_model.deepspeeds_own([one], replace(half, zero_stage=2), 4) == 2_000_000 + 18 * 1_000_000 // 4
    assert memory_model.deepspeeds_own([one], replace(half, zero_stage=3), 4) == 18 * 1_000_000 // 4 + 4 * 100_000
    for other in (settings(zero_stage=2), replace(half, zero_stage=1)):
        assert memory_model.deepspeeds_own([one], other, 4) is None
    assert memory_model.deepspeeds_own([replace(one, frozen=1)], replace(half, zero_stage=2), 4) is None


def test_more_processes_share_states_out_from_stage_1_on() -> None:
    one = Network("actor", 1_000_000, 0, 0, 100_000)
    stages = [settings(zero_stage=stage, dtype="bfloat16") for stage in range(4)]
    rest = [memory_model.at_rest([one], each, World(4, on_cpu=True)) for each in stages]
    # Weights 2, copy and moments 12; at stage 3 gradients of 2 too, and a bucket of 2 that is not shared out.
    assert rest == [14_000_000, 5_000_000, 5_000_000, 6_000_000]


def test_frozen_parameters_have_no_states_and_small_tensors_stay_whole() -> None:
    adapted, cut = Network("actor", 1000, 9000, 0, 500), Network("actor", 1000, 0, 300, 500)
    # Weights 4 and moments 8; at stage 3 weights, gradients, copy and moments, a bucket of 4, and 300 weights again.
    assert memory_model.at_rest([adapted], settings(), World(1, on_cpu=True)) == 4 * 10_000 + 8 * 1000
    assert memory_model.at_rest([cut], settings(zero_stage=3), World(4, on_cpu=True)) == 20_000 // 4 + 4000 + 4 * 300


def test_logits_are_needed_from_the_end_of_the_shortest_prompt_on() -> None:
    lengths = Lengths(shortest=10, longest=30, reference=0, response=50)
    assert (lengths.width, lengths.columns) == (80, 71)


def test_a_bucket_is_as_large_as_the_network_up_to_a_limit() -> None:
    chosen = settings(zero_stage=3)
    rest = [
        memory_model.at_rest([Network("actor", size, 0, 0, 1)], chosen, World(1, on_cpu=False))
        for size in (10**6, 10**9)
    ]
    # Weights and gradients 4 each, copy and moments 12, and a bucket of 4 bytes an element.
    assert rest == [20 * 10**6 + 4 * 10**6, 20 * 10**9 + 4 * 500_000_000]


# --- warnings ---------------------------------------------------------------------------------------------------------


def test_a_phase_that_does_not_fit_names_the_keys_to_lower(tmp_path: Path) -> None:
    config, _ = configured(tmp_path)
    room = MemoryInfo("main memory", 100 * 2**30, 3 * 2**30)
    parts = {"logits": 3 * 2**30, "activations": 2**30}
    [told] = shortages([Phase("update_actor", parts, room), Phase("gen", {"logits": 1}, room)], config, 1)
    assert "update_actor needs about 4 GiB" in told
    assert "3 GiB of main memory" in told
    assert "policy.micro_batch_size=64" in told


def test_a_disk_without_room_for_the_checkpoints_is_told() -> None:
    assert "run.keep_last" in full(Disk(size=10, kept=2, total=40, free=39))[0]
    assert full(Disk(size=10, kept=2, total=40, free=40)) == []


def test_a_checkpoint_is_as_large_as_estimated(tmp_path: Path) -> None:
    keys = ["warmstart=none", "trainer.total_tokens=null", "trainer.total_training_steps=1", "run.threads=1"]
    sizes = ["trainer.train_batch_size=8", "trainer.ppo_mini_batch_size=8", "model.hidden_size=128"]
    estimate = planned(tmp_path, *keys, *sizes).disk.size
    train._train([*SMALL, f"run.dir={tmp_path / 'run'}", *keys, *sizes])
    written = sum(path.stat().st_size for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file())
    assert estimate == pytest.approx(written, rel=0.05)


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_plan_and_makes_nothing(tmp_path: Path) -> None:
    done = _dry_run(tmp_path, *SMALL, "trainer.total_tokens=null", "trainer.total_training_steps=10")
    assert done.returncode == 0, done.stderr
    assert "256 starts x 1 = 256 sequences -> 2 mini-batches x 2 epochs = 4 optimiser steps" in done.stdout
    assert "10 steps -> 40 optimiser steps" in done.stdout
    assert list(tmp_path.rglob("*")) == []


def _dry_run(folder: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "rrl.cli.train", "dry_run=true", *overrides]
    quiet = {"RRL_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env={**os.environ, **quiet}, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["dry_run=yes"], ["dry_run: expected true or false, got 'yes'"]),
        (["dry_run=true", "objective.clp=1", "trainer.n=0"], ["objective.clp", "trainer.n"]),
        (["dry_run=true", "resume=runs/one"], ["dry_run", "resume=runs/one"]),
    ],
)
def test_a_dry_run_tells_the_faults_of_a_start(arguments: Sequence[str], told: Sequence[str]) -> None:
    with pytest.raises(ConfigError) as error:
        train._train(arguments)
    assert all(word in str(error.value) for word in told)


def test_a_dry_run_reads_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl"):
        plan(*load("train", ["task=gsm8k", f"data.path={tmp_path / 'nowhere'}", f"run.dir={tmp_path / 'run'}"]))


def test_a_dry_run_refuses_the_directory_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"run\.dir"):
        planned(tmp_path)


def test_the_text_names_every_phase_and_every_stage(tmp_path: Path) -> None:
    text = as_text(planned(tmp_path, "policy.zero_stage=1"))
    for phase in ("loading", "warm start", "gen", "old_log_prob", "update_actor"):
        assert f"\n             {phase}" in text
    assert [line.split()[0] for line in text.splitlines()[-4:]] == ["0", "1", "2", "3"]
    assert text.splitlines()[-3].endswith("chosen")


HERE = capacity.Here(MemoryInfo("main memory", 2**34, 2**33), [], 2**28)


def started(folder: Path, *overrides: str, here: capacity.Here = HERE, **changes: Any) -> list[str]:
    """The lines of a start, on a machine with 8 GiB free whose program takes 256 MiB."""
    config, parts = configured(folder, "warmstart=none", *overrides)
    prepared = prepare(config, parts, lambda share, metrics: None)
    return at_start(config, parts, folder / "run", replace(prepared, **changes), here)


def test_a_start_tells_its_plan_in_a_few_lines(tmp_path: Path) -> None:
    lines = started(tmp_path, "trainer.total_tokens=null", "trainer.total_training_steps=10")
    assert lines[:3] == [
        "plan: 256 starts x 1 = 256 sequences -> 2 mini-batches x 2 epochs = 4 optimiser steps",
        "plan: mini-batch: 128 sequences = 1 process x 1 micro-batch of at most 128 rows",
        "plan: 10 steps, 40 optimiser steps, 40,960 new tokens at most, 2 evaluations of 75 responses, 1 checkpoints",
    ]  # 10 x 256 x 16 tokens; 15 problems, each one greedy response and 4 samples
    # The same estimates as the whole plan's: the program's 256 MiB and what the tiny model takes.
    assert re.fullmatch(
        r"plan: memory of each process, estimated, of what is free: loading 2\d\d MiB of 8 GiB, "
        r"gen 2\d\d MiB of 8 GiB, old_log_prob 2\d\d MiB of 8 GiB, update_actor 3\d\d MiB of 8 GiB",
        lines[3],
    )
    assert len(lines) == 4


def test_a_start_is_warned_of_what_will_not_fit(tmp_path: Path) -> None:
    lines = started(tmp_path, here=HERE._replace(memory=MemoryInfo("main memory", 2**34, 2**28)))
    assert any(line.startswith("warning: update_actor needs about 3") and "256 MiB of main" in line for line in lines)


def test_the_plan_of_a_start_leaves_the_model_as_it_is_and_copies_no_weight() -> None:
    model = tiny()
    bare = on_meta(model)
    assert {p.device.type for p in bare.parameters()} == {"meta"}
    assert [p.shape for p in bare.parameters()] == [p.shape for p in model.parameters()]
    LORA.wrap(bare)
    assert not any("lora" in name for name, _ in model.named_modules())
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_what_cannot_be_planned_is_trained_all_the_same(tmp_path: Path) -> None:
    lines = started(tmp_path, model=torch.nn.Linear(2, 2))
    assert lines == ["plan: none could be made (AttributeError: 'Linear' object has no attribute 'config')"]


def test_bounds_are_told_with_what_is_likely(tmp_path: Path) -> None:
    limited = planned(tmp_path, "trainer.total_tokens=300000", "trainer.total_training_steps=null")
    assert "74 to 1,172 (157) steps -> 296 to 4,688 (628) optimiser steps" in as_text(limited)
