"""What a misspelt name probably meant: a valid one like it, or the key that another library calls so."""

import difflib
from collections.abc import Iterable, Sequence

ALIASES = {
    "policy.actor_lr": "lr learning_rate actor_learning_rate",
    "policy.critic_lr": "critic.optim.lr critic_learning_rate",
    "policy.grad_clip": "max_grad_norm max_norm",
    "policy.lr_warmup_steps": "warmup_steps",
    "policy.micro_batch_size": "per_device_train_batch_size micro_train_batch_size ppo_micro_batch_size_per_gpu",
    "engine.batch_size": "micro_rollout_batch_size",
    "trainer.train_batch_size": "batch_size rollout_batch_size",
    "trainer.ppo_mini_batch_size": "mini_batch_size",
    "trainer.n": "num_generations n_samples_per_prompt",
    "trainer.total_training_steps": "max_steps num_train_epochs total_epochs",
    "trainer.ppo_epochs": "num_ppo_epochs max_epochs",
    "objective.clip_ratio": "cliprange eps_clip epsilon",
    "objective.cliprange_value": "value_clip",
    "objective.lam": "lambd",
    "objective.kl_coef": "init_kl_coef kl_loss_coef beta",
    "objective.normalise": "whiten_rewards",
    "data.max_prompt_length": "prompt_max_len",
    "data.max_response_length": "response_length max_completion_length generate_max_len",
    "data.path": "train_files prompt_data",
    "model.path": "model_name_or_path pretrain",
    "run.dir": "output_dir default_local_dir save_path",
    "run.save_freq": "save_steps",
    "run.test_freq": "eval_steps",
}
"""What a key is called in TRL, OpenRLHF and verl."""


def nearest(name: str, valid: Sequence[str]) -> str:
    """``"; did you mean 'x'?"`` with the valid name closest to ``name``, or a list of all when none is close."""
    near = closest(name, valid)
    if near:
        return f"; did you mean {near!r}?"
    return f"; valid: {', '.join(sorted(valid))}" if len(valid) <= 20 else ""


def closest(name: str, valid: Sequence[str]) -> str | None:
    """The valid name most like ``name``, if any is like it."""
    best = max(valid, key=lambda candidate: _likeness(name, candidate), default="")
    return best if best and _likeness(name, best) >= 0.6 else None


def likeliest_key(key: str, keys: Sequence[str], elsewhere: Iterable[str]) -> str | None:
    """What a dotted key meant: by another library's name for it, by its last words, or by likeness to ``keys``.

    ``elsewhere`` are keys that other choices bring; their last words count too.
    """
    return _alias(key) or _same_end(key, [*keys, *elsewhere]) or _likest(key, keys)


def _alias(key: str) -> str | None:
    """What another library's name for a key is called here; the longest known end of ``key`` counts."""
    names = {alias: name for name, aliases in ALIASES.items() for alias in aliases.split()}
    known = [alias for alias in names if f".{key}".endswith(f".{alias}")]
    return names[max(known, key=len)] if known else None


def _same_end(key: str, keys: Sequence[str]) -> str | None:
    """The first key that ends in the same two words as ``key``, or in the same one."""
    ends = [[name for name in keys if name.split(".")[-words:] == key.split(".")[-words:]] for words in (2, 1)]
    return next((names[0] for names in ends if names), None)


def _likest(key: str, keys: Sequence[str]) -> str | None:
    """The key, or the key of the alias, whose last word is most like that of ``key``; siblings have a start."""
    parent, _, leaf = key.rpartition(".")
    scores = {name: _likeness(leaf, name.rpartition(".")[2]) for name in keys}
    scores |= {name: score + 0.15 for name, score in scores.items() if name.rpartition(".")[0] == parent}
    for name, aliases in ALIASES.items():
        scores[name] = max(scores.get(name, 0.0), *(_likeness(leaf, alias) for alias in aliases.split()))
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= 0.75 else None


def _likeness(name: str, candidate: str) -> float:
    """How alike two names are, 0 to 1; a single word of the candidate may do, at a small discount."""
    whole = difflib.SequenceMatcher(None, name, candidate).ratio()
    words = [difflib.SequenceMatcher(None, name, word).ratio() for word in candidate.split("_")]
    return max(whole, 0.95 * max(words))
