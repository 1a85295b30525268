"""vLLM's own server on the CPU: `make test-vllm`. What holds around it is in test_vllm_server.py."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from fixtures.trainer import history, same
from fixtures.training import LORA, make_trainer, ppo, replay, tokenizer
from fixtures.vllm import PLAIN, drawn, greedy, qwen2, started, states, stopping_trainer, updates
from rrl.errors import DivergenceError
from rrl.parts.engines import vllm_server
from rrl.parts.engines.hf import HFEngine
from rrl.parts.engines.vllm_server import VLLMServer
from rrl.training.models import LoadedModel
from rrl.training.trainer import Trainer

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed; see make test-vllm"),
]
ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1",
}  # fmt: skip
UNTIED = '{"tie_word_embeddings": false}'
"""On a CPU a server keeps a packed copy of a tied head; so it gets the head by its own name."""


class RealServer:
    """A server of a random Qwen2, tied here and untied there, in processes of its own."""

    def __init__(self, folder: Path) -> None:
        qwen2(len(tokenizer())).save_pretrained(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address, self._folder = f"http://127.0.0.1:{port}", folder

    def start(self) -> None:
        port = self.address.rpartition(":")[2]
        words = f"--port {port} --dtype float32 --max-num-seqs 64 --enforce-eager --tokens-only --stream-interval 3"
        how = ["--model", str(self._folder), *words.split(), "--logprobs-mode", "processed_logprobs"]
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *how, "--hf-overrides", UNTIED]
        self._process = subprocess.Popen(
            command, env=os.environ | ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL
        )
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"{self.address}/health"):
                return
            assert self._process.poll() is None
            time.sleep(0.5)
        raise AssertionError("it does not begin")

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    real = RealServer(tmp_path_factory.mktemp("served"))
    real.start()
    yield real
    real.kill()


def served(server: RealServer, **changes: Any) -> VLLMServer:
    own = {
        "servers": (server.address,),
        "weights": None,
        "timeout": 60.0,
        "patience": 0.0,
        "ahead": 0,
        "tolerance": 1e-4,
    }
    return VLLMServer(**PLAIN | own | changes)


def model(**changes: Any) -> LoadedModel:
    return LoadedModel(qwen2(len(tokenizer()), **changes), tokenizer())


def trainer(server: RealServer, **policy: Any) -> Trainer:
    return stopping_trainer(served(server, max_response_length=6), **policy)


@pytest.mark.parametrize("tied", [True, False])
def test_greedy_rows_are_those_of_the_reference(server: RealServer, tied: bool) -> None:
    loaded = model(tied=tied, eos=[2, 6])
    assert greedy(served(server), loaded) == greedy(HFEngine(**PLAIN), loaded)


def test_drawn_rows_have_the_log_probabilities_of_the_policy(server: RealServer) -> None:
    reported, expected, different = drawn(served(server, temperature=0.7), model())
    torch.testing.assert_close(reported, expected, rtol=1e-4, atol=1e-4)
    assert different > 1


@pytest.mark.parametrize("lora", [None, LORA], ids=["all weights", "adapters"])
def test_twenty_updates_are_handed_over(server: RealServer, lora: Any) -> None:
    run = trainer(server, lora=lora)
    found = updates(run, 20)
    assert found["norms"] == 20 and found["difference"] < 1e-5 and found["divergence"] < 1e-8
    assert run.policy.version == 40


@pytest.mark.parametrize("lost", ["model.layers.1.self_attn.k_proj.weight", "lm_head.weight"])
def test_a_hand_over_that_loses_a_weight_stops_a_run_at_its_first_step(
    server: RealServer, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = vllm_server.save
    rest = lambda pairs: (pair for pair in pairs if pair[0] != lost)  # noqa: E731
    started(served(server), model()).generate(states()[:1])  # the server has other weights than the run
    monkeypatch.setattr(vllm_server, "save", lambda pairs, *to: save(rest(pairs), *to))
    run = trainer(server)
    with torch.no_grad():
        for parameter in run.policy.actor.parameters():
            parameter *= 1.1
    with pytest.raises(DivergenceError, match=r"step 1: engine.servers: .*: after weights were handed .* the policy's"):
        next(run.run())
    assert run.global_step == 0


def test_the_same_run_again_is_the_same_and_so_is_its_second_half(server: RealServer, tmp_path: Path) -> None:
    whole, again, rest = history(trainer(server), 4), trainer(server), trainer(server)
    first = history(again, 2)
    again.policy.save_state(tmp_path)
    rest.policy.load_state(tmp_path)
    for part in ("policy", "engine", "sampler", "reward", "objective"):
        getattr(rest, part).load_state_dict(getattr(again, part).state_dict())
    rest.load_state_dict(again.state_dict())
    assert same([*first[:-1], *history(rest, 2)], whole)


def test_rollouts_are_written_while_the_step_before_them_trains(server: RealServer) -> None:
    """By the weights before its updates, which the correction of their probabilities then shows."""
    engine = served(server, max_response_length=6, ahead=1)
    settings = {"model": qwen2(len(tokenizer())), "actor_lr": 1e-3}
    how = {"objective": ppo(importance_cap=2.0), "on_mismatch": "ignore", "total_training_steps": 4}
    run = make_trainer(engine=engine, sampler=replay(0.5), policy=settings, **how)
    for versions, exact in ([0], True), ([0], False), ([2], False), ([4], False):
        metrics = run.step()
        assert sorted({each.rollout.version for each in run.last_rollouts}) == versions
        assert (metrics["training/rollout_kl"] < 1e-8) == exact
    assert run.progress == 1
    assert engine.handed_over is not None
    assert engine.handed_over.difference < 1e-5


def test_a_server_that_is_killed_and_started_again_gets_the_weights_again(server: RealServer) -> None:
    """It is killed within rows, and begins with the weights of its folder, which are not the policy's."""
    loaded = model()
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter *= 1.1
    long = {"max_response_length": 50}
    whole = started(served(server, **long), loaded).generate(states())
    engine = started(served(server, patience=300.0, **long), loaded)
    engine.generate(states()[:1], generator=torch.Generator())
    first = Thread(target=lambda: (time.sleep(0.2), server.kill(), server.start()))
    first.start()
    assert engine.generate(states()) == whole
    first.join()
