"""Micro-batches by a budget of tokens beside rows: CPU seconds of scoring and update of uneven rollouts.

    python experiments/bench/padding.py

The model is that of ``bench.py``, with PPO's three networks and one thread; 64 prompts of 32 tokens with responses of
geometric length, mean 64, limit 256, in mini-batches of 32. By rows there are 8 in a pass, and the budget is that of 8
full rows. Medians of three steps, taken in turn.
"""

import statistics
import time
from types import SimpleNamespace
from typing import Any

import torch
import work

from rrl.collate import Row, collate_rows
from rrl.parts.objectives.kl import RewardKL
from rrl.parts.objectives.ppo import PPO
from rrl.training.loop import weigh
from rrl.training.micro_batches import PolicyByTokens
from rrl.training.policy import DeepSpeedPolicy
from rrl.training.policy_settings import OwnCritic, PolicySettings
from rrl.types import Batch

PROMPT, LIMIT, MEAN, ROLLOUTS, MINIBATCH, ROWS = 32, 256, 64, 64, 32, 8
SETTINGS: dict[str, Any] = {
    "critic": OwnCritic(), "head_size": 0, "actor_lr": 1e-5, "critic_lr": 1e-5, "adam_betas": (0.9, 0.95),
    "weight_decay": 0.0, "lr_schedule": "constant", "lr_warmup_steps": 0, "grad_clip": 1.0, "micro_batch_size": ROWS,
    "zero_stage": 0, "dtype": "float32", "gradient_checkpointing": False, "lora": None, "compile": None,
    "offload": None,
}  # fmt: skip
LIMITS = {"max_prompt_length": PROMPT, "max_response_length": LIMIT}


def rollouts() -> Batch:
    """Random tokens."""
    torch.manual_seed(0)
    lengths = torch.distributions.Geometric(1 / MEAN).sample((ROLLOUTS,)).add(1).clamp(max=LIMIT).int().tolist()
    tokens = torch.randint(4, 64, (ROLLOUTS, PROMPT + LIMIT)).tolist()
    rows = [
        Row(row[:PROMPT], row[PROMPT : PROMPT + length], [0.0] * (length - 1) + [1.0], number, "all")
        for number, (row, length) in enumerate(zip(tokens, lengths, strict=True))
    ]
    return collate_rows(rows, pad=0)


def step(policy: DeepSpeedPolicy, objective: PPO, batch: Batch) -> SimpleNamespace:
    """CPU seconds of scoring and update, passes of the update, and the share of its cells that were padding."""
    begin = time.process_time()
    ready = objective.assign_credit(policy.annotate(batch))
    scored, passes, real, cells = time.process_time(), 0, 0, 0
    for index in torch.arange(ROLLOUTS).split(MINIBATCH):
        _, parts = policy.micro_batches(weigh(ready.rows(index), "token"))
        for number, part in enumerate(parts, start=1):
            actor_loss, critic_loss, _ = objective.loss(part, policy(part))
            policy.backward(actor_loss, critic_loss, last=number == len(parts))
            passes, real, cells = passes + 1, real + int(part.attention.sum()), cells + part.attention.numel()
        policy.step()
    return SimpleNamespace(
        scoring=scored - begin, update=time.process_time() - scored, passes=passes, padding=1 - real / cells
    )


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    objective = PPO(
        gamma=1.0, gae_lambda=0.95, clip_ratio=0.2, cliprange_value=0.2, vf_coef=1.0, entropy_coef=0.0,
        importance_cap=None, advantage_norm="batch", kl=RewardKL(coef=0.02),
    )  # fmt: skip
    kinds = {
        "rows": PolicySettings(**SETTINGS),
        "tokens": PolicyByTokens(**SETTINGS, **LIMITS, micro_batch_tokens=ROWS * (PROMPT + LIMIT)),
    }
    policies = {}
    for name, settings in kinds.items():
        loaded = work.Llama(hidden_size=128, num_hidden_layers=4).load(tuple(f"w{i}" for i in range(60)))
        policies[name] = DeepSpeedPolicy(
            loaded.model, loaded.tokenizer, settings, reference=True, pays_entropy=False, temperature=1.0,
            optimiser_steps=None,
        )  # fmt: skip
    batch = rollouts()
    steps = [{name: step(policy, objective, batch) for name, policy in policies.items()} for _ in range(4)][1:]
    for name in kinds:
        scoring, update = (
            statistics.median(getattr(each[name], part) for each in steps) for part in ("scoring", "update")
        )
        last = steps[-1][name]
        print(
            f"{name:7} scoring {scoring:.2f} s, update {update:.2f} s, {last.passes} passes, padding {last.padding:.3f}"
        )


if __name__ == "__main__":
    main()
