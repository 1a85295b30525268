"""Keys and groups: an unknown one is named together with the nearest valid one."""

import sys
from pathlib import Path

import pytest

from fixtures.config import config, faults
from rrl.config.choices import conf_dir, content, groups, walk
from rrl.config.compose import compose
from rrl.config.spelling import ALIASES
from rrl.errors import closest, nearest

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
    "task.hub_config=main": "it follows a colon in task.hub_id, as in openai/gsm8k:socratic",
    "warmstart.weight_decay=0": "it is always 0.01",
    "warmstart.grad_clip=0": "it is always 1",
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
    "data.path=x": "it comes with task=apps|apps_plus|gsm8k|hh|humaneval|jsonl|math|mbpp",
    "selection.delta=0.1": "it comes with selection=critic_rise",
    "logger.project=x": "it comes with logger=wandb",
    "hydra.run.dir=x": "did you mean 'run.dir'?",
    "data.pth=x": "did you mean 'data.path' (with task=apps|apps_plus|gsm8k|hh|humaneval|jsonl|math|mbpp)?",
    "sampler.schedule.zzz=1": "valid: share, collect",
    "zzz.zzz=1": "--cfg prints all keys",
    "Kl=none": "did you mean 'kl'?",
    "POLICY.Actor_LR=1": "did you mean 'policy.actor_lr'?",
    "+objective.kl_coef=0.1": "did you mean 'kl.coef'?",
    "+policy.adam_epsilon=1": "it is always 1e-8",
}


def test_an_unknown_key_is_reported_with_the_nearest_valid_one_and_other_libraries_names_are_known() -> None:
    reported = faults(*UNKNOWN_KEYS)
    assert reported == [
        f"{text.partition('=')[0].lstrip('+')}: no such key; {hint}" for text, hint in UNKNOWN_KEYS.items()
    ]


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
    "data.path' (with task=apps|apps_plus|gsm8k|hh|humaneval|jsonl|math|mbpp)": (
        "task.path data.pth train_files data.train_files"
    ),
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


def test_a_key_of_several_choices_of_a_group_is_reported_with_all_of_them() -> None:
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


def test_the_keys_of_data_are_set_one_by_one() -> None:
    assert faults("data={}") == ["data: expected keys of its own, got {}; set them, as in data.name=..."]


def test_every_alias_leads_to_a_key_that_is_there() -> None:
    more = (["task=gsm8k", "model=hf", "logger=wandb", "kl=loss", "siblings=replayed"], ["algo=gsi", "kl=adaptive"])
    known = {key for overrides in ([], *more) for key, _ in walk(config(*overrides))}
    for engine in ("vllm", "vllm_server"):  # the first may not be installed
        known |= {f"engine.{key}" for key in content(conf_dir() / "engine" / f"{engine}.yaml")}
    assert set(ALIASES) <= known


def test_an_unknown_choice_is_reported_with_the_nearest_and_all_valid_ones() -> None:
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
def test_an_override_that_cannot_be_read_is_reported_with_an_example(text: str) -> None:
    example = "\"data.plain_template='Q: {question}'\""
    expected = f"{text!r}: cannot be read; expected key=value; quote special characters, as in {example}"
    assert faults(text, "trainer.n=0") == [expected, "trainer.n: expected at least 1, got 0"]


def test_what_hydra_would_take_and_we_do_not_is_reported() -> None:
    assert faults("--multirun", "-m", "--config-name=x", "~trainer.n", "~trainer", "seed=1,2", "seed=range(1,3)") == [
        "--multirun: no such option; expected key=value, or --help",
        "-m: no such option; expected key=value, or --help",
        "--config-name=x: no such option; expected key=value, or --help",
        "~trainer.n: a key cannot be taken away; set it to another value, such as null",
        "~trainer: a key cannot be taken away; set it to another value, such as null",
        "seed=1,2: several values, expected one; give a list as key=[a,b], or start one run for each",
        "seed=range(1,3): several values, expected one; give a list as key=[a,b], or start one run for each",
    ]


def test_a_key_or_group_given_twice_is_reported() -> None:
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
def test_a_value_that_leads_nowhere_is_reported_with_the_faults_so_far(text: str, expected: str) -> None:
    assert faults("trainer.nn=1", text) == ["trainer.nn: no such key; did you mean 'trainer.n'?", expected]


# --- in files ---------------------------------------------------------------------------------------------------------

BOLD = """
from rrl.parts.samplers.problems import Problems
class Bold(Problems):
    def __init__(self, *, level_weights: dict[str, float] | None, boldness: int) -> None: ...
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seeed: 3", ["seeed: no such key; did you mean 'seed'?"]),
        ("policcy: {actor_lr: 3.0e-4}", ["policcy: no such key; did you mean 'policy'?"]),
        ("data: {level_weigths: {L3: 1}}", ["data.level_weigths: no such key; did you mean 'data.level_weights'?"]),
        ("rate: 3.0e-4\npolicy: {actor_lr: '${rate}'}", []),  # a name of one's own that is referred to
        ("boldness: 7\nsampler: {_target_: bold_in_a_file.Bold}", []),  # and one that a part takes
    ],
)
@pytest.mark.parametrize("group", ["experiment", "algo"])
def test_a_key_of_a_file_that_nothing_reads_is_refused(
    text: str, expected: list[str], group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    (tmp_path / "bold_in_a_file.py").write_text(BOLD)
    monkeypatch.setenv("RRL_PARTS", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert compose("train", [f"{group}=mine"]).faults == expected


def test_an_experiment_that_is_not_global_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("policy: {actor_lr: 3.0e-4}\n")
    monkeypatch.setenv("RRL_PARTS", str(tmp_path))
    (fault,) = faults("experiment=mine")
    assert fault.startswith("experiment: its file does not begin with the line '# @package _global_'")


# --- names ------------------------------------------------------------------------------------------------------------


def test_the_nearest_name_is_reported_or_all_when_none_is_near() -> None:
    assert nearest("clip_ration", ["clip_ratio", "gamma"]) == "; did you mean 'clip_ratio'?"
    assert nearest("lr", ["actor_lr", "gamma"]) == "; did you mean 'actor_lr'?"
    assert nearest("zzz", ["gamma", "beta"]) == "; valid: beta, gamma"
    assert nearest("zzz", [f"k{i}" for i in range(21)]) == ""
    assert (closest("x", []), nearest("x", [])) == (None, "; valid: ")
