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
from typing import Any, Literal

import torch
from torch import Tensor, distributed

from rrl.errors import ConfigError, DivergenceError
from rrl.interfaces import WeightSource, Written
from rrl.parts.engines.handing_over import HandOver, norm, probed, scored, weights_of
from rrl.parts.engines.seeded import SeededEngine, SeededWriter
from rrl.processes.distributed import gathered, rank, start_process_group, world_size
from rrl.ranges import at_least_one, between, check_ranges
from rrl.records.pulse import beat
from rrl.training.anatomy import unwrapped
from rrl.types import Rollout, Sampling, State

log = logging.getLogger(__name__)
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # its model stays in this process, where the weights are
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # run.threads decides
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Variables of vLLM, where the user has not set them."""


@dataclass(kw_only=True)
class VLLM(SeededEngine):
    """Writes with vLLM (Kwon et al., arXiv 2309.06180), at most ``batch_size`` rows together.

    Its weights have the precision ``dtype`` and are divided among ``tensor_parallel_size`` processes. Weights and cache
    take the share ``memory`` of a device; with ``sleep`` only while it writes.
    """

    dtype: Literal["float32", "bfloat16"]
    memory: float
    tensor_parallel_size: int
    sleep: bool
    _engine: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, between(0.01, 1, "memory"), at_least_one("tensor_parallel_size"))

    def faults(self) -> list[str]:
        if importlib.util.find_spec("vllm"):
            return []
        return ["engine: vllm is not installed; expected it; pip install 'rrl[vllm]', or use engine=auto"]

    def start(self, source: WeightSource, tokenizer: Any, seed: int) -> None:
        super().start(source, tokenizer, seed)
        self._engine = None

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
        """The same, with an empty cache."""
        with super()._model() as about:
            self._engine.reset_prefix_cache()  # without new weights too: a resumed run begins without a cache
            yield about
        if self.sleep:
            self._engine.sleep(level=2)  # which gives up the weights as well
            self._held = None

    def _hand_over(self, model: Any) -> None:
        if self._engine is None:
            self._engine = self._started(unwrapped(model))
        elif self.sleep:
            self._engine.wake_up(tags=["weights"])
        sent = self._send(weights_of(model))
        if self.sleep:
            self._engine.wake_up(tags=["kv_cache"])
        self._engine.reset_prefix_cache()
        self.handed_over = HandOver(sent, norm(weights_of(model)), self._difference(model))
        faults = [fault for each in gathered(self.handed_over) if (fault := each.fault(self.tolerance))]
        if faults:
            raise DivergenceError(faults[0])

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

        tokens, ours = probed(model)
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


class VLLMWriter(SeededWriter):
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
        finished = {row for row, output in zip(rows, outputs, strict=True) if output.finished}
        alive = self._record(rows, [_drawn(output.outputs[0]) for output in outputs])
        self._refuse_early(alive & finished, "raise engine.memory")
        ended = [row for row in rows if row not in alive]
        self._engine.abort_request([str(row) for row in ended if row not in finished])
        if ended:
            self._complete(ended)

    def _how(self, row: int, seed: int) -> Any:
        """vLLM's settings for a row; stop texts, which may begin in the prefix, are looked for here instead."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = self._sampling
        return SamplingParams(
            temperature=sampling.temperature,
            seed=seed,
            max_tokens=self._max_tokens(row),
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
