"""vLLM in the processes of the run: it writes with its own copy of the weights, handed over after every update."""

import atexit
import importlib.util
import logging
import os
import random
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, distributed

from rrl.errors import ConfigError, DivergenceError
from rrl.functional import token_logprobs
from rrl.interfaces import WeightSource, Written
from rrl.parts.engines.handing_over import HandOver, norm, scored, weights_of
from rrl.parts.engines.hf import HFEngine, Writer
from rrl.processes.distributed import gathered, rank, start_process_group, world_size
from rrl.ranges import at_least_one, between, check_ranges, positive, refuse
from rrl.records.pulse import beat
from rrl.training.anatomy import accepted, unwrapped
from rrl.training.tokens import embedded
from rrl.types import Rollout, Sampling, State

log = logging.getLogger(__name__)
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # its model stays in this process, where the weights are
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # run.threads decides
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Variables of vLLM, where the user has not set them."""
PROBE = (4, 12)
"""Rows and tokens whose log-probabilities are compared after a hand-over."""


@dataclass(kw_only=True)
class VLLM(HFEngine):
    """Writes with vLLM (Kwon et al., arXiv 2309.06180), at most ``batch_size`` rows together.

    Its weights have the precision ``dtype`` and are divided among ``tensor_parallel_size`` processes. Weights and cache
    take the share ``memory`` of a device; with ``sleep`` only while it writes. After each hand-over of weights its
    log-probabilities of fixed tokens may differ from the policy's by ``tolerance`` nats on average.

    Each row has a seed of its own, drawn from the engine's generator, which is all its state. The same seeds, rows and
    weights give the same tokens.
    """

    dtype: Literal["float32", "bfloat16"]
    memory: float
    tensor_parallel_size: int
    sleep: bool
    tolerance: float
    handed_over: HandOver | None = field(init=False, default=None)
    _engine: Any = field(init=False, default=None)
    _held: int | None = field(init=False, default=None)

    is_exact = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, between(0.01, 1, "memory"), at_least_one("tensor_parallel_size"), positive("tolerance"))
        refuse({f"temperature: expected 0 or at least 0.01, got {self.temperature}": 0 < self.temperature < 0.01})

    def faults(self) -> list[str]:
        if importlib.util.find_spec("vllm"):
            return []
        return ["engine: vllm is not installed; expected it; pip install 'rrl[vllm]', or use engine=auto"]

    def start(self, source: WeightSource, tokenizer: Any, seed: int) -> None:
        super().start(source, tokenizer, seed)
        self._engine, self._held = None, None

    def _noise(self, count: int, sampling: Sampling, generator: torch.Generator) -> Tensor:
        """A seed for each row; vLLM would draw at 0.01 for a lower temperature."""
        if 0 < sampling.temperature < 0.01 or sampling.temperature > 2:
            raise ConfigError(f"temperature: vLLM draws at 0 or from 0.01 to 2, got {sampling.temperature}")
        return torch.randint(2**62, (count,), generator=generator)

    def _in_order(
        self, model: Any, rows: Sequence[tuple[State, Tensor]], sampling: Sampling, written: Written | None
    ) -> list[Rollout]:
        """Rollouts from states and their seeds; all processes that divide the weights write all of their rows."""
        size = self.tensor_parallel_size
        first = rank() // size * size
        parts = [rows] if size == 1 else gathered(list(rows))[first : first + size]
        together = [row for part in parts for row in part]
        if not together:
            return []
        states, seeds = zip(*together, strict=True)
        usual = (model, self._tokenizer, sampling, self._source.version, written if size == 1 else None)
        rollouts = VLLMWriter(*usual, engine=self._engine.llm_engine).write(states, torch.stack(seeds))
        before = sum(map(len, parts[: rank() - first])) if size > 1 else 0
        mine = rollouts[before : before + len(rows)]
        if written is not None and size > 1:
            written(mine)
        return mine

    @contextmanager
    def _model(self) -> Iterator[Any]:
        """What a writer reads of the policy's model, after its weights have been handed over."""
        if self._held != self._source.version:
            self._hand_over()
        self._engine.reset_prefix_cache()  # without new weights too: a resumed run begins without a cache
        yield self._about
        if self.sleep:
            self._engine.sleep(level=2)  # which gives up the weights as well
            self._held = None

    def _hand_over(self) -> None:
        """Give vLLM the policy's weights, and compare. Raises DivergenceError, on every rank."""
        with self._source.generation_model() as model:
            if self._engine is None:
                self._engine = self._started(unwrapped(model))
            elif self.sleep:
                self._engine.wake_up(tags=["weights"])
            self._about = SimpleNamespace(generation_config=model.generation_config, device=torch.device("cpu"))
            sent = self._send(weights_of(model))
            if self.sleep:
                self._engine.wake_up(tags=["kv_cache"])
            self._engine.reset_prefix_cache()
            self.handed_over = HandOver(sent, norm(weights_of(model)), self._difference(model))
        faults = [fault for each in gathered(self.handed_over) if (fault := each.fault(self.tolerance))]
        if faults:
            raise DivergenceError(faults[0])
        self._held = self._source.version

    def _send(self, weights: Iterator[tuple[str, Tensor]]) -> float:
        """Put the weights into vLLM's model; returns the norm of those that were sent."""
        taken: list[tuple[str, float]] = []

        def noted() -> Iterator[tuple[str, Tensor]]:
            for name, weight in weights:
                taken.append((name, norm([(name, weight)])))
                yield name, weight

        self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": noted()})
        self._engine.apply_model(_pack_again)
        return norm((name, torch.tensor(each)) for name, each in taken)

    def _difference(self, model: Any) -> float:
        """Mean absolute difference of log-probabilities of fixed tokens between vLLM and the model."""
        from vllm import SamplingParams

        tokens = torch.randint(embedded(model), PROBE, generator=torch.Generator().manual_seed(0))
        read = tokens.to(model.device)
        inputs = {"input_ids": read, "attention_mask": torch.ones_like(read), "use_cache": False}
        logits = model(**accepted(model, inputs)).logits[:, :-1].float().cpu()
        ours = token_logprobs(logits, tokens[:, 1:])
        how = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        return float((ours - torch.tensor(scored(self._engine, tokens.tolist(), how))).abs().mean())

    def _started(self, model: Any) -> Any:
        """vLLM with a model of this kind, whose weights are still to come."""
        start_process_group()  # else vLLM would start one of its own
        if world_size() % self.tensor_parallel_size:
            raise ConfigError(
                f"engine.tensor_parallel_size: {self.tensor_parallel_size}; expected a divisor of "
                f"launcher.num_processes = {world_size()}"
            )
        os.environ |= {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
        from vllm import LLM

        accelerated = torch.cuda.is_available()
        if self.sleep and not accelerated:
            log.warning("engine.sleep: without effect; vLLM gives up memory on GPUs only")
            self.sleep = False
        with tempfile.TemporaryDirectory() as folder:
            config = type(model.config).from_dict(model.config.to_dict())
            config.architectures = [type(model).__name__]
            config.eos_token_id = None  # else it would end rows that go on here
            config.save_pretrained(folder)
            with _beginning(type(model).__name__, self.memory):
                engine = LLM(
                    model=folder,
                    skip_tokenizer_init=True,
                    load_format="dummy",
                    generation_config="vllm",  # not the folder's
                    dtype=self.dtype,
                    max_model_len=-1,  # what the model can read and the cache can hold
                    max_num_seqs=self.batch_size,
                    gpu_memory_utilization=self.memory,
                    tensor_parallel_size=self.tensor_parallel_size,
                    distributed_executor_backend="external_launcher" if world_size() > 1 else None,
                    enable_prefix_caching=True,
                    enable_sleep_mode=self.sleep,
                    enforce_eager=not accelerated,
                    async_scheduling=False,  # which would draw a token behind a stop text
                    logprobs_mode="processed_logprobs",  # of the distribution at this temperature
                    seed=0,
                )
        client = engine.llm_engine.engine_core
        client._finalizer.detach()  # with the engine it would end this run's process group
        atexit.register(_end, weakref.ref(client.engine_core))
        return engine


@contextmanager
def _beginning(model: str, memory: float) -> Iterator[None]:
    """Its errors, of many types, are reported by key; global generators, which dropout uses, stay as they were."""
    import numpy

    states = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise ConfigError(
            f"engine: vllm does not begin ({type(error).__name__}: {' '.join(str(error).split())[:300]}); expected a "
            f"model that it knows, not {model}, or the share engine.memory = {memory:g} of the device free and enough "
            "for weights and cache; change engine.memory, or use engine=auto"
        ) from error
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])


class VLLMWriter(Writer):
    """Writes rows to their ends; vLLM decides which of them it writes together."""

    def __init__(self, *usual: Any, engine: Any) -> None:
        super().__init__(*usual)
        self._engine = engine

    def _decode(self, noise: Tensor) -> None:
        """All rows, drawn by their seeds ``noise`` [rows]; each is complete as soon as it ends."""
        for row, seed in enumerate(noise.tolist()):
            self._engine.add_request(str(row), {"prompt_token_ids": list(self._contexts[row])}, self._how(row, seed))
        while self._engine.has_unfinished_requests():
            beat()
            self._take([output for output in self._engine.step() if output.outputs[0].token_ids])

    def _take(self, outputs: Sequence[Any]) -> None:
        """A token for each of some rows; those that have ended leave."""
        rows = [int(output.request_id) for output in outputs]
        drawn = [_drawn(output.outputs[0]) for output in outputs]
        if any(logprob != logprob for _, logprob in drawn):
            raise DivergenceError(
                "log-probabilities: nan; expected numbers; the weights have left their range: lower policy.actor_lr or "
                "set policy.grad_clip"
            )
        tokens, logprobs = torch.tensor(drawn, dtype=torch.float64).reshape(-1, 2).unbind(1)
        alive = set(self._append(rows, tokens.long(), logprobs, torch.zeros(len(rows))))
        if early := [rows[place] for place in sorted(alive) if outputs[place].finished]:
            length = len(self._contexts[early[0]]) + len(self._actions[early[0]])
            raise ConfigError(
                f"engine: vLLM ended a row of {length} tokens that should go on; expected room for prompt and "
                "response; raise engine.memory, or lower data.max_response_length"
            )
        ended = [place for place in range(len(outputs)) if place not in alive]
        self._engine.abort_request([str(rows[place]) for place in ended if not outputs[place].finished])
        if ended:
            self._complete([rows[place] for place in ended])

    def _how(self, row: int, seed: int) -> Any:
        """vLLM's settings for a row; stop texts, which may begin in the prefix, are looked for here instead."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = self._sampling
        return SamplingParams(
            temperature=sampling.temperature,
            seed=seed,
            max_tokens=max(1, sampling.max_new_tokens - len(self._states[row].prefix)),
            stop_token_ids=self._ends.tolist(),
            logprobs=0 if sampling.temperature else None,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )


def _drawn(output: Any) -> tuple[int, float]:
    """The new token and its log-probability; 0 where it was the likeliest, as in the reference."""
    token = output.token_ids[0]
    return token, 0.0 if output.logprobs is None else output.logprobs[0][token].logprob


def _pack_again(model: Any) -> None:
    """On CPUs vLLM multiplies by packed copies of weights; that of a head tied to the embedding survives a reload."""
    for layer in model.modules():
        if hasattr(layer, "cpu_linear") and layer.weight.numel():
            layer.quant_method.process_weights_after_loading(layer)


def _end(core: weakref.ref[Any]) -> None:
    """End vLLM and the process group, unless that has ended already."""
    if (alive := core()) is not None and distributed.is_initialized():
        alive.shutdown()
