"""How much memory training really takes, by torch's own account, phase by phase; run in a fresh process."""

import gc
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from fixtures_training import LORA, grpo, improve, make_engine, make_policy, ppo, problem, raw_batch, rollout
from rrl import footprint
from rrl.footprint import World
from rrl.loop import weigh
from rrl.models import LoadedModel, TinyLlama
from rrl.networks import Actor, Critic
from rrl.phases import Lengths, Need, Rows
from rrl.policy_settings import PolicySettings
from rrl.types import State

Mark = Callable[[str], None]


def phases(work: Callable[[Mark], None]) -> dict[str, int]:
    """The most bytes that the allocator had given out in each phase that ``work`` marks."""
    marks: list[tuple[int, str]] = [(0, "before")]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        work(lambda name: marks.append((time.time_ns(), name)))
    events = record.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    peak, held = {}, 0
    for (begin, name), (stop, _) in zip(marks, [*marks[1:], (2**63, "")], strict=True):
        peak[name] = held
        for _, size in (change for change in changes if begin <= change[0] < stop):
            held += size
            peak[name] = max(peak[name], held)
    return peak


def held_and_needed(
    size: dict[str, int], rows: int, lengths: tuple[int, int], changes: dict[str, Any]
) -> dict[str, tuple[int, int]]:
    """Bytes by phase, as (held at most, needed by the plan), in two steps of ``rows`` rows.

    ``size`` is the model's; ``lengths`` are those of prompt and response; ``changes`` go to the policy's settings.
    """
    changes = changes | ({"lora": LORA} if changes.get("lora") else {})
    made: dict[str, Any] = {}

    def work(mark: Mark) -> None:
        loaded = _model(size)
        policy = make_policy(model=loaded.model, reference=True, micro_batch_size=rows, **changes)
        objective = grpo(kl_coef=0.1) if changes["critic"] == "none" else ppo(kl_coef=0.1)
        batch = raw_batch([rollout([5] * lengths[0], (), [6] * lengths[1]) for _ in range(2 * rows)])
        batch = weigh(objective.assign_credit(batch), "token")
        improve(policy, objective, batch, rows)
        gc.collect()
        mark("update_actor")
        improve(policy, objective, batch, rows)
        gc.collect()
        mark("old_log_prob")
        policy.annotate(batch)
        mark("gen")
        engine = make_engine(max_new_tokens=lengths[1], batch_size=rows, stop=())
        engine.start(policy, loaded.tokenizer, 0)
        engine.generate([State(problem([5] * lengths[0]))] * rows)
        mark("after")
        made["settings"] = policy._settings

    peak = phases(work)
    need = _need(size, rows, lengths, made["settings"])
    names = ("gen", "old_log_prob", "update_actor")
    return {name: (peak[name], sum(getattr(need, name)().values())) for name in names}


def _model(size: dict[str, int]) -> LoadedModel:
    words = tuple(f"w{number}" for number in range(size["vocabulary"] - 4))
    return TinyLlama(
        hidden_size=size["hidden"], intermediate_size=3 * size["hidden"], num_hidden_layers=size["layers"],
        num_attention_heads=2, max_position_embeddings=1024, initializer_range=0.02, init_seed=0,
    ).load(words)  # fmt: skip


def _need(size: dict[str, int], rows: int, lengths: tuple[int, int], settings: PolicySettings) -> Need:
    model = _model(size).model
    whole, shape = sum(p.numel() for p in model.parameters()), footprint.shape(model.config)
    own = [footprint.count("critic", Critic(model, 0))] if settings.critic == "own" else []
    adapted = settings.lora.wrap(model) if settings.lora else model
    head = 0 if settings.critic == "shared" else None
    actor = footprint.count("actor", Actor(adapted, 1.0, head_size=head, trunk_gradient=0.1))
    return Need(
        settings=settings, engine=None, shape=shape, whole=whole, networks=[actor, *own],
        reference=settings.lora is None, lengths=Lengths(lengths[0], lengths[0], 1, lengths[1]),
        rows=Rows(rows, rows, rows, 0), world=World(1, on_cpu=True),
    )  # fmt: skip


def states_on_each_rank(changes: dict[str, Any]) -> tuple[int, int]:
    """Bytes of all tensors that are alive after two steps, and what the plan says of states at rest, on this rank."""
    size = {"vocabulary": 90, "hidden": 256, "layers": 2}
    before = _storages()
    policy = make_policy(model=_model(size).model, reference=False, micro_batch_size=2, **changes)
    objective = ppo()
    batch = weigh(objective.assign_credit(raw_batch([rollout([5, 7], (), [6, 8, 2])] * 8)), "token")
    for _ in range(2):
        improve(policy, objective, batch.rows(torch.arange(4)), 2)
    alive = _storages()
    need = _need(size, 2, (2, 3), policy._settings)
    there = World(torch.distributed.get_world_size(), on_cpu=True)
    held = sum(nbytes for place, nbytes in alive.items() if place not in before)
    return held, footprint.at_rest(need.networks, policy._settings, there)


def _storages() -> dict[int, int]:
    """Address and bytes of every storage that a tensor or a gradient of this process keeps."""
    gc.collect()
    tensors = [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]
    tensors += [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu"]
    return {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}
