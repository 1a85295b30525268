"""vLLM itself on the CPU: `make test-vllm`. What holds around it is in test_vllm_engine.py."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.trainer import history, same
from fixtures.training import LORA, make_trainer, replay, tokenizer
from fixtures.vllm import PLAIN, loaded, losing, qwen2, started, states, vllm
from rrl.errors import DivergenceError
from rrl.parts.engines.hf import HFEngine
from rrl.training.trainer import Trainer

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed; see make test-vllm"),
]


def trainer(make: Callable[..., HFEngine] = vllm, **policy: Any) -> Trainer:
    """A trainer on a Qwen2 that replays half of its starts, and stops where engine and policy disagree."""
    engine = make(**PLAIN | {"max_response_length": 6})
    settings = {"model": qwen2(len(tokenizer())), "actor_lr": 1e-3} | policy
    return make_trainer(engine=engine, sampler=replay(0.5), policy=settings, on_mismatch="stop", mismatch_limit=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_greedy_rows_are_those_of_the_reference(tied: bool) -> None:
    """From prefixes too, to stop texts, several end tokens and limits."""
    model = loaded(tied=tied, eos=[2, 6])
    ours, plain = started(vllm(), model), started(HFEngine(**PLAIN), model)
    for changes in ({}, {"stop": ("c", "a b")}, {"max_new_tokens": 2}):
        sampling = replace(plain.sampling, temperature=0.0, **changes)
        assert ours.generate(states(), sampling) == plain.generate(states(), sampling)


def test_drawn_rows_have_the_log_probabilities_of_the_policy() -> None:
    model = loaded()
    rows = started(vllm(temperature=0.7), model).generate(states() * 3)
    for row in rows:
        context = (*row.state.problem.prompt, *row.tokens)
        logits = model.model(input_ids=torch.tensor([context])).logits[0] / 0.7
        expected = logits.log_softmax(-1)[-len(row.actions) - 1 : -1].gather(1, torch.tensor(row.actions)[:, None])
        torch.testing.assert_close(torch.tensor(row.logprobs), expected[:, 0].detach(), rtol=1e-4, atol=1e-4)
    at_once = [row for row in rows if row.state.problem.id == "p0"]
    assert len({row.actions for row in at_once}) > 1


@pytest.mark.parametrize("lora", [None, LORA], ids=["all weights", "adapters"])
def test_twenty_updates_are_handed_over(lora: Any) -> None:
    run = trainer(lora=lora)
    norms, differences = set(), []
    for _ in range(20):
        assert run.step()["training/rollout_kl"] < 1e-8
        assert run.engine.handed_over is not None
        norms.add(run.engine.handed_over.sent)
        differences.append(run.engine.handed_over.difference)
    assert len(norms) == 20
    assert max(differences) < 1e-5
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
