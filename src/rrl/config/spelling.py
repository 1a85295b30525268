"""The probable meaning of a misspelt key or choice: a similar one, or the one of that name in another library."""

from collections.abc import Iterable, Mapping, Sequence

from rrl.errors import likeness, ratio

ALIASES = {
    "seed": "random_seed rng_seed manual_seed run.seed",
    "start_seed": "warmstart.seed data_seed init_seed",
    "policy.actor_lr": "lr learning_rate actor_learning_rate",
    "policy.critic_lr": "critic.optim.lr critic.lr critic_learning_rate value_lr",
    "policy.grad_clip": "max_grad_norm max_norm gradient_clipping gradient_clip_val clip_grad_norm",
    "policy.lr_warmup_steps": "warmup_steps num_warmup_steps lr_warmup_iters",
    "policy.lr_schedule": "lr_scheduler lr_scheduler_type warmup_style",
    "policy.adam_betas": "betas adam_beta1 adam_beta2",
    "policy.micro_batch_size": (
        "per_device_train_batch_size micro_train_batch_size ppo_micro_batch_size_per_gpu ppo_micro_batch_size "
        "gradient_accumulation_steps warmstart.micro_batch_size"
    ),
    "policy.dtype": "bf16 torch_dtype precision mixed_precision model_dtype",
    "policy.gradient_checkpointing": "enable_gradient_checkpointing",
    "policy.zero_stage": "zero deepspeed_stage zero_optimization.stage",
    "critic.value_trunk_grad_scale": "trunk_gradient",
    "engine.batch_size": (
        "max_num_seqs micro_rollout_batch_size per_device_eval_batch_size eval_batch_size val_batch_size"
    ),
    "engine.memory": "gpu_memory_utilization vllm_gpu_memory_utilization",
    "engine.tensor_parallel_size": "tensor_model_parallel_size vllm_tensor_parallel_size tp_size",
    "engine.sleep": "enable_sleep_mode vllm_enable_sleep_mode vllm_enable_sleep free_cache_engine",
    "engine.servers": "engine.server vllm_server_base_url vllm_server_host vllm_server_port",
    "engine.timeout": "vllm_server_timeout",
    "engine.ahead": (
        "trainer.ahead one_step_off_policy async_rollout async_train async_queue_size async_level max_async_level "
        "async_training staleness_threshold max_staleness max_off_policy_steps"
    ),
    "engine.stop": "stop_words stop_sequences stop_strings stop_token",
    "trainer.train_batch_size": "batch_size rollout_batch_size global_batch_size",
    "trainer.ppo_mini_batch_size": "mini_batch_size minibatch_size",
    "trainer.n": (
        "num_generations n_samples_per_prompt num_return_sequences num_samples samples_per_prompt group_size rollout.n"
    ),
    "siblings.n_replayed": "trainer.n_replayed n_replayed continuations num_continuations",
    "trainer.total_training_steps": (
        "steps max_steps num_steps total_steps train_steps num_train_epochs num_epochs total_epochs epochs num_episodes"
    ),
    "trainer.loss_agg_mode": "aggregate loss_aggregation",
    "trainer.min_correct": "trainer.enough",
    "trainer.max_guided_attempts": "guided_tries",
    "trainer.first_iteration": "trainer.first",
    "trainer.total_tokens": "tokens token_budget max_total_tokens",
    "trainer.ppo_epochs": "num_ppo_epochs max_epochs update_epochs",
    "trainer.critic_warmup": "critic_warmup_steps freezing_actor_steps value_warmup",
    "objective.clip_ratio": "clip cliprange clip_range clip_eps eps_clip epsilon",
    "objective.cliprange_value": "value_clip cliprange_vf",
    "objective.gamma": "discount discount_factor",
    "objective.gae_lambda": "lam lambd gae_lambda",
    "kl.coef": "init_kl_coef kl_loss_coef kl_coef beta kl_beta",
    "kl.target": "kl_target target_kl",
    "kl.horizon": "kl_horizon",
    "kl.estimator": "kl_estimator kl_loss_type",
    "objective.importance_cap": (
        "engine.importance_cap vllm_importance_sampling_cap tis_imp_ratio_cap imp_ratio_cap importance_sampling_cap "
        "enable_vllm_is_correction rollout_is rollout_is_threshold"
    ),
    "objective.entropy_coef": "ent_coef entropy_coeff entropy_bonus",
    "objective.vf_coef": "value_coef value_loss_coef vf_coeff",
    "objective.advantage_norm": "whiten_rewards whiten_advantages normalise normalize normalize_advantages",
    "data.max_prompt_length": "prompt_max_len prompt_length max_input_length prompts.max_prompt_length",
    "data.max_response_length": (
        "response_length max_completion_length generate_max_len max_length max_tokens max_new_tokens"
    ),
    "data.path": "task.path train_files prompt_data data_path data_dir dataset_path train_file",
    "data.plain_template": "template.text",
    "model.path": "model_name_or_path model_name model_id base_model pretrain",
    "run.dir": (
        "output_dir default_local_dir save_path save_dir directory run.name log_dir logdir out_dir outdir run_name "
        "experiment_name"
    ),
    "run.save_freq": "save_steps save_interval save_every ckpt_freq",
    "run.test_freq": "eval_steps eval_freq eval_interval eval_every test_every",
    "run.keep_last": "save_total_limit max_ckpt_num max_actor_ckpt_to_keep",
    "run.threads": "num_threads cpus",
    "evaluation.limit": "max_eval_samples num_eval_samples eval_limit",
    "logger.project": "wandb_project project_name",
    "logger.entity": "wandb_entity wandb_org",
    "logger.group": "wandb_group",
    "launcher.num_processes": "n_gpus_per_node num_gpus gpus nproc nproc_per_node world_size",
    "sampler.buffer.capacity": "buffer_size replay_buffer_size",
    "sampler.buffer.keep_between": "evict_after_failures evict_above evict_min_visits",
    "sampler.schedule.share": "replay_ratio replay_share ramp_from ramp_until decay_from decay_until",
    "sampler.schedule.collect": "collect_from collect_until",
}
"""Names of keys in TRL, OpenRLHF and verl, and short names."""
CHOICES = {
    "resume=auto with run.dir, or resume=RUN": (
        "resume_mode resume_from_checkpoint resume_from_path load_checkpoint ckpt_path auto_resume"
    ),
    "resume=RUN (of rrl-train), or from_run=RUN (of rrl-evaluate)": "resume from_run run_dir from_checkpoint",
    "logger=wandb": "wandb use_wandb report_to log_with",
    "task": "dataset dataset_name env env_name",
    "template=chat": "chat_template apply_chat_template use_chat_template",
    "algo": "algorithm algorithm.name adv_estimator advantage_estimator",
    "critic=own|shared|none": "policy.critic",
    "lora=default": "policy.lora use_peft use_lora lora_rank lora_r",
    "offload=optimizer|reference|all": (
        "policy.offload optimizer_offload offload_optimizer adam_offload optim_offload cpu_offload zero_offload "
        "param_offload offload_param ref_offload ref_param_offload ref_reward_offload"
    ),
    "compile=layers": "policy.compile torch_compile use_torch_compile",
    "old_log_prob=engine": "bypass_mode bypass_old_logprob_for_rollout trainer.old_log_prob",
    "micro_batch=tokens with policy.micro_batch_tokens": (
        "use_dynamic_bsz log_prob_use_dynamic_bsz use_dynamic_batch ppo_max_token_len_per_gpu "
        "log_prob_max_token_len_per_gpu forward_max_token_len_per_gpu train_max_tokens_per_gpu "
        "max_tokens_per_microbatch"
    ),
    "kl=reward or kl=loss": "kl_in use_kl_loss use_kl_in_reward",
    "engine=truncated": "top_p top_k",
    "engine=vllm or engine=vllm_server": "use_vllm vllm_mode rollout.name rollout.mode vllm_num_engines",
    "dry_run=true": "dryrun plan",
    "reward_model": "scorer",
    "search=optuna": "hydra/sweeper",
    "fit (of rrl-reward-model)": "kind",
    "warmstart.steps or warmstart.batch_size, whose product is drawn": "warmstart.demonstrations",
    "model=hf with model.path": "model.name",
    "sampler=redraw": "sampler.start_from",
    "sampler=success_prefix": "sampler.harvest",
    "sampler.sources=self, which collects from responses to the prompt alone": "sampler.harvest_replayed",
    "sampler.schedule.collect, within which a state that is found again gets a new score": "sampler.rescore_every",
    "sampler.buffer.capacity, at which the state of the lowest score is given up": "sampler.buffer.overflow",
}
"""The same for options and choices, which are no keys."""
GONE = {
    "policy.adam_epsilon": "it is always 1e-8",
    "run.cache_dir": "the environment variable RRL_CACHE names that folder",
    "judge.cache_dir": "the environment variable RRL_CACHE names that folder",
    "task.hub_config": "it follows a colon in task.hub_id, as in openai/gsm8k:socratic",
    "warmstart.weight_decay": "it is always 0.01",
    "warmstart.grad_clip": "it is always 1",
    "run.log_seconds": "there is a line at most every 30 seconds, and metrics.jsonl has every step",
    "prompts.overlong": "prompts that are too long are always dropped, and counted",
    "evaluation.greedy": "a greedy response is always measured",
    "model.num_attention_heads": "a head is 32 wide",
    "model.initializer_range": "it is always 0.15",
    "task.test_per_level": "a tenth of task.train_per_level are held out",
    "model.intermediate_size": "it is 8/3 of model.hidden_size",
    "model.max_position_embeddings": "it follows from data.max_prompt_length and data.max_response_length",
}
"""Keys of earlier versions, and their replacements."""


def likeliest_key(key: str, keys: Sequence[str], elsewhere: Iterable[str]) -> str | None:
    """The key that a dotted key meant: by another library's name, by its last words, or by similarity to ``keys``.

    ``elsewhere`` are keys of other choices; their last words count too, and similarity to those in the same group.
    """
    key, others = key.lower(), list(elsewhere)
    alias = _longest(key, ALIASES)
    known = alias if alias in keys or alias in others else None
    parent = key.rpartition(".")[0]
    beside = [name for name in others if parent and name.rpartition(".")[0] == parent]
    return (
        _group_misspelt(key, [*keys, *others])
        or known
        or _same_end(key, [*keys, *others])
        or _likest(key, [*keys, *beside])
    )


def other_name(key: str) -> bool:
    """Whether the key is one of an earlier version, or another library's name."""
    return key in GONE or _longest(key, ALIASES) is not None or _longest(key, CHOICES) is not None


def likeliest_choice(key: str) -> str | None:
    """The choice or option that another library's name means."""
    return _longest(key, CHOICES)


def _longest(key: str, table: Mapping[str, str]) -> str | None:
    """The name here of the longest alias that ``key`` ends in."""
    names = {alias: name for name, aliases in table.items() for alias in aliases.split()}
    known = [alias for alias in names if f".{key.lower()}".endswith(f".{alias}")]
    return names[max(known, key=len)] if known else None


def _group_misspelt(key: str, keys: Sequence[str]) -> str | None:
    """The key of the same last word whose group is spelt most similarly to that of ``key``."""
    group, _, leaf = key.rpartition(".")
    groups = [name.rpartition(".")[0] for name in keys if name.rpartition(".")[2] == leaf]
    near = max(groups, key=lambda name: ratio(group, name), default="")
    return f"{near}.{leaf}" if group and near and ratio(group, near) >= 0.75 else None


def _same_end(key: str, keys: Sequence[str]) -> str | None:
    """The first key that ends in the same two words as ``key``, or in the same one."""
    ends = [[name for name in keys if name.split(".")[-words:] == key.split(".")[-words:]] for words in (2, 1)]
    return next((names[0] for names in ends if names), None)


def _likest(key: str, keys: Sequence[str]) -> str | None:
    """The key, or the key of the alias, with the most similar last word; keys of the same group get a bonus."""
    parent, _, leaf = key.rpartition(".")
    scores = {name: likeness(leaf, name.rpartition(".")[2]) for name in keys}
    for name, aliases in ALIASES.items():
        scores[name] = max(scores.get(name, 0.0), *(likeness(leaf, alias) for alias in aliases.split()))
    scores |= {name: score + 0.15 for name, score in scores.items() if name.rpartition(".")[0] == parent}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= 0.75 else None
