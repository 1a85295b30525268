"""The work of the benchmark as parts: random prompts, and a small random Llama that never ends a response by itself."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rrl.interfaces import Task
from rrl.training.models import LoadedModel, Model, TinyLlama
from rrl.types import Example, Feedback, Rollout, Verdict


@dataclass(frozen=True, kw_only=True)
class Work(Task):
    """``problems`` random prompts of ``max_prompt_length`` tokens; a response's score is its variety."""

    problems: int
    words: int
    max_prompt_length: int
    start_seed: int

    def examples(self, split: str) -> list[Example]:
        """Random words."""
        rng = random.Random(f"{split}/{self.start_seed}")
        count = self.problems if split == "train" else 1
        texts = [" ".join(rng.choices(self.vocabulary(), k=self.max_prompt_length - 1)) for _ in range(count)]
        return [
            Example(id=f"{split}/{i}", level="all", question=text, reference="", answer="")
            for i, text in enumerate(texts)
        ]

    def demonstrations(self, count: int, seed: int) -> list[Example]:
        """There are none."""
        return []

    def vocabulary(self) -> tuple[str, ...]:
        """Words without a meaning; four special tokens come beside them."""
        return tuple(f"w{number}" for number in range(self.words))

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """The share of a response's tokens that are different."""
        return [Feedback(len(set(r.actions)) / len(r.actions), Verdict.WRONG) for r in rollouts]


@dataclass(frozen=True, kw_only=True)
class Llama(Model):
    """A random Llama with 4 heads, whose feed-forward layers are four times as wide as it."""

    hidden_size: int
    num_hidden_layers: int

    def load(self, vocabulary: tuple[str, ...] | None) -> LoadedModel:
        """The model, and a tokenizer of the task's words."""
        from transformers import LlamaConfig, LlamaForCausalLM

        tokenizer = tokenizer_of(vocabulary)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=self.hidden_size, intermediate_size=4 * self.hidden_size,
            num_hidden_layers=self.num_hidden_layers, num_attention_heads=4, num_key_value_heads=4,
            max_position_embeddings=1024, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        model.lm_head.register_forward_hook(never(tokenizer.eos_token_id))
        return LoadedModel(model, tokenizer)


@dataclass(frozen=True, kw_only=True)
class Qwen2(Model):
    """A random model of a Qwen2.5's shape. Of its many words it draws that which ends a response about never."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_prompt_length: int
    max_response_length: int

    def load(self, vocabulary: tuple[str, ...] | None) -> LoadedModel:
        """The model, and a tokenizer of the task's words."""
        from transformers import Qwen2Config, Qwen2ForCausalLM

        tokenizer = tokenizer_of(vocabulary)
        config = Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=self.hidden_size, intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers, num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads, tie_word_embeddings=True,
            max_position_embeddings=self.max_prompt_length + self.max_response_length,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        return LoadedModel(Qwen2ForCausalLM(config), tokenizer)


def tokenizer_of(vocabulary: tuple[str, ...] | None) -> Any:
    """That of ``model=tiny``."""
    small = TinyLlama(hidden_size=64, num_hidden_layers=1, start_seed=0, max_prompt_length=1, max_response_length=1)
    return small.load(vocabulary).tokenizer


def never(token: int) -> Any:
    """A hook that gives a token's logit the probability 0."""

    def hook(module: torch.nn.Module, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, torch.tensor([token], device=logits.device), float("-inf"))

    return hook
