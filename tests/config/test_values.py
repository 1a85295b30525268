"""Values of another type, out of range, or at odds with one another are reported together."""

import pytest

from fixtures.config import faults
from rrl.config.check import load
from rrl.config.choices import groups

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
        "old_log_prob, on_mismatch, ppo_epochs, ppo_mini_batch_size, siblings, total_tokens, "
        "total_training_steps, train_batch_size, train_on_truncated"
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


def test_all_values_of_another_type_are_reported_at_once() -> None:
    assert sorted(faults(*WRONG_TYPES)) == sorted(WRONG_TYPES.values())


def test_all_values_out_of_range_are_reported_at_once_even_within_a_component() -> None:
    assert sorted(faults(*OUT_OF_RANGE)) == sorted(OUT_OF_RANGE.values())


def test_a_fault_is_reported_by_the_key_that_the_user_sets_however_far_its_value_travels() -> None:
    assert faults("data.plain_template=hello", "engine.temperature=x") == [
        "data.plain_template: expected {question} exactly once, got 'hello'",
        "engine.temperature: expected float, got 'x'",
    ]


def test_batch_sizes_have_to_divide() -> None:
    assert faults("trainer.train_batch_size=64", "trainer.n=2", "trainer.ppo_mini_batch_size=100") == [
        "trainer.ppo_mini_batch_size: expected a divisor of train_batch_size * n = 128, got 100"
    ]


def test_groups_keys_types_ranges_and_misfits_are_reported_together() -> None:
    assert faults(
        "sampler=retrospectiv", "seed=abc", "trainer.nn=1", "trainer.n=0", "trainer.ppo_epochs=0", "critic=none",
        "selection.below=2", "-x",
    ) == [
        "-x: no such option; expected key=value, or --help",
        "sampler: no such choice 'retrospectiv'; did you mean 'retrospective'? valid: allocation, canonical, "
        "group_replay, pass_rate, pass_rate_redraw, pcl, practice, problems, prompt_replay, random_cut, reanalyse, "
        "reanalyse_redraw, redraw, retrospective, success_archive, success_archive_redraw, success_prefix, successes, "
        "successes_redraw",
        "trainer.nn: no such key; did you mean 'trainer.n'?",
        "trainer.n: expected at least 1, got 0",
        "trainer.ppo_epochs: expected at least 1, got 0",
        "selection.below: expected a probability > 0, got 2",
        "seed: expected int, got 'abc'",
        "critic: none, but this objective trains a critic; use critic=own or critic=shared",
    ]  # fmt: skip


def test_a_fault_is_not_reported_of_a_value_that_only_stands_in_for_a_faulty_one() -> None:
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


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
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
def test_parts_that_do_not_fit_one_another_are_reported(overrides: list[str], expected: list[str]) -> None:
    assert faults(*overrides) == expected


def test_replay_without_a_critic_is_fine_under_a_rule_that_needs_none() -> None:
    _, parts = load("train", ["objective=grpo", "trainer.n=8", "critic=none", "selection=confidence"])
    assert not parts.sampler.needs_critic
