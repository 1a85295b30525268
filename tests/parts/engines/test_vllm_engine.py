"""The engine around vLLM, without vLLM: what it refuses, what it hands over, when rows end. See test_vllm.py."""

import importlib.util
import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from fixtures import vllm as fake
from fixtures.config import faults
from fixtures.replay import EOS
from fixtures.vllm import LLM, PLAIN, loaded, losing, pretended, qwen2, started, states, vllm
from rrl.errors import ConfigError, DivergenceError
from rrl.parts.engines.handing_over import HandOver, norm, weights_of
from rrl.parts.engines.hf import HFEngine
from rrl.types import Rollout

__all__ = ["pretended"]
with_fake = pytest.mark.usefixtures("pretended")


def greedy(engine: HFEngine, model: Any, **changes: Any) -> list[Rollout]:
    """The likeliest responses from all starts."""
    return started(engine, model).generate(states(), replace(engine.sampling, temperature=0.0, **changes))


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_without_vllm_a_configuration_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    expected = "engine: vllm is not installed; expected it; pip install 'rrl[vllm]', or use engine=auto"
    assert faults("engine=vllm") == [expected]


@pytest.mark.parametrize(
    "change", [{"memory": 0}, {"memory": 1.1}, {"tolerance": 0}, {"tensor_parallel_size": 0}, {"temperature": 0.001}]
)
def test_settings_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        vllm(**change)


@with_fake
def test_weights_are_divided_among_processes_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"tensor_parallel_size: 2; expected a divisor of launcher.num_processes = 1"):
        started(vllm(tensor_parallel_size=2), loaded()).generate(states())


@with_fake
def test_on_a_cpu_sleep_is_without_effect(caplog: pytest.LogCaptureFixture) -> None:
    assert started(vllm(sleep=True), loaded()).generate(states()[:1])
    assert "engine.sleep: without effect" in caplog.text


# --- hand-over --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "fine"),
    [
        ((3.0, 3.0, 0.001), True),
        ((3.0, 3.0, 0.0011), False),
        ((2.999, 3.0, 0.0), False),
        ((3.0, 3.0, math.nan), False),
        ((math.nan, math.nan, 0.0), False),
    ],
)
def test_a_hand_over_is_good_when_log_probabilities_and_norms_agree(numbers: tuple[float, ...], fine: bool) -> None:
    assert (HandOver(*numbers).fault(0.001) is None) == fine


def test_a_bad_hand_over_is_reported_with_its_numbers() -> None:
    fault = HandOver(2.5, 3.0, 0.75).fault(0.001)
    assert fault is not None
    assert "differ from the policy's by 0.75 nats, and the weights sent have the norm 2.5, the policy's 3;" in fault
    assert "at most 0.001 nats (engine.tolerance)" in fault


def test_the_norm_is_that_of_all_weights_together() -> None:
    assert norm([("a", torch.tensor([3.0, 4.0])), ("b", torch.tensor([[12.0]]))]) == 13.0


@pytest.mark.parametrize("tied", [True, False])
def test_adapters_are_merged_into_what_is_handed_over_and_the_model_stays(tied: bool) -> None:
    model = get_peft_model(qwen2(12, tied=tied), LoraConfig(r=2, lora_alpha=6.0, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += 0.1 * (".lora_" in name)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    sent = {name: weight.clone() for name, weight in weights_of(model)}  # merging works in place
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    merged = dict(model.merge_and_unload().named_parameters())
    assert sent.keys() == merged.keys()
    for name, weight in merged.items():
        torch.testing.assert_close(sent[name], weight.detach(), rtol=1e-6, atol=1e-6)


class Moving:
    """A source whose weights change with every version."""

    def __init__(self, model: Any) -> None:
        self.version, self.model, self.lent = 0, model, 0

    @contextmanager
    def generation_model(self) -> Iterator[Any]:
        self.lent += 1
        with torch.no_grad():
            yield self.model


@with_fake
def test_weights_are_handed_over_once_for_each_version_and_the_prefix_cache_does_not_outlive_them() -> None:
    model, engine = loaded(), vllm()
    source = Moving(model.model)
    engine.start(source, model.tokenizer, 0)  # type: ignore[arg-type]
    engine.generate(states()[:2])
    engine.generate(states()[:2])
    assert source.lent == 1
    with torch.no_grad():
        model.model.model.norm.weight *= 1.5
    source.version, resets = 1, engine._engine.resets
    assert engine.generate(states()[:1])[0].version == 1
    assert source.lent == 2
    assert engine._engine.resets == resets + 2
    assert engine.handed_over is not None
    assert engine.handed_over.difference < 1e-5


@with_fake
@pytest.mark.parametrize("lost", ["model.norm.weight", "model.layers.1.self_attn.k_proj.bias", "lm_head.weight"])
def test_a_weight_that_is_not_sent_stops_the_run(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(tied=False)
    torch.nn.init.normal_(model.model.model.layers[1].self_attn.k_proj.bias)
    losing(monkeypatch, lost)
    with pytest.raises(DivergenceError, match=r"nats, and the weights sent have the norm"):
        started(vllm(), model).generate(states())


@with_fake
def test_a_weight_that_is_sent_and_not_taken_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave_out(self: Any, method: str, kwargs: dict[str, Any]) -> None:
        own = dict(self.model.named_parameters())
        for name, weight in kwargs["weights_iterator"]:
            if "q_proj" not in name:
                own[name].data.copy_(weight)

    monkeypatch.setattr(fake.LLM, "collective_rpc", leave_out)
    with pytest.raises(DivergenceError, match=r"if they differ then too, vLLM left a weight out"):
        started(vllm(tolerance=1e-6), loaded()).generate(states())


@with_fake
def test_what_keeps_vllm_from_beginning_names_the_key_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, **settings: Any) -> None:
        raise ValueError("Available memory is less than desired")

    monkeypatch.setattr(fake.LLM, "__init__", refuse)
    with pytest.raises(ConfigError, match=r"ValueError: Available memory is less.* the share engine.memory = "):
        started(vllm(), loaded()).generate(states())


@with_fake
def test_weights_that_are_no_numbers_stop_the_run() -> None:
    model = loaded()
    torch.nn.init.constant_(model.model.model.norm.weight, math.nan)
    with pytest.raises(DivergenceError, match="by nan nats"):
        started(vllm(), model).generate(states())


# --- writing ----------------------------------------------------------------------------------------------------------


@with_fake
@pytest.mark.parametrize(
    ("changes", "eos"),
    [({}, EOS), ({"stop": ("c", "a b")}, [EOS, 6]), ({"max_new_tokens": 3, "stop": ("b",)}, [EOS, 6])],
    ids=str,
)
def test_rows_are_those_of_the_reference(changes: dict[str, Any], eos: Any) -> None:
    model = loaded(eos=eos)
    rows = greedy(HFEngine(**PLAIN), model, **changes)
    assert greedy(vllm(), model, **changes) == rows
    assert len({len(row.actions) for row in rows}) > 1


@with_fake
def test_a_rollout_is_passed_on_once_and_has_the_log_probabilities_that_it_was_drawn_with() -> None:
    model, passed = loaded(), list[Rollout]()
    rollouts = started(vllm(temperature=0.7), model).generate(states()[:8], written=passed.extend)
    assert sorted(passed, key=rollouts.index) == rollouts
    for row in rollouts:
        context = (*row.state.problem.prompt, *row.tokens)
        logits = model.model(input_ids=torch.tensor([context])).logits[0] / 0.7
        expected = logits.log_softmax(-1)[-len(row.actions) - 1 : -1].gather(1, torch.tensor(row.actions)[:, None])
        torch.testing.assert_close(torch.tensor(row.logprobs), expected[:, 0].detach(), rtol=1e-5, atol=1e-5)
    assert {len(set(row.kept)) for row in rollouts} == {1}


@with_fake
def test_the_generator_is_the_engines_whole_state() -> None:
    model = loaded()
    first = started(vllm(), model)
    first.generate(states()[:8])
    saved = first.state_dict()
    reported = first.generate(states()[:8])
    again = started(vllm(), model)
    again.load_state_dict(saved)
    assert again.generate(states()[:8], generator=torch.Generator().manual_seed(5)) != reported
    assert again.generate(states()[:8]) == reported


@with_fake
def test_a_row_that_vllm_ends_for_want_of_room_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    step = LLM.step

    def room_for_nine(self: LLM) -> list[Any]:
        outputs = step(self)
        for output in outputs:
            if output.request_id in self.rows and len(self.rows[output.request_id][0]) >= 9:
                output.finished = True
                del self.rows[output.request_id]
        return outputs

    monkeypatch.setattr(LLM, "step", room_for_nine)
    with pytest.raises(ConfigError, match=r"vLLM ended a row of 9 tokens that should go on; .*raise engine.memory"):
        greedy(vllm(), loaded())


@with_fake
def test_vllm_receives_no_end_token_but_the_policys_and_leaves_the_global_generators_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported, make = [], LLM.__init__

    def seeding(self: LLM, *, model: str, **settings: Any) -> None:
        reported.append(json.loads((Path(model) / "config.json").read_text()).get("eos_token_id"))
        torch.manual_seed(settings["seed"]), random.seed(0)
        make(self, model=model, **settings)

    monkeypatch.setattr(LLM, "__init__", seeding)
    model = loaded(eos=7)
    model.model.generation_config.eos_token_id = EOS
    torch.manual_seed(5), random.seed(5)
    started(vllm(), model).generate(states()[:2])
    drawn = torch.rand(1), random.random()
    torch.manual_seed(5), random.seed(5)
    assert (reported, drawn) == ([None], (torch.rand(1), random.random()))


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_of_one_of_two_layers_that_share_weights_is_refused(target: str) -> None:
    model = get_peft_model(qwen2(12, tied=True), LoraConfig(r=2, target_modules=["q_proj", target]))
    with pytest.raises(ConfigError, match=f"{target} shares its weights with another layer"):
        list(weights_of(model))
    assert list(weights_of(get_peft_model(qwen2(12, tied=False), LoraConfig(r=2, target_modules=[target]))))


@with_fake
@pytest.mark.parametrize("temperature", [0.005, 3.0])
def test_a_temperature_that_vllm_would_change_or_refuse_is_refused_in_evaluation_too(temperature: float) -> None:
    engine = started(vllm(), loaded())
    with pytest.raises(ConfigError, match=r"temperature: vLLM draws at 0 or from 0.01 to 2, got"):
        engine.generate(states()[:1], replace(engine.sampling, temperature=temperature))
