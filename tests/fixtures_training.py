"""A very small policy, the trace task and hand-made rollouts, for the tests of training."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from rrl.breaches import Limits
from rrl.buffer import StateBuffer
from rrl.clock import Clock
from rrl.collate import collate, micro_batches
from rrl.engines.hf import HFEngine
from rrl.evaluation import Evaluation
from rrl.interfaces import Objective, Reward, StateSampler
from rrl.loop import weigh
from rrl.models import LoadedModel, TinyLlama
from rrl.objectives.grpo import GRPO
from rrl.objectives.ppo import PPO
from rrl.policy import DeepSpeedPolicy
from rrl.policy_settings import LoRA, PolicySettings
from rrl.prompts import Plain, Prompts
from rrl.samplers.problems import Problems
from rrl.samplers.retrospective import Retrospective
from rrl.samplers.schedule import Schedule
from rrl.selections.confidence import Confidence
from rrl.tasks.trace import Trace
from rrl.trainer import Trainer, TrainerSettings
from rrl.types import Batch, Example, Feedback, Metrics, Problem, Rollout, State, Verdict

torch.set_num_threads(1)

TASK = Trace(train_per_level=20, test_per_level=5, demonstration_lengths=(1, 2, 3), demonstration_weak=0.5, data_seed=0)
PAD, BOS, EOS = 0, 1, 2
LORA = LoRA(rank=2, alpha=4.0, dropout=0.0, target_modules=None)


@cache
def _built(layers: int) -> LoadedModel:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "max_position_embeddings": 64}
    return TinyLlama(**sizes, num_hidden_layers=layers, initializer_range=0.3, init_seed=0).load(TASK.vocabulary())


def tiny(layers: int = 1) -> Any:
    """A fresh copy of the same random model, width 16."""
    return copy.deepcopy(_built(layers).model)


def tokenizer() -> Any:
    """The trace task's words as tokens."""
    return _built(1).tokenizer


@cache
def problems(split: str = "train") -> tuple[Problem, ...]:
    """The trace task's problems as token ids."""
    prompts = Prompts(template=Plain(text="{question}"), max_prompt_length=32, overlong="refuse")
    return tuple(prompts.encode(TASK.examples(split), tokenizer(), context=64, response=16))


# --- policies ---------------------------------------------------------------------------------------------------------


def settings(**changes: Any) -> PolicySettings:
    """Float32, no schedule, no clipping, four rows at a time; ``changes`` take their place."""
    return PolicySettings(
        **{
            "critic": "own", "trunk_gradient": 0.1, "head_size": 0, "actor_lr": 1e-2, "critic_lr": 1e-2,
            "adam_betas": (0.9, 0.999), "adam_epsilon": 1e-8, "weight_decay": 0.0, "lr_schedule": "constant",
            "lr_warmup_steps": 0, "grad_clip": 0.0, "micro_batch_size": 4, "zero_stage": 0, "dtype": "float32",
            "gradient_checkpointing": False, "lora": None,
        }
        | changes
    )  # fmt: skip


def make_policy(
    *, reference: bool = False, temperature: float = 1.0, steps: int | None = None, model: Any = None, **changes: Any
) -> DeepSpeedPolicy:
    """A policy on the tiny model; ``changes`` go to its settings."""
    return DeepSpeedPolicy(
        tiny() if model is None else model, tokenizer(), settings(**changes), reference=reference,
        temperature=temperature, optimiser_steps=steps,
    )  # fmt: skip


def plain_descent(rate: float = 1e-2) -> dict[str, Any]:
    """Settings under which AdamW moves each weight by ``rate`` times its gradient, to 4 digits: m / (sqrt(v) + 1e6)."""
    rates = {"actor_lr": 1e6 * rate, "critic_lr": 1e6 * rate}
    return rates | {"adam_betas": (0.0, 0.0), "adam_epsilon": 1e6}


def critic_of(policy: DeepSpeedPolicy) -> nn.Module:
    """The critic's own network."""
    return policy._engines["critic"].module


def critic_head(policy: DeepSpeedPolicy) -> nn.Module:
    """The value head, wherever it is."""
    return critic_of(policy).head if "critic" in policy._engines else policy.actor.head


def shake(module: nn.Module, seed: int = 0, scale: float = 0.1) -> None:
    """Move every weight a little, the same way for the same seed; a value head no longer begins at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


def networks(policy: DeepSpeedPolicy) -> list[nn.Module]:
    """Every network in training."""
    return [engine.module for engine in policy._engines.values()]


def shaken(policy: DeepSpeedPolicy, scale: float = 0.1) -> DeepSpeedPolicy:
    """The policy with actor and critic a step away from where they began, but not its reference."""
    for number, network in enumerate(networks(policy)):
        shake(network, number, scale)
    return policy


def weights(policy: DeepSpeedPolicy) -> dict[str, Tensor]:
    """A copy of every weight of every network in training, by name."""
    named = [(f"{i}.{name}", p) for i, module in enumerate(networks(policy)) for name, p in module.named_parameters()]
    return {name: parameter.detach().clone() for name, parameter in named}


def gradients(policy: DeepSpeedPolicy) -> dict[str, Tensor]:
    """A copy of every accumulated gradient, zero where there is none."""
    named = [(f"{i}.{name}", p) for i, module in enumerate(networks(policy)) for name, p in module.named_parameters()]
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named}


def apart(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    """Names under which two sets of tensors differ in any bit."""
    assert first.keys() == second.keys()
    return {name for name in first if not torch.equal(first[name], second[name])}


# --- slow references --------------------------------------------------------------------------------------------------


@torch.no_grad()
def slow_distribution(model: Any, tokens: Sequence[int], temperature: float = 1.0) -> list[float]:
    """Probabilities of the next token after ``tokens``, from a forward pass over them alone."""
    logits = (model(input_ids=torch.tensor([tokens])).logits[0, -1] / temperature).double().tolist()
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def slow_logprobs(model: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
    """Log-probability of every acted token, one at a time; zero elsewhere."""
    logprobs = torch.zeros(batch.tokens.shape)
    for b, t in batch.mask.nonzero().tolist():
        row = batch.tokens[b].tolist()
        logprobs[b, t] = math.log(slow_distribution(model, row[:t], temperature)[row[t]])
    return logprobs


@torch.no_grad()
def slow_values(trunk: Any, head: nn.Module, batch: Batch) -> Tensor:
    """Value of the state before every acted token, one at a time; zero elsewhere."""
    values = torch.zeros(batch.tokens.shape)
    for b, t in batch.mask.nonzero().tolist():
        before = batch.tokens[b : b + 1, :t]
        values[b, t] = float(head(trunk(input_ids=before).last_hidden_state[0, -1]))
    return values


def acted(batch: Batch, values: Tensor) -> Tensor:
    """The cells of the mask, zero elsewhere."""
    return torch.where(batch.mask, values, 0.0)


# --- hand-made rollouts and batches -----------------------------------------------------------------------------------


def problem(prompt: Sequence[int], reference: Sequence[int] = (), level: str = "easy", name: str = "p") -> Problem:
    """A problem of these token ids."""
    return Problem(Example(name, level, "a question", "a reference", "an answer"), tuple(prompt), tuple(reference))


def rollout(
    prompt: Sequence[int], prefix: Sequence[int], actions: Sequence[int], *, finished: bool = True, level: str = "easy"
) -> Rollout:
    """A rollout of these token ids."""
    start = State(problem(prompt, level=level, name=str(prompt)), tuple(prefix), "a state" if prefix else None)
    zeros = (0.0,) * len(actions)
    return Rollout(start, tuple(actions), zeros, zeros, finished, "", 0)


ROLLOUTS = (
    rollout((1, 20, 31), (), (5, 6, 7, 2)),
    rollout((1, 22, 30, 31), (5,), (6, 2), level="hard"),
    rollout((1, 25, 31), (8, 9, 4), (7,), finished=False),
    rollout((1, 20, 24, 40, 31), (), (9, 9, 2), level="hard"),
    rollout((1, 50, 31), (4, 4), (11, 12, 13, 2)),
    rollout((1, 33), (), (2,), level="hard"),
)


def raw_batch(rollouts: Sequence[Rollout] = ROLLOUTS) -> Batch:
    """The rollouts, padded; a response is paid 1, 2, 3, ... on its last token."""
    rewards = [[0.0] * (len(r.actions) - 1) + [float(i + 1)] for i, r in enumerate(rollouts)]
    return collate(rollouts, rewards, PAD)


def ready_batch(policy: DeepSpeedPolicy, objective: Objective, rollouts: Sequence[Rollout] = ROLLOUTS) -> Batch:
    """The rollouts with everything that a loss reads: annotated, credited and weighed by token."""
    return weigh(objective.assign_credit(policy.annotate(raw_batch(rollouts))), "token")


def by_hand(mask: Sequence[str], **tensors: Any) -> Batch:
    """A batch of given numbers, with ``mask`` as rows of 0 and 1; what is not given is zero."""
    acted = torch.tensor([[cell == "1" for cell in row] for row in mask])
    whole = {field.name: torch.zeros(acted.shape) for field in fields(Batch)}
    rows = {"group": torch.arange(len(mask)), "level": torch.zeros(len(mask), dtype=torch.long)}
    share = {"mask": acted, "attention": torch.ones_like(acted), "weight": acted / acted.sum()}
    return Batch(**whole | rows | share | {name: torch.tensor(value) for name, value in tensors.items()})


def padded(batch: Batch, columns: int, garbage: float = 0.0) -> Batch:
    """The batch with further columns of padding on the right, holding ``garbage``."""
    wide = {}
    for field in fields(Batch):
        value = getattr(batch, field.name)
        fill = PAD if field.name == "tokens" else 0 if field.name in ("attention", "mask", "weight") else garbage
        more = torch.full((len(batch), columns), fill).to(value.dtype)
        wide[field.name] = value if value.dim() == 1 else torch.cat([value, more], dim=1)
    return Batch(**wide)


def poison(batch: Batch, garbage: float, names: Sequence[str]) -> Batch:
    """The batch with ``garbage`` in every cell outside the mask of these tensors."""
    return batch.with_(**{name: torch.where(batch.mask, getattr(batch, name), garbage) for name in names})


# --- objectives -------------------------------------------------------------------------------------------------------


def ppo(**changes: Any) -> PPO:
    """PPO without KL and entropy bonus, advantages as they are; ``changes`` take their place."""
    return PPO(
        **{
            "gamma": 1.0, "lam": 0.95, "clip_ratio": 0.2, "cliprange_value": 0.2, "vf_coef": 1.0, "entropy_coef": 0.0,
            "importance_cap": None,
            "kl_coef": 0.0, "kl_in": "reward", "kl_target": None, "kl_horizon": 10_000,
            "normalise": "none", "kl_estimator": "k2" if changes.get("kl_in") == "loss" else "k1",
        }
        | changes
    )  # fmt: skip


def grpo(**changes: Any) -> GRPO:
    """GRPO without KL; ``changes`` take their place."""
    return GRPO(**{"clip_ratio": 0.2, "importance_cap": None, "kl_coef": 0.0, "kl_estimator": "k3"} | changes)


def improve(policy: DeepSpeedPolicy, objective: Objective, batch: Batch, size: int) -> Metrics:
    """One optimiser step on a weighed batch, ``size`` rows at a time."""
    accumulate(policy, objective, batch, size)
    return policy.step()


def accumulate(policy: DeepSpeedPolicy, objective: Objective, batch: Batch, size: int) -> None:
    """The gradient of one optimiser step, ``size`` rows at a time."""
    parts = micro_batches(batch, size)
    for number, part in enumerate(parts, start=1):
        actor_loss, critic_loss, _ = objective.loss(part, policy(part))
        policy.backward(actor_loss, critic_loss, last=number == len(parts))


# --- whole trainers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EvenTokens(Reward):
    """Pays the share of even token ids on the last token, so that a random model has something to learn."""

    def __call__(self, rollout: Rollout, feedback: Feedback) -> list[float]:
        share = sum(token % 2 == 0 for token in rollout.actions) / len(rollout.actions)
        return [0.0] * (len(rollout.actions) - 1) + [share]


@dataclass(frozen=True, kw_only=True)
class Failing(Trace):
    """A verifier that fails on every third rollout."""

    def verify(self, rollouts):
        judged = super().verify(rollouts)
        return [replace(f, verdict=Verdict.ERROR) if i % 3 == 0 else f for i, f in enumerate(judged)]


def make_engine(**changes: Any) -> HFEngine:
    """Six tokens a response, seven rows at a time."""
    shape = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 6, "stop": (), "batch_size": 7}
    return HFEngine(**shape | {"dtype": None} | changes)


def schedule(share: float) -> Schedule:
    """A constant share of replayed starts, states collected throughout."""
    times = {"ramp_from": 0.0, "ramp_until": 0.0, "decay_from": 1.0, "decay_until": 1.0}
    return Schedule(collect_from=0.0, collect_until=1.0, share=share, **times)


def replay(share: float, **changes: Any) -> Retrospective:
    """RRL's sampler with the shipped settings and a rule that finds a state in almost every response."""
    buffer = StateBuffer(
        capacity=8192, states_per_problem=4, overflow="lowest_score", evict_after_failures=8, evict_above=0.8,
        evict_min_visits=4, priority="uniform",
    )  # fmt: skip
    parts = {"selection": Confidence(below=0.05), "buffer": buffer, "schedule": schedule(share), "level_weights": None}
    rules = {
        "sources": "self",
        "harvest": "failed",
        "harvest_replayed": False,
        "cut_points": "token",
        "max_response_length": 16,
    }
    limits = {"max_problem_success": 0.5, "success_momentum": 0.7, "min_explained_variance": None, "rescore_every": 0}
    return Retrospective(**parts | rules | limits | {"start_from": "prefix"} | changes)


def trainer_settings(**changes: Any) -> TrainerSettings:
    """Eight prompts a step, two epochs of two mini-batches of four."""
    return TrainerSettings(
        **{
            "train_batch_size": 8, "n": 1, "ppo_epochs": 2, "ppo_mini_batch_size": 4, "total_training_steps": 3,
            "total_tokens": None, "critic_warmup": 0, "aggregate": "token", "train_on_truncated": True,
            "mismatch_limit": 0.01, "on_mismatch": "warn",
        }
        | changes
    )  # fmt: skip


def limits(response: int = 6, given: Sequence[Problem] | None = None) -> Limits:
    """What starts on the problems keep to."""
    known = {problem.id: problem for problem in given or problems()}
    return Limits(problems=known, vocabulary=len(tokenizer()), response=response, prompt=64 - response)


def make_trainer(
    *, sampler: StateSampler | None = None, objective: Objective | None = None, task: Any = TASK,
    reward: Reward | None = None, engine: HFEngine | None = None, policy: dict[str, Any] | None = None,
    seed: int = 0, **changes: Any,
) -> Trainer:  # fmt: skip
    """A trainer on the tiny model; ``policy`` goes to the policy's settings and ``changes`` to the trainer's."""
    objective = objective or ppo(kl_coef=0.05, entropy_coef=0.01, normalise="batch")
    sampler, engine = sampler or Problems(level_weights=None), engine or make_engine()
    critic = "own" if objective.needs_critic else "none"
    network = make_policy(
        reference=objective.needs_reference, temperature=engine.temperature, **{"critic": critic} | (policy or {})
    )
    sampler.start(list(problems()), seed, network.inspect, tokenizer())
    engine.start(network, tokenizer(), seed)
    return Trainer(
        settings=trainer_settings(**changes), task=task, sampler=sampler, engine=engine, objective=objective,
        reward=reward or EvenTokens(), policy=network, pad=PAD, clock=Clock(), seed=seed,
        micro_batch_size=network._settings.micro_batch_size,
        limits=limits(engine.max_new_tokens),
    )  # fmt: skip


def evaluation(**changes: Any) -> Evaluation:
    """A greedy response and two samples a problem."""
    shape = {"split": "test", "limit": None, "greedy": True, "n": 2, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    return Evaluation(**shape | {"seed": 1} | changes)
