"""Configurations: every file binds, every fault is reported, all of them at once and before anything loads."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from fixtures.config import config, every_choice, faults, options
from rrl.config.check import SHARED, SLOTS, Parts, RewardModelParts, load
from rrl.config.choices import conf_dir, groups
from rrl.config.compose import compose
from rrl.errors import ConfigError
from rrl.parts.engines.vllm import VLLM
from rrl.parts.samplers.problems import Problems
from rrl.records.run_directory import cache_folder

pytestmark = pytest.mark.composing

HOSTS = Path(__file__).parents[1] / "fixtures" / "hosts"
PROGRAMS = "task={_target_: fixtures.programs.FakePrograms}"
NEEDS = {
    "model=hf": ["model.path=somewhere"], "objective=grpo": ["trainer.n=8"], "objective=rloo": ["trainer.n=8"],
    **{f"algo={name}": [PROGRAMS] for name in ("ppocoder", "rltf", "rltf_original")},
    **{f"reward={name}": [PROGRAMS] for name in ("ppocoder", "rltf", "rltf_original")},
    "task=hh": ["reward_model=sequence", "reward_model.path=somewhere"],
    "reward=preference": ["task=hh", "reward_model=sequence", "reward_model.path=somewhere"],
    "reward_model=sequence": ["reward_model.path=somewhere"],
    "reward_model=embeddings": ["reward_model.path=somewhere"],
    "fit=embeddings": ["fit.embedder.path=somewhere"],
    "sampler=group_replay": ["objective=grpo", "trainer.n=8"],
    "selection=self_localized": ["sampler=retrospective", "template=chat", "data.cut_points=line"],
    "selection=oracle": ["sampler=retrospective"], "selection=verified": ["sampler=retrospective"],
    "critic=none": ["objective=supervised", "kl=none"], "old_log_prob=engine": ["critic=own"],
    "trainer=gsi": ["algo=gsi"],
    **{f"offload={choice}": ["policy.zero_stage=3"] for choice in ("all", "optimizer", "reference")},
    "launcher=hostfile": [f"launcher.hostfile={HOSTS}"],
    "judge=openai": ["judge.model=some-model"],
    "judge=reward_model": ["reward_model=sequence", "reward_model.path=somewhere"],
}  # fmt: skip
CHOICES = [choice for row in every_choice() for choice in row]
OF_REWARD_MODELS = [choice for choice in CHOICES if choice.startswith("fit=")]


@pytest.fixture(autouse=True)
def whatever_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice binds also where its library is missing."""
    monkeypatch.setattr(VLLM, "faults", lambda engine: [])


# --- every file -------------------------------------------------------------------------------------------------------


def test_every_option_of_every_group_is_among_the_choices() -> None:
    assert sorted(CHOICES) == sorted(f"{group}={option}" for group in groups() for option in options(group))


@pytest.mark.parametrize("choices", [row for row in every_choice() if row[0] not in OF_REWARD_MODELS], ids=" ".join)
def test_every_choice_of_every_group_binds(choices: list[str]) -> None:
    config, parts = load("evaluate", [*choices, *(need for choice in choices for need in NEEDS.get(choice, []))])
    assert isinstance(parts, Parts)
    assert {slot for slot in SLOTS if slot in config} == {s for s in SLOTS if getattr(parts, s) is not None}


@pytest.mark.parametrize("choice", OF_REWARD_MODELS)
def test_every_kind_of_reward_model_binds(choice: str) -> None:
    _, parts = load("train_reward_model", [choice, *NEEDS.get(choice, [])], starting=())
    assert isinstance(parts, RewardModelParts)
    assert parts.fit.needs_model == ("sequence" in choice)


@pytest.mark.parametrize("task", groups()["task"])
def test_a_reward_model_composes_with_every_task_and_model(task: str) -> None:
    only = (*(field.name for field in fields(RewardModelParts)), *SHARED)
    number = groups()["task"].index(task)
    beside = [f"{group}={groups()[group][number % len(groups()[group])]}" for group in ("model", "reward_model")]
    assert not compose("train_reward_model", [f"task={task}", *beside], only).faults


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
        load("train_reward_model", [override], starting=())
    assert caught.value.faults == (expected,)


def test_the_choice_of_an_algorithm_wins_over_a_tasks_natural_reward_and_the_command_line_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(*overrides: str) -> str:
        target: str = compose("train", overrides).config["reward"]["_target_"]
        return target.rpartition(".")[2]

    assert [chosen(), chosen("task=hh"), chosen("task=hh", "algo=ppo")] == [
        "OutcomeReward", "RewardModelReward", "RewardModelReward",
    ]  # fmt: skip
    assert chosen("task=hh", "reward=verdict") == "OutcomeReward"
    (tmp_path / "algo").mkdir()
    defaults = "# @package _global_\ndefaults:\n  - override /reward: verdict\nalgo: mine\n"
    (tmp_path / "algo" / "mine.yaml").write_text(defaults)
    monkeypatch.setenv("RRL_PARTS", str(tmp_path))
    assert [chosen("task=hh", "algo=mine"), chosen("task=hh", "algo=mine", "reward=preference")] == [
        "OutcomeReward", "RewardModelReward",
    ]  # fmt: skip
    assert chosen("task=hh", "reward=verdict") == "OutcomeReward"


HF = ["model=hf", "model.path=somewhere"]


@pytest.mark.parametrize(
    ("algo", "model"),
    [
        ("gsi", ["model=tiny"]), ("ppo", HF), ("rrl", HF),
        *(pytest.param(*pair, marks=pytest.mark.slow)
          for pair in (("gsi", HF), ("ppo", ["model=tiny"]), ("rrl", ["model=tiny"]))),
    ],
)  # fmt: skip
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
    sampler = parts.sampler
    assert (type(sampler).__name__, sampler.schedule.share, sampler.selection.below) == ("Reanalyse", 0.75, 0.5)
    assert (sampler.buffer.priority, tuple(sampler.buffer.keep_between)) == ("doubt", (0, 0.5))
    assert load("train", ["sampler=retrospective"])[1].sampler.schedule.share == 0.5


def test_the_two_algorithms_differ_in_the_sampler_alone() -> None:
    ppo, rrl = (compose("train", [f"algo={algo}"]).config for algo in ("ppo", "rrl"))
    assert {key for key in rrl if ppo[key] != rrl[key]} == {"algo", "sampler"}


# --- what overrides mean ----------------------------------------------------------------------------------------------


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


def test_of_several_experiments_the_values_of_later_ones_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment").mkdir()
    for name, batch in (("mine", 7), ("other", 9)):
        text = f"# @package _global_\ntrainer: {{train_batch_size: {batch}, n: {batch}}}\n"
        (tmp_path / "experiment" / f"{name}.yaml").write_text(text.replace(", n: 9", ""))
    monkeypatch.setenv("RRL_PARTS", str(tmp_path))
    trainer = config("experiment=[mine,other]")["trainer"]
    assert (trainer["train_batch_size"], trainer["n"]) == (9, 7)
    assert faults("experiment=[mine,othr]")[0].startswith("experiment: no such choice 'othr'; did you mean 'other'?")


def test_null_leaves_out_an_experiment() -> None:
    assert config("experiment=null") == config()


def test_the_cache_can_be_given_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRL_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
    monkeypatch.delenv("RRL_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "rrl"


# --- binding in general -----------------------------------------------------------------------------------------------


# --- a run's own configuration ----------------------------------------------------------------------------------------


def finished(folder: Path, *overrides: str) -> Path:
    """A folder that looks like a finished run of the default."""
    (folder / "actor").mkdir(parents=True)
    own = config("evaluation.n=2", "seed=4", *overrides)
    (folder / "config.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
    return folder


def test_a_judge_chosen_for_a_run_leaves_its_task_as_it_is(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", "task=minichat")
    composed, _ = load("evaluate", ["judge=openai", "judge.model=some-model"], run=str(run))
    assert composed["data"]["name"] == "minichat"


def test_a_run_is_measured_by_its_own_configuration_with_its_actor_as_the_model(tmp_path: Path) -> None:
    composed, parts = load("train", ["evaluation.n=3"], run=str(finished(tmp_path / "run")))
    assert (parts.evaluation.n, composed["seed"], parts.warmstart) == (3, 4, None)
    assert parts.model.path == str(tmp_path / "run" / "actor")


def test_a_runs_choices_stay_and_its_keys_are_checked(tmp_path: Path) -> None:
    assert faults("sampler=redraw", "evaluation.nn=3", "evaluation.n=x", run=finished(tmp_path / "run")) == [
        "sampler: expected keys of its own, got 'redraw'; set them, as in sampler.sources=...",
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


def test_a_response_ends_where_another_template_begins_its_next_question(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    own = config("data.plain_template='Q: {question}'")
    (folder / "config.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
    assert own["engine"]["stop"] == ["\nQ:"]
    assert load("train", [], run=str(folder))[1].engine.stop == ("\nQ:",)
    assert load("train", ["data.plain_template='P: {question}'"], run=str(folder))[1].engine.stop == ("\nP:",)
    (folder / "config.yaml").write_text(yaml.safe_dump({**own, "engine": own["engine"] | {"stop": ["x"]}}))
    assert load("train", ["data.plain_template='P: {question}'"], run=str(folder))[1].engine.stop == ("x",)


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    assert faults(run=tmp_path) == [
        f"from_run: '{tmp_path}' holds no finished run; expected a folder with config.yaml and actor/; give the "
        "run.dir of a finished run"
    ]


def test_a_broken_configuration_file_is_reported(tmp_path: Path) -> None:
    (finished(tmp_path / "run") / "config.yaml").write_text("a: [1\nb: {")
    assert "while parsing a flow sequence" in faults(run=tmp_path / "run")[0]


def test_a_configuration_that_lacks_a_key_of_today_is_reported(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    old = yaml.safe_load((folder / "config.yaml").read_text())
    del old["policy"]["grad_clip"]
    (folder / "config.yaml").write_text(yaml.safe_dump(old))
    assert faults(run=folder) == ["policy.grad_clip: missing; PolicySettings needs it"]


def test_weights_by_level_reach_the_sampler() -> None:
    _, parts = load("train", ["algo=ppo", "data.level_weights={L3: 1, L10: 2}"])
    assert parts.sampler == Problems(level_weights={"L3": 1, "L10": 2})


@pytest.mark.parametrize(("value", "reported"), [("5", "5"), ("null", "null"), ("true", "True"), ("[a]", "['a']")])
def test_a_template_that_is_no_text_is_reported(value: str, reported: str) -> None:
    assert faults(f"data.plain_template={value}") == [f"data.plain_template: expected str, got {reported}"]
