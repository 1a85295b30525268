"""Times a step of TRL on the work of ``bench.py``; run by the Python of an environment that has it.

    python experiments/bench/peer.py ppo     # TRL 0.24, the last with a critic: policy, value, reference, reward model
    python experiments/bench/peer.py grpo    # TRL 1.16: critic-free, 8 responses a prompt, no reference

Prints a line of JSON: the seconds of each step after the first, which warms up.
"""

import argparse
import json
import os
import tempfile
import time
from itertools import pairwise
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

WORDS = [f"w{number}" for number in range(60)]


class Clock(TrainerCallback):
    """Marks the end of every step of the trainer."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.marks.append(time.perf_counter())


def tokenizer() -> PreTrainedTokenizerFast:
    """Words as tokens, four of them special."""
    words = {word: number for number, word in enumerate(("<pad>", "<bos>", "<eos>", "<unk>", *WORDS))}
    base = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    base.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        padding_side="left",
    )  # fmt: skip


def config(args: argparse.Namespace, **extra: Any) -> LlamaConfig:
    """The shape of every network."""
    return LlamaConfig(
        vocab_size=64, hidden_size=args.hidden, intermediate_size=4 * args.hidden, num_hidden_layers=args.layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, **extra,
    )  # fmt: skip


def prompts(args: argparse.Namespace) -> list[list[int]]:
    """Random words, enough for all steps."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(4, 64, (args.rollouts * (args.steps + 2), args.prompt), generator=generator).tolist()


def grpo(args: argparse.Namespace) -> list[float]:
    """The ends of the steps of TRL's GRPOTrainer."""
    from trl import GRPOConfig, GRPOTrainer

    words, clock = tokenizer(), Clock()
    model = LlamaForCausalLM(config(args))
    model.generation_config.eos_token_id = None
    settings = GRPOConfig(
        **usual(args), gradient_accumulation_steps=1, generation_batch_size=args.rollouts, num_generations=8,
        num_iterations=1, beta=0.0, max_completion_length=args.response,
        max_steps=(args.steps + 1) * args.rollouts // args.minibatch, temperature=1.0,
        generation_kwargs={"min_new_tokens": args.response},
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model, args=settings, processing_class=words, callbacks=[clock],
        train_dataset=Dataset.from_dict({"prompt": [words.decode(row) for row in prompts(args)]}),
        reward_funcs=lambda completions, **_: [float(len(set(text))) for text in completions],
    )  # fmt: skip
    trainer.train()
    per_step = args.rollouts // args.minibatch
    return clock.marks[per_step - 1 :: per_step]


def ppo(args: argparse.Namespace) -> list[float]:
    """The ends of the steps of TRL's PPOTrainer."""
    from trl import PPOConfig, PPOTrainer

    clock, shape = Clock(), config(args)
    policy, reference = LlamaForCausalLM(shape), LlamaForCausalLM(shape)
    value, reward = (LlamaForSequenceClassification(config(args, num_labels=1)) for _ in range(2))
    rows = Dataset.from_dict({"input_ids": prompts(args)})
    settings = PPOConfig(
        **usual(args), gradient_accumulation_steps=args.rollouts // args.minibatch,
        num_mini_batches=args.rollouts // args.minibatch, local_rollout_forward_batch_size=args.minibatch,
        num_ppo_epochs=1, response_length=args.response, temperature=1.0,
        total_episodes=args.rollouts * (args.steps + 1), num_sample_generations=0, stop_token=None,
    )  # fmt: skip
    trainer = PPOTrainer(
        args=settings, processing_class=tokenizer(), model=policy, ref_model=reference, reward_model=reward,
        value_model=value, train_dataset=rows, eval_dataset=rows.select(range(args.minibatch)), callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    return clock.marks


def usual(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of both trainers."""
    return {
        "output_dir": tempfile.mkdtemp(), "use_cpu": not torch.cuda.is_available(), "bf16": False, "report_to": [],
        "save_strategy": "no", "logging_steps": 1000, "per_device_train_batch_size": args.minibatch,
        "disable_tqdm": True, "gradient_checkpointing": False,
    }  # fmt: skip


def main() -> None:
    """Time the steps, and print them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["grpo", "ppo"])
    for name in ("hidden", "layers", "rollouts", "minibatch", "prompt", "response", "steps", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    marks = {"grpo": grpo, "ppo": ppo}[args.peer](args)
    print(json.dumps([round(end - begin, 4) for begin, end in pairwise(marks)]))


if __name__ == "__main__":
    main()
