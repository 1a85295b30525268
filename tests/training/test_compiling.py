"""Compiled layers: the same numbers to rounding, no compiled generation, and what is refused."""

import shutil
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from fixtures.policy import learn
from fixtures.training import LORA, make_engine, make_policy, make_trainer, problems, raw_batch, settings
from rrl.errors import ConfigError
from rrl.training.compiling import CompiledLayers, layers_of
from rrl.types import State


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tests are without."""
    monkeypatch.delenv("TORCHDYNAMO_DISABLE")


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"critic": "shared"}, {"lora": LORA}, {"gradient_checkpointing": True}])
def test_compiled_layers_learn_the_same(changes: dict[str, Any]) -> None:
    for mine, theirs in zip(learn(compile=CompiledLayers(), **changes), learn(**changes), strict=True):
        assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_generation_compiles_nothing() -> None:
    policy = make_policy(compile=CompiledLayers(), critic="none")
    writer = make_engine()
    writer.start(policy, policy._tokenizer, 0)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    writer.generate([State(problem) for problem in problems()[:3]])
    assert not torch._dynamo.utils.counters["stats"]
    policy(raw_batch())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_the_layers_are_the_longest_list_of_modules() -> None:
    trainer = make_trainer()
    assert [type(layer).__name__ for layer in layers_of(trainer.policy.actor)] == ["LlamaDecoderLayer"]
    assert not layers_of(torch.nn.Linear(2, 2))


def test_zero_3_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^zero_stage: expected 0, 1 or 2 with compile=layers, got 3"):
        settings(compile=CompiledLayers(), zero_stage=3)


def test_a_missing_compiler_is_reported_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigError) as caught:
        make_policy(compile=CompiledLayers())
    assert caught.value.faults == (
        "compile: layers needs a C++ compiler, and there is none; install g++ or clang++, or set compile=none",
    )
