"""Small random models of many architectures, and rows on which engine and networks are compared."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from fixtures_replay import problem
from rrl.collate import collate, engine_logprobs
from rrl.engines.hf import HFEngine
from rrl.models import LoadedModel
from rrl.networks import Actor, dropout_off
from rrl.types import State

SIZES: dict[str, Any] = {
    "vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "sliding_window": 8,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.15, "init_std": 0.15,
    "attention_dropout": 0.1, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8,
    "mamba_n_groups": 1, "state_size": 8, "n_groups": 1, "chunk_size": 8, "num_heads": 8, "time_step_rank": 4,
    "rotary_dim": 4, "expand": 2, "ffn_dim": 48,
}  # fmt: skip
"""Under every name that a configuration may use; each takes what it knows."""

LATENT = {"num_key_value_heads": 4, "head_dim": 4, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
          "kv_lora_rank": 8, "q_lora_rank": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}  # fmt: skip
LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
CONVOLUTION = {"layer_types": ["conv", "full_attention"]}
SLIDING = {"layer_types": ["sliding_attention", "full_attention"]}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip

SERVED: dict[str, dict[str, Any]] = {
    "cohere": {"logit_scale": 1.0},
    "deepseek_v2": LATENT,
    "falcon": {},
    "falcon_h1": {},
    "gemma": {},
    "gemma2": SLIDING,
    "gemma3": {"vision_config": VISION, "mm_tokens_per_image": 4},
    "gemma3_text": SLIDING,
    "gpt2": {},
    "gpt_neox": {},
    "granite": {},
    "lfm2": CONVOLUTION,
    "llama": {},
    "mamba2": {"head_dim": 8, "num_heads": 8},
    "mistral": {},
    "mixtral": {},
    "olmo2": {},
    "opt": {"word_embed_proj_dim": 16},
    "phi3": {},
    "qwen2": {},
    "qwen3": {},
    "qwen3_5_text": LINEAR,
    "qwen3_moe": {},
    "qwen3_next": LINEAR,
    "smollm3": {},
}


def configuration(kind: str, **changes: Any) -> PretrainedConfig:
    """A small one of an architecture; wrappers have the language model's sizes in their text part."""
    usual = AutoConfig.for_model(kind)
    if "vision_config" in changes:
        text = configuration(usual.get_text_config().model_type, **SLIDING)
        return type(usual)(text_config=text.to_dict(), **changes)
    known = {name: size for name, size in SIZES.items() if _takes(usual, name)}
    return type(usual)(**{**known, **changes})


def _takes(config: PretrainedConfig, name: str) -> bool:
    """Whether a size has this name in a configuration, and is not computed from others there."""
    return hasattr(config, name) and not isinstance(getattr(type(config), name, None), property)


def build(kind: str, **changes: Any) -> Any:
    """A random causal language model of an architecture, in evaluation mode; none of its parameters is zero or one."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(configuration(kind, **changes), dtype=torch.float32)
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    dropout_off(model)
    return model.eval()


def rows() -> list[State]:
    """Eight starts of several lengths, longer than a small window, most of them with a prefix."""
    generator = torch.Generator().manual_seed(7)
    sizes = ((3, 0), (21, 2), (9, 5), (14, 11), (5, 13), (30, 0), (1, 8), (12, 13))
    drawn = [[torch.randint(4, 259, (n,), generator=generator).tolist() for n in lengths] for lengths in sizes]
    return [State(problem(f"p{i}", prompt=(1, *prompt)), tuple(prefix)) for i, (prompt, prefix) in enumerate(drawn)]


def disagreement(loaded: LoadedModel, engine: HFEngine) -> float:
    """The largest difference between what the engine says of its tokens and what the networks do, in nats."""
    rollouts = engine.generate(rows())
    assert len({len(rollout.actions) for rollout in rollouts}) > 3, "rows leave the batch at different times"
    batch = collate(rollouts, [(0.0,) * len(rollout.actions) for rollout in rollouts], loaded.tokenizer.pad_token_id)
    with torch.no_grad():
        logprobs, _, _ = Actor(loaded.model, 1.0, head_size=None, trunk_gradient=0.0)(
            batch.tokens, batch.attention, batch.mask
        )
    return float((logprobs - engine_logprobs(rollouts, batch.mask))[batch.mask].abs().max())
