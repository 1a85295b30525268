"""Configurations: every file binds, every fault is told, all of them at once and before anything loads."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from rrl.config.check import SHARED, SLOTS, Parts, RewardModelParts, check, load
from rrl.config.compose import compose, conf_dir, groups, walk
from rrl.config.spelling import ALIASES
from rrl.errors import ConfigError, closest, nearest
from rrl.interfaces import Selection
from rrl.parts.samplers.problems import Problems
from rrl.ranges import check_ranges, not_negative, refuse
from rrl.records.run_directory import cache_folder

HOSTS = Path(__file__).parents[1] / "fixtures" / "hosts"
PROGRAMS = "task={_target_: fixtures.programs.FakePrograms}"
NEEDS = {
    "model=hf": ["model.path=somewhere"], "objective=grpo": ["trainer.n=8"],
    **{f"algo={name}": [PROGRAMS] for name in ("ppocoder", "rltf", "rltf_original")},
    **{f"reward={name}": [PROGRAMS] for name in ("ppocoder", "rltf", "rltf_original")},
    "task=hh": ["reward_model=sequence", "reward_model.path=somewhere"],
    "reward=preference": ["task=hh", "reward_model=sequence", "reward_model.path=somewhere"],
    "reward_model=sequence": ["reward_model.path=somewhere"],
    "reward_model=embeddings": ["reward_model.path=somewhere"],
    "fit=embeddings": ["fit.embedder.path=somewhere"],
    "critic=none": ["objective=supervised", "kl=none"],
    "trainer=gsi": ["algo=gsi"],
    "launcher=hostfile": [f"launcher.hostfile={HOSTS}"],
    "judge=openai": ["judge.model=some-model"],
    "judge=reward_model": ["reward_model=sequence", "reward_model.path=somewhere"],
}  # fmt: skip
CHOICES = [f"{group}={option}" for group, options in groups().items() for option in options]
OF_REWARD_MODELS = [choice for choice in CHOICES if choice.startswith("fit=")]


def faults(*overrides: str, run: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load("train", overrides, run=run and str(run))
    return list(caught.value.faults)


# --- every file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice not in OF_REWARD_MODELS])
def test_every_choice_of_every_group_binds(choice: str) -> None:
    config, parts = load("evaluate", [choice, *NEEDS.get(choice, [])])
    assert isinstance(parts, Parts)
    assert {slot for slot in SLOTS if slot in config} == {s for s in SLOTS if getattr(parts, s) is not None}


@pytest.mark.parametrize("choice", OF_REWARD_MODELS)
def test_every_kind_of_reward_model_binds(choice: str) -> None:
    _, parts = load("train_reward_model", [choice, *NEEDS.get(choice, [])], judging=False)
    assert isinstance(parts, RewardModelParts)
    assert parts.fit.needs_model == ("sequence" in choice)


@pytest.mark.parametrize(
    "choice", [choice for choice in CHOICES if choice.startswith(("task=", "model=", "reward_model="))]
)
def test_a_reward_model_composes_with_every_task_and_model(choice: str) -> None:
    only = (*(field.name for field in fields(RewardModelParts)), *SHARED)
    assert not compose("train_reward_model", [choice], only).faults


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("policy.actor_lr=1", "policy.actor_lr: no such key; --cfg prints all keys"),
        (
            "algo=ppo",
            "algo: no such key; valid: seed, start_seed, pairs, run, template, sandbox, reward_model, fit, task, data, "
            "model",
        ),
        ("fit.lrr=1", "fit.lrr: no such key; did you mean 'fit.lr'?"),
        ("fit.hidden=[1]", "fit.hidden: no such key; it comes with fit=embeddings"),
    ],
)
def test_a_reward_model_has_no_keys_of_reinforcement_learning(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("train_reward_model", [override], judging=False)
    assert caught.value.faults == (expected,)


def test_the_choice_of_an_algorithm_wins_over_a_tasks_natural_reward_and_the_command_line_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "algo").mkdir()
    defaults = "# @package _global_\ndefaults:\n  - override /reward: verdict\nalgo: mine\n"
    (tmp_path / "algo" / "mine.yaml").write_text(defaults)
    monkeypatch.setenv("RRL_PARTS", str(tmp_path))

    def chosen(*overrides: str) -> str:
        target: str = compose("train", overrides).config["reward"]["_target_"]
        return target.rpartition(".")[2]

    assert [chosen("task=trace"), chosen("task=hh"), chosen("task=hh", "algo=ppo")] == [
        "OutcomeReward", "RewardModelReward", "RewardModelReward",
    ]  # fmt: skip
    assert [chosen("task=hh", "algo=mine"), chosen("task=hh", "algo=mine", "reward=preference")] == [
        "OutcomeReward", "RewardModelReward",
    ]  # fmt: skip
    assert chosen("task=hh", "reward=verdict") == "OutcomeReward"


@pytest.mark.parametrize("algo", [algo for algo in groups()["algo"] if f"algo={algo}" not in NEEDS])
@pytest.mark.parametrize("model", [["model=tiny"], ["model=hf", "model.path=somewhere"]])
def test_every_algorithm_binds_with_every_kind_of_model_on_real_data(algo: str, model: list[str]) -> None:
    _, parts = load("train", [f"algo={algo}", "task=gsm8k", "template=chat", *model])
    assert parts.prompts.max_prompt_length == 512


def test_every_file_is_a_choice() -> None:
    files = {str(file.relative_to(conf_dir()).with_suffix("")) for file in conf_dir().rglob("*.yaml")}
    assert files - {choice.replace("=", "/", 1) for choice in CHOICES if "experiment=" not in choice} == {
        "train", "evaluate", "train_reward_model",
    }  # fmt: skip


def test_the_default_is_replay_on_the_embedded_task() -> None:
    config, parts = load("train", [])
    assert (config["algo"], config["data"]["name"], config["seed"]) == ("rrl", "trace", 0)
    assert type(parts.model).__name__ == "TinyLlama"
    assert type(parts.sampler).__name__ == "Retrospective"


def test_the_two_algorithms_differ_in_the_sampler_alone() -> None:
    ppo, rrl = (compose("train", [f"algo={algo}"]).config for algo in ("ppo", "rrl"))
    assert {key for key in rrl if ppo[key] != rrl[key]} == {"algo", "sampler"}


# --- what overrides mean ----------------------------------------------------------------------------------------------


def config(*overrides: str) -> dict[str, Any]:
    composed = compose("train", overrides)
    assert composed.faults == []
    return composed.config


def test_a_value_wins_over_a_choice_wherever_it_stands() -> None:
    assert config("trainer.n=3", "task=gsm8k", "data.cut_points=token")["data"]["cut_points"] == "token"
    assert config("trainer.train_batch_size=7", "model=tiny")["trainer"]["train_batch_size"] == 7


def test_a_mapping_replaces_the_old_one_and_a_plus_adds_to_it() -> None:
    assert config("data.level_weights={L6: 1}")["data"]["level_weights"] == {"L6": 1}
    before = config()["data"]["level_weights"]
    assert config("+data.level_weights.L6=1")["data"]["level_weights"] == {**before, "L6": 1}


def test_the_same_override_twice_is_one() -> None:
    assert config("seed=3", "seed=3")["seed"] == 3


def test_quotes_keep_blanks_and_braces() -> None:
    assert config("data.plain_template='Q: {question}'")["data"]["plain_template"] == "Q: {question}"


@pytest.mark.parametrize("slot", ["warmstart", "logger"])
def test_null_empties_a_slot_that_may_be_empty(slot: str) -> None:
    _, parts = load("train", [f"{slot}=null"])
    assert getattr(parts, slot) is None


def test_null_leaves_out_an_experiment() -> None:
    assert config("experiment=null") == config()


def test_the_cache_can_be_given_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRL_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
    monkeypatch.delenv("RRL_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "rrl"


# --- keys and groups --------------------------------------------------------------------------------------------------


UNKNOWN_KEYS = {
    "trainer.train_batchsize=4": "did you mean 'trainer.train_batch_size'?",
    "trainer.lerning_rate=1e-5": "did you mean 'policy.actor_lr'?",
    "policy.actor_learning_rate=1e-5": "did you mean 'policy.actor_lr'?",
    "learning_rate=1e-5": "did you mean 'policy.actor_lr'?",
    "per_device_train_batch_size=4": "did you mean 'policy.micro_batch_size'?",
    "num_generations=4": "did you mean 'trainer.n'?",
    "warmstart.micro_batch_size=4": "did you mean 'policy.micro_batch_size'?",
    "warmstart.demonstrations=4": "did you mean warmstart.steps or warmstart.batch_size, whose product is drawn?",
    "scorer=sequence": "did you mean reward_model?",
    "scorer.path=x": "did you mean 'reward_model.path' (with reward_model=embeddings|sequence)?",
    "hydra/sweeper=optuna": "did you mean search=optuna?",
    "task.hub_config=main": "it is no key any more: it follows a colon in task.hub_id, as in openai/gsm8k:socratic",
    "warmstart.weight_decay=0": "it is no key any more: it is always 0.01",
    "warmstart.grad_clip=0": "it is no key any more: it is always 1",
    "kl.target=1": "it comes with kl=adaptive",
    "critic.trunk_gradient=1": "did you mean 'critic.value_trunk_grad_scale'?",
    "kind.lr=1": "did you mean 'policy.actor_lr'?",
    "beta=0.1": "did you mean 'kl.coef'?",
    "max_completion_length=64": "did you mean 'data.max_response_length'?",
    "rollout_batch_size=64": "did you mean 'trainer.train_batch_size'?",
    "n_samples_per_prompt=4": "did you mean 'trainer.n'?",
    "eps_clip=0.2": "did you mean 'objective.clip_ratio'?",
    "data.train_batch_size=64": "did you mean 'trainer.train_batch_size'?",
    "actor_rollout_ref.rollout.n=4": "did you mean 'trainer.n'?",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4": "did you mean 'trainer.ppo_mini_batch_size'?",
    "actor_rollout_ref.actor.optim.lr=1e-5": "did you mean 'policy.actor_lr'?",
    "critic.optim.lr=1e-5": "did you mean 'policy.critic_lr'?",
    "algorithm.kl_ctrl.kl_coef=0.1": "did you mean 'kl.coef'?",
    "actor_rollout_ref.model.path=x": "did you mean 'model.path' (with model=hf)?",
    "model.path=x": "it comes with model=hf",
    "data.path=x": "it comes with task=apps|apps_plus|gsm8k|hh|jsonl|math",
    "selection.delta=0.1": "it comes with selection=critic_rise",
    "logger.project=x": "it comes with logger=wandb",
    "hydra.run.dir=x": "did you mean 'run.dir'?",
    "data.pth=x": "did you mean 'data.path' (with task=apps|apps_plus|gsm8k|hh|jsonl|math)?",
    "sampler.schedule.zzz=1": "valid: share, collect",
    "zzz.zzz=1": "--cfg prints all keys",
}


def test_an_unknown_key_is_told_with_the_nearest_valid_one_and_other_libraries_names_are_known() -> None:
    told = faults(*UNKNOWN_KEYS)
    assert told == [f"{text.partition('=')[0]}: no such key; {hint}" for text, hint in UNKNOWN_KEYS.items()]


OTHER_NAMES = {
    "trainer.total_training_steps": "steps max_steps epochs num_train_epochs trainer.total_epochs trainer.steps",
    "trainer.train_batch_size": "batch_size data.train_batch_size trainer.batchsize rollout_batch_size",
    "trainer.n": "num_generations actor_rollout_ref.rollout.n trianer.n n group_size",
    "policy.actor_lr": "lr learning_rate policy.lr optim.lr polcy.actor_lr",
    "policy.critic_lr": "critic.optim.lr critic_learning_rate",
    "policy.micro_batch_size": "per_device_train_batch_size gradient_accumulation_steps",
    "policy.dtype": "bf16 torch_dtype",
    "kl.coef": "beta kl_coef objective.beta actor_rollout_ref.actor.kl_loss_coef",
    "objective.gamma": "gamma algorithm.gamma discount_factor",
    "objective.gae_lambda": "lam lambda gae_lambda",
    "objective.clip_ratio": "clip cliprange eps_clip",
    "objective.entropy_coef": "ent_coef entropy_coeff",
    "data.max_response_length": "max_completion_length response_length",
    "run.dir": "output_dir run.name run.directory trainer.default_local_dir trainer.experiment_name",
    "run.save_freq": "save_steps trainer.save_freq save_interval",
    "run.test_freq": "eval_steps trainer.test_freq",
    "run.keep_last": "save_total_limit",
    "launcher.num_processes": "trainer.n_gpus_per_node num_gpus",
    "seed": "random_seed seeds sed",
    "engine.temperature": "temprature actor_rollout_ref.rollout.temperature",
    "warmstart.steps": "warmstrt.steps",
    "evaluation.split": "evaluation.splt",
    "data.plain_template": "template.text plain_templat",
    "model.path' (with model=hf)": "model_name_or_path model.pth pretrain",
    "data.path' (with task=apps|apps_plus|gsm8k|hh|jsonl|math)": "task.path data.pth train_files data.train_files",
    "logger.project' (with logger=wandb)": "trainer.project_name wandb_project",
}
CHOSEN = {
    "resume=auto with run.dir, or resume=RUN": "resume_mode trainer.resume_mode resume_from_checkpoint",
    "logger=wandb": "wandb report_to trainer.wandb",
    "algo": "algorithm.adv_estimator",
    "task": "dataset",
}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        (key, f"'{name}'" if "(" not in name else f"'{name}")
        for name, keys in OTHER_NAMES.items()
        for key in keys.split()
    ]
    + [(key, name) for name, keys in CHOSEN.items() for key in keys.split()],
)
def test_other_names_lead_to_the_key_or_choice_that_is_meant(key: str, meant: str) -> None:
    assert compose("train", [f"{key}=3"]).faults == [f"{key}: no such key; did you mean {meant}?"]


def test_a_key_of_several_choices_of_a_group_is_told_with_all_of_them() -> None:
    assert faults("objective=grpo", "trainer.n=2", "kl.coef=0.1") == [
        "kl.coef: no such key; it comes with kl=adaptive|loss|ppocoder|reward"
    ]


def test_a_part_without_keys_takes_no_value() -> None:
    assert faults("prompts=default") == [
        "prompts: expected keys of its own, got 'default'; it has none to set; leave it out"
    ]


def test_a_group_does_not_take_its_keys_alone() -> None:
    assert faults("lora={rank: 8}", "kl={}") == [
        "lora: expected LoRA or null, got {'rank': 8}; name a choice of this group, and set its keys after it",
        "kl: expected KL, got {}; name a choice of this group, and set its keys after it",
    ]


def test_every_alias_leads_to_a_key_that_is_there() -> None:
    more = (["task=gsm8k", "model=hf", "logger=wandb", "kl=loss"], ["algo=gsi", "kl=adaptive"])
    known = {key for overrides in ([], *more) for key, _ in walk(config(*overrides))}
    assert set(ALIASES) <= known


def test_an_unknown_choice_is_told_with_the_nearest_and_all_valid_ones() -> None:
    assert faults("algo=rl", "objective=zzzz", "task=null", "trainer=5", "experiment=zzzz") == [
        f"algo: no such choice 'rl'; did you mean 'rrl'? valid: {', '.join(groups()['algo'])}",
        f"objective: no such choice 'zzzz'; valid: {', '.join(groups()['objective'])}",
        f"task: no such choice null; valid: {', '.join(groups()['task'])}",
        f"trainer: no such choice 5; valid: {', '.join(groups()['trainer'])}",
        f"experiment: no such choice 'zzzz'; valid: {', '.join(groups()['experiment'])}",
    ]


@pytest.mark.parametrize(
    "text",
    ["seed", "=5", "", "a b=c", "a=b=c", "[1", "trainer.n=[1,", "data.plain_template=Q: {question}", "task@x=trace"],
)
def test_an_override_that_cannot_be_read_is_told_with_an_example(text: str) -> None:
    example = "\"data.plain_template='Q: {question}'\""
    expected = f"{text!r}: cannot be read; expected key=value; quote special characters, as in {example}"
    assert faults(text, "trainer.n=0") == [expected, "trainer.n: expected at least 1, got 0"]


def test_what_hydra_would_take_and_we_do_not_is_told() -> None:
    assert faults("--multirun", "-m", "--config-name=x", "~trainer.n", "~trainer", "seed=1,2", "seed=range(1,3)") == [
        "--multirun: no such option; expected key=value, or --help",
        "-m: no such option; expected key=value, or --help",
        "--config-name=x: no such option; expected key=value, or --help",
        "~trainer.n: a key cannot be taken away; set it to another value, such as null",
        "~trainer: a key cannot be taken away; set it to another value, such as null",
        "seed=1,2: several values, expected one; give a list as key=[a,b], or start one run for each",
        "seed=range(1,3): several values, expected one; give a list as key=[a,b], or start one run for each",
    ]


def test_a_key_or_group_given_twice_is_told() -> None:
    assert faults("seed=1", "seed=2", "task=trace", "task=gsm8k") == [
        "seed: given twice, as 'seed=1' and 'seed=2'; keep one",
        "task: given twice, as 'task=trace' and 'task=gsm8k'; keep one",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "data.plain_template='${nope}'",
            "data.plain_template: ${nope} refers to no key; valid: seed, start_seed, prompts, run",
        ),
        (
            "policy.actor_lr='${objective.kl_coef}'",
            "policy.actor_lr: ${objective.kl_coef} refers to no key; did you mean 'kl.coef' (with "
            "kl=adaptive|loss|ppocoder|reward)?",
        ),
        ("policy.actor_lr='${sed}'", "policy.actor_lr: ${sed} refers to no key; did you mean 'seed'?"),
        ("seed='${seed}'", "seed: Recursive interpolation detected"),
        ("trainer.n=???", "trainer.n: Missing mandatory value: n"),
    ],
)
def test_a_value_that_leads_nowhere_is_told_with_the_faults_so_far(text: str, expected: str) -> None:
    assert faults("trainer.nn=1", text) == ["trainer.nn: no such key; did you mean 'trainer.n'?", expected]


# --- values -----------------------------------------------------------------------------------------------------------


WRONG_TYPES = {
    "seed=abc": "seed: expected int, got 'abc'",
    "trainer.n=1.5": "trainer.n: expected int, got 1.5",
    "trainer.ppo_epochs=null": "trainer.ppo_epochs: expected int, got null",
    "trainer.critic_warmup=[1]": "trainer.critic_warmup: expected int, got [1]",
    "trainer.train_on_truncated=1": "trainer.train_on_truncated: expected bool, got 1",
    "trainer.loss_agg_mode=mean": "trainer.loss_agg_mode: expected 'token' | 'sequence', got 'mean'",
    "trainer.total_tokens=true": "trainer.total_tokens: expected int or null, got True",
    "policy.actor_lr=nan": "policy.actor_lr: expected a finite float, got nan",
    "policy.critic_lr=inf": "policy.critic_lr: expected a finite float, got inf",
    "policy.adam_betas=[0.9]": "policy.adam_betas: expected a list of 2 float, got [0.9]",
    "policy.zero_stage=4": "policy.zero_stage: expected 0 | 1 | 2 | 3, got 4",
    "lora={rank: 4}": (
        "lora: expected LoRA or null, got {'rank': 4}; name a choice of this group, and set its keys after it"
    ),
    "engine.stop=abc": "engine.stop: expected a list of str, got 'abc'",
    "run.dir=5": "run.dir: expected str or null, got 5",
    "data.level_weights={L3: a}": "data.level_weights: expected a mapping of names to float or null, got {'L3': 'a'}",
    "data.max_prompt_length=null": "data.max_prompt_length: expected int, got null",
    "data.cut_points=word": "data.cut_points: expected 'token' | 'line' | 'sentence', got 'word'",
    "sampler.buffer=null": "sampler.buffer: expected StateBuffer, got null",
    "data.plain_template=null": "data.plain_template: expected str, got null",
    "+trainer.foo=1": (
        "trainer.foo: TrainerSettings takes no such argument; valid: critic_warmup, loss_agg_mode, mismatch_limit, n, "
        "on_mismatch, ppo_epochs, ppo_mini_batch_size, total_tokens, total_training_steps, train_batch_size, "
        "train_on_truncated"
    ),
}
OUT_OF_RANGE = {
    "engine.stop=[b,'']": "engine.stop: an empty text ends every response at once; expected texts, got ['b', '']",
    "seed=-1": "seed: expected a number from 0 to below 2**63, got -1",
    "run.threads=0": "run.threads: expected at least 1 or null, got 0",
    "run.save_freq=0": "run.save_freq: expected at least 1 or null, got 0",
    "trainer.n=0": "trainer.n: expected at least 1, got 0",
    "trainer.critic_warmup=-1": "trainer.critic_warmup: expected a number >= 0, got -1",
    "trainer.total_training_steps=-5": "trainer.total_training_steps: expected a number >= 0 or null, got -5",
    "trainer.total_tokens=-5": "trainer.total_tokens: expected a number >= 0 or null, got -5",
    "policy.head_size=-1": "policy.head_size: expected a number >= 0, got -1",
    "policy.adam_betas=[2, 3]": "policy.adam_betas: expected numbers from 0 to below 1, got [2, 3]",
    "policy.actor_lr=-1": "policy.actor_lr: expected a number >= 0, got -1",
    "policy.micro_batch_size=0": "policy.micro_batch_size: expected at least 1, got 0",
    "engine.temperature=-1": "engine.temperature: expected a number from 0 to 100, got -1",
    "data.max_response_length=0": "data.max_response_length: expected at least 1, got 0",
    "data.max_prompt_length=0": "data.max_prompt_length: expected at least 1, got 0",
    "data.level_weights={L3: -1}": ("data.level_weights: expected weights >= 0 with a positive sum, got {'L3': -1}"),
    "sampler.schedule.share=2": (
        "sampler.schedule.share: expected a number from 0 to 1, or points [time, share] of such numbers, got 2"
    ),
    "sampler.schedule.collect=[-1, 1]": (
        "sampler.schedule.collect: expected two times from 0 to 1, the earlier one first, got [-1, 1]"
    ),
    "sampler.buffer.keep_between=[0.8, 0.1]": (
        "sampler.buffer.keep_between: expected two rising numbers from 0 to 1, as [0.1, 0.8], got [0.8, 0.1]"
    ),
    "sampler.max_problem_success=0": "sampler.max_problem_success: expected a number > 0, got 0",
    "sampler.buffer.capacity=0": "sampler.buffer.capacity: expected at least 1, got 0",
    "selection.below=2": "selection.below: expected a probability > 0, got 2",
    "objective.gamma=1.5": "objective.gamma: expected a number from 0 to 1, got 1.5",
    "objective.clip_ratio=0": "objective.clip_ratio: expected a number > 0, got 0",
    "reward.truncation_penalty=-1": "reward.truncation_penalty: expected a number >= 0, got -1",
    "model.num_hidden_layers=0": "model.num_hidden_layers: expected at least 1, got 0",
    "warmstart.steps=0": "warmstart.steps: expected at least 1, got 0",
    "warmstart.lr_warmup_steps=-1": "warmstart.lr_warmup_steps: expected a number >= 0, got -1",
    "data.plain_template=hello": "data.plain_template: expected {question} exactly once, got 'hello'",
    "evaluation.limit=0": "evaluation.limit: expected at least 1 or null, got 0",
    "evaluation.temperature=-1": "evaluation.temperature: expected a number from 0 to 100 or null, got -1",
}


def test_all_values_of_another_type_are_told_at_once() -> None:
    assert sorted(faults(*WRONG_TYPES)) == sorted(WRONG_TYPES.values())


def test_all_values_out_of_range_are_told_at_once_even_within_a_component() -> None:
    assert sorted(faults(*OUT_OF_RANGE)) == sorted(OUT_OF_RANGE.values())


def test_a_fault_is_told_by_the_key_that_the_user_sets_however_far_its_value_travels() -> None:
    assert faults("data.plain_template=hello", "engine.temperature=x") == [
        "data.plain_template: expected {question} exactly once, got 'hello'",
        "engine.temperature: expected float, got 'x'",
    ]


def test_batch_sizes_have_to_divide() -> None:
    assert faults("trainer.train_batch_size=64", "trainer.n=2", "trainer.ppo_mini_batch_size=100") == [
        "trainer.ppo_mini_batch_size: expected a divisor of train_batch_size * n = 128, got 100"
    ]


def test_groups_keys_types_ranges_and_misfits_are_told_together() -> None:
    assert faults(
        "sampler=retrospectiv", "seed=abc", "trainer.nn=1", "trainer.n=0", "trainer.ppo_epochs=0", "critic=none",
        "selection.below=2", "-x",
    ) == [
        "-x: no such option; expected key=value, or --help",
        "sampler: no such choice 'retrospectiv'; did you mean 'retrospective'? valid: canonical, problems, random_cut, "
        "redraw, retrospective, success_prefix",
        "trainer.nn: no such key; did you mean 'trainer.n'?",
        "trainer.n: expected at least 1, got 0",
        "trainer.ppo_epochs: expected at least 1, got 0",
        "selection.below: expected a probability > 0, got 2",
        "seed: expected int, got 'abc'",
        "critic: none, but this objective trains a critic; use critic=own or critic=shared",
    ]  # fmt: skip


def test_a_fault_is_not_told_of_a_value_that_only_stands_in_for_a_faulty_one() -> None:
    assert faults("trainer.train_batch_size=abc", "trainer.ppo_mini_batch_size=48") == [
        "trainer.train_batch_size: expected int, got 'abc'"
    ]
    assert faults("objective=zzzz", "objective.anything=1") == [
        f"objective: no such choice 'zzzz'; valid: {', '.join(groups()['objective'])}"
    ]


def test_a_part_that_a_run_needs_cannot_be_emptied_or_replaced_by_a_value() -> None:
    assert faults("run=null", "data=5", "sampler={share: 1}") == [
        "run: expected keys of its own, got null; set them, as in run.dir=...",
        "data: expected keys of its own, got 5; set them, as in data.name=...",
        "sampler: expected a part with a _target_, got {'share': 1}",
    ]


def test_a_target_has_to_be_a_class_that_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RRL_PARTS", raising=False)
    assert faults("reward._target_=no.such.Class", "run._target_=os.system", "engine._target_=nothing") == [
        "engine._target_: 'nothing' cannot be imported (Empty module name); expected package.module.Class",
        "reward._target_: 'no.such.Class' cannot be imported (No module named 'no'); expected package.module.Class, "
        "installed or in a folder that RRL_PARTS names; RRL_PARTS is not set: export RRL_PARTS=FOLDER, where the "
        "module lies",
        "run._target_: 'os.system' is no class; expected package.module.Class",
    ]


def test_a_hub_model_needs_a_path() -> None:
    expected = "model.path: missing; give a hub id or a local folder, as in model.path=Qwen/Qwen2.5-0.5B"
    assert faults("model=hf") == [expected]


# --- parts that do not fit one another --------------------------------------------------------------------------------

NO_CRITIC_FOR_RULE = (
    "sampler: its selection rule reads the critic, which this objective does not train; use selection=confidence or "
    "objective=ppo"
)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["objective=grpo", "trainer.n=8", "critic=none", "selection=critic_rise"], [NO_CRITIC_FOR_RULE]),
        (
            ["objective=grpo", "trainer.n=8", "selection=peak", "critic=own"],
            ["critic: there is one, but this objective trains no critic; use critic=none", NO_CRITIC_FOR_RULE],
        ),
        (
            ["objective=grpo", "trainer.n=8", "selection=top_k", "selection.min_explained_variance=0.1"],
            [NO_CRITIC_FOR_RULE],
        ),
        (["critic=none"], ["critic: none, but this objective trains a critic; use critic=own or critic=shared"]),
        (
            ["objective=grpo", "critic=none"],
            ["trainer.n: 1, but this objective compares rollouts of one start; expected 2 or more, as in 8"],
        ),
        (
            ["policy.lr_schedule=linear"],
            [
                "policy.lr_schedule: 'linear' falls to zero over trainer.total_training_steps, which is null; give a "
                "number of steps, or use constant"
            ],
        ),
        (
            ["engine.temperature=0"],
            ["engine.temperature: 0 is greedy and explores nothing; expected a number > 0 for training"],
        ),
    ],
)
def test_parts_that_do_not_fit_one_another_are_told(overrides: list[str], expected: list[str]) -> None:
    assert faults(*overrides) == expected


def test_replay_without_a_critic_is_fine_under_a_rule_that_needs_none() -> None:
    _, parts = load("train", ["objective=grpo", "trainer.n=8", "critic=none", "selection=confidence"])
    assert not parts.sampler.needs_critic


# --- binding in general -----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Toy:
    """Takes one argument of each kind."""

    amount: float
    count: int
    name: str | None
    on: bool
    kind: Literal["a", "b", 3]
    pair: tuple[float, float]
    several: tuple[str, ...]
    weights: dict[str, float]
    anything: Any
    rule: Selection

    def __post_init__(self) -> None:
        check_ranges(self, not_negative("amount", "count"))
        refuse({"weights: expected a weight": not self.weights, "several: expected at most 1": len(self.several) > 1})
        if self.amount > self.count:
            raise ValueError(f"amount: expected at most count = {self.count}, got {self.amount}")


RULE = {"_target_": "rrl.parts.selections.critic.CriticTopK", "k": 1, "min_explained_variance": None}
GOOD: dict[str, Any] = {
    "_target_": f"{Toy.__module__}.Toy", "amount": 1, "count": 2, "name": None, "on": True, "kind": 3,
    "pair": [1, 2.5], "several": [], "weights": {"x": 1}, "anything": {"y": [1]},
    "rule": RULE,
}  # fmt: skip


def told(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check({"run": {**GOOD, **changes}})
    return list(caught.value.faults)


def test_a_mapping_with_a_target_becomes_an_object_and_lists_become_tuples() -> None:
    toy = check({"run": GOOD}).run
    assert isinstance(toy, Toy)
    assert (toy.pair, toy.several, toy.anything, toy.rule.k) == ((1, 2.5), (), {"y": (1,)}, 1)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("amount", "1", "float, got '1'; write 1, without quotes"),
        ("amount", True, "float, got True"),
        ("amount", float("nan"), "a finite float, got nan"),
        ("count", 1.5, "int, got 1.5"),
        ("count", False, "int, got False"),
        ("name", 5, "str or null, got 5"),
        ("on", 1, "bool, got 1"),
        ("on", "yes", "bool, got 'yes'; write true, without quotes"),
        ("kind", "c", "'a' | 'b' | 3, got 'c'"),
        ("kind", 3.5, "'a' | 'b' | 3, got 3.5"),
        ("pair", [1], "a list of 2 float, got [1]"),
        ("pair", [1, "x"], "a list of 2 float, got [1, 'x']"),
        ("several", "abc", "a list of str, got 'abc'"),
        ("several", [1], "a list of str, got [1]"),
        ("weights", [1], "a mapping of names to float, got [1]"),
        ("weights", {"x": None}, "a mapping of names to float, got {'x': None}"),
        ("weights", {3: 1.0}, "a mapping of names to float, got {3: 1.0}"),
        ("rule", "top_k", "Selection, got 'top_k'"),
        ("rule", None, "Selection, got null"),
    ],
)
def test_a_value_of_another_type_is_told(key: str, value: Any, expected: str) -> None:
    assert told(**{key: value}) == [f"run.{key}: expected {expected}"]


def test_missing_and_unknown_arguments_are_told() -> None:
    bad = {key: value for key, value in GOOD.items() if key != "count"} | {"cuont": 2}
    with pytest.raises(ConfigError) as caught:
        check({"run": bad})
    assert caught.value.faults == (
        "run.count: missing; Toy needs it",
        "run.cuont: Toy takes no such argument; did you mean 'count'?",
    )


def test_a_part_within_a_part_is_told_once() -> None:
    assert told(rule=RULE | {"k": 0}) == ["run.rule.k: expected at least 1, got 0"]
    bare = {key: value for key, value in RULE.items() if key != "k"}
    assert told(rule=bare) == ["run.rule.k: missing; CriticTopK needs it"]


NAME, AMOUNT = "run.name: expected str or null, got 5", "run.amount: expected a number >= 0, got -1"
COUNT, WEIGHTS = "run.count: expected a number >= 0, got -2", "run.weights: expected a weight"
SEVERAL = "run.several: expected at most 1"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"amount": -1, "count": -2}, [AMOUNT, COUNT]),
        ({"amount": -1, "count": -2, "name": 5}, [NAME, AMOUNT, COUNT]),
        ({"amount": -1, "count": -2, "name": 5, "weights": {}, "several": ["a", "b"]},
         [NAME, AMOUNT, COUNT, WEIGHTS, SEVERAL]),
        ({"amount": -1, "weights": {}}, [AMOUNT, WEIGHTS]),
        ({"amount": 9, "count": -2}, [COUNT]),
        ({"amount": 9, "count": "x"}, ["run.count: expected int, got 'x'"]),
        ({"amount": 9, "weights": {}}, [WEIGHTS]),
        ({"amount": 9, "name": 5}, [NAME, "run.amount: expected at most count = 2, got 9"]),
        ({"amount": -1, "more": 1}, ["run.more: Toy takes no such argument; valid: amount, anything, count, kind, "
                                     "name, on, pair, rule, several, weights", AMOUNT]),
        ({"amount": -1, "rule": RULE | {"k": 0}},
         ["run.rule.k: expected at least 1, got 0", AMOUNT]),
    ],
)  # fmt: skip
def test_all_faults_of_a_part_are_told_but_none_that_hangs_on_a_faulty_argument(
    changes: dict[str, Any], expected: list[str]
) -> None:
    assert told(**changes) == expected


class Plain:
    """A class that is no dataclass, and refuses with an error of its own."""

    def __init__(self, *, boldness: int, name: str) -> None:
        if boldness < 1:
            raise ValueError(f"boldness: expected at least 1, got {boldness}")


def test_a_class_that_is_no_dataclass_refuses_once_its_arguments_bind() -> None:
    plain = {"_target_": f"{__name__}.Plain", "boldness": 0, "name": "x"}
    with pytest.raises(ConfigError) as caught:
        check({"run": plain})
    assert caught.value.faults == ("run.boldness: expected at least 1, got 0",)
    with pytest.raises(ConfigError) as caught:
        check({"run": plain | {"name": 5}})
    assert caught.value.faults == ("run.name: expected str, got 5",)


def test_the_message_has_a_heading_and_a_line_for_each_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        check({"run": {**GOOD, "count": "x", "on": 1}})
    assert str(caught.value) == (
        "ConfigError: config does not fit the code:\n  run.count: expected int, got 'x'\n  run.on: expected bool, got 1"
    )


# --- names ------------------------------------------------------------------------------------------------------------


def test_the_nearest_name_is_told_or_all_when_none_is_near() -> None:
    assert nearest("clip_ration", ["clip_ratio", "gamma"]) == "; did you mean 'clip_ratio'?"
    assert nearest("lr", ["actor_lr", "gamma"]) == "; did you mean 'actor_lr'?"
    assert nearest("zzz", ["gamma", "beta"]) == "; valid: beta, gamma"
    assert nearest("zzz", [f"k{i}" for i in range(21)]) == ""
    assert (closest("x", []), nearest("x", [])) == (None, "; valid: ")


# --- a run's own configuration ----------------------------------------------------------------------------------------


def finished(folder: Path) -> Path:
    """A folder that looks like a finished run of the default."""
    (folder / "actor").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config("evaluation.n=2", "seed=4"), sort_keys=False))
    return folder


def test_a_run_is_measured_by_its_own_configuration_with_its_actor_as_the_model(tmp_path: Path) -> None:
    composed, parts = load("train", ["evaluation.n=3"], run=str(finished(tmp_path / "run")))
    assert (parts.evaluation.n, composed["seed"], parts.warmstart) == (3, 4, None)
    assert parts.model.path == str(tmp_path / "run" / "actor")


def test_a_runs_choices_stay_and_its_keys_are_checked(tmp_path: Path) -> None:
    assert faults("task=gsm8k", "evaluation.nn=3", "evaluation.n=x", run=finished(tmp_path / "run")) == [
        "task: expected keys of its own, got 'gsm8k'; set them, as in task.train_per_level=...",
        "evaluation.nn: no such key; did you mean 'evaluation.n'?",
        "evaluation.n: expected int, got 'x'",
    ]


def test_values_that_a_run_took_from_other_keys_follow_those_keys_still(tmp_path: Path) -> None:
    own = config("evaluation.temperature=0.5")
    folder = finished(tmp_path / "run")
    (folder / "config.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
    keys = ["data.max_response_length=9", "data.plain_template='Q: {question}'", "engine.temperature=2", "seed=8"]
    changed, parts = load("train", keys, run=str(folder))
    assert (parts.engine.max_response_length, parts.prompts.template.plain_template, parts.run.seed) == (
        9,
        "Q: {question}",
        8,
    )
    assert (changed["engine"]["temperature"], parts.evaluation.temperature) == (2, 0.5)


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    assert faults(run=tmp_path) == [
        f"from_run: '{tmp_path}' holds no finished run; expected a folder with config.yaml and actor/; give the "
        "run.dir of a finished run"
    ]


def test_a_broken_configuration_file_is_told(tmp_path: Path) -> None:
    (finished(tmp_path / "run") / "config.yaml").write_text("a: [1\nb: {")
    assert "while parsing a flow sequence" in faults(run=tmp_path / "run")[0]


def test_a_configuration_that_lacks_a_key_of_today_is_told(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    old = yaml.safe_load((folder / "config.yaml").read_text())
    del old["policy"]["grad_clip"]
    (folder / "config.yaml").write_text(yaml.safe_dump(old))
    assert faults(run=folder) == ["policy.grad_clip: missing; PolicySettings needs it"]


def test_weights_by_level_reach_the_sampler() -> None:
    _, parts = load("train", ["algo=ppo", "data.level_weights={L3: 1, L10: 2}"])
    assert parts.sampler == Problems(level_weights={"L3": 1, "L10": 2})


@pytest.mark.parametrize(("value", "told"), [("5", "5"), ("null", "null"), ("true", "True"), ("[a]", "['a']")])
def test_a_template_that_is_no_text_is_told(value: str, told: str) -> None:
    assert faults(f"data.plain_template={value}") == [f"data.plain_template: expected str, got {told}"]
