"""vLLM itself on the CPU: `make test-vllm`. What holds around it is in test_vllm_engine.py."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.trainer import history, same
from fixtures.training import LORA
from fixtures.vllm import PLAIN, drawn, greedy, loaded, losing, stopping_trainer, updates, vllm
from rrl.errors import DivergenceError
from rrl.parts.engines.hf import HFEngine
from rrl.training.trainer import Trainer

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed; see make test-vllm"),
]


def trainer(make: Callable[..., HFEngine] = vllm, **policy: Any) -> Trainer:
    return stopping_trainer(make(**PLAIN | {"max_response_length": 6}), **policy)


@pytest.mark.parametrize("tied", [True, False])
def test_greedy_rows_are_those_of_the_reference(tied: bool) -> None:
    model = loaded(tied=tied, eos=[2, 6])
    assert greedy(vllm(), model) == greedy(HFEngine(**PLAIN), model)


def test_drawn_rows_have_the_log_probabilities_of_the_policy() -> None:
    reported, expected, different = drawn(vllm(temperature=0.7), loaded())
    torch.testing.assert_close(reported, expected, rtol=1e-4, atol=1e-4)
    assert different > 1


@pytest.mark.parametrize("lora", [None, LORA], ids=["all weights", "adapters"])
def test_twenty_updates_are_handed_over(lora: Any) -> None:
    run = trainer(lora=lora)
    found = updates(run, 20)
    assert found["norms"] == 20 and found["difference"] < 1e-5 and found["divergence"] < 1e-8
    assert run.policy.version == 40


@pytest.mark.parametrize("lost", ["model.layers.1.self_attn.k_proj.weight", "model.embed_tokens.weight"])
def test_a_hand_over_that_loses_a_weight_stops_a_run_at_its_first_step(
    lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing(monkeypatch, lost)
    run = trainer()
    with pytest.raises(DivergenceError, match=r"step 1: engine: after weights were handed over.* the policy's"):
        next(run.run())
    assert run.global_step == 0


def test_the_same_run_again_is_the_same_to_the_bit_and_so_is_its_second_half(tmp_path: Path) -> None:
    """An engine that begins at step 3 has no cache and no weights; evaluation and training share nothing either."""
    whole, again, rest = history(trainer(), 4), trainer(), trainer()
    first = history(again, 2)
    again.policy.save_state(tmp_path)
    rest.policy.load_state(tmp_path)
    for part in ("policy", "engine", "sampler", "reward", "objective"):
        getattr(rest, part).load_state_dict(getattr(again, part).state_dict())
    rest.load_state_dict(again.state_dict())
    assert same([*first[:-1], *history(rest, 2)], whole)
