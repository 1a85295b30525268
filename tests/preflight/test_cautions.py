"""Settings that are in order and do nothing: keys that nothing reads, and runs in which nothing happens."""

from pathlib import Path
from typing import Any

import pytest

from rrl.config.check import Parts, _bound, _warn, idle, load
from rrl.config.compose import compose
from rrl.preflight.cautions import cautions
from rrl.preflight.plan import in_short, plan, plan_text

USED = [name for name in Parts.__dataclass_fields__ if name != "judge"]
REPLAYING = (
    "sampler=allocation, sampler=practice, sampler=reanalyse, sampler=reanalyse_redraw, sampler=redraw, "
    "sampler=retrospective"
)
CUTTING = (
    "sampler=allocation, sampler=pass_rate, sampler=pass_rate_redraw, sampler=practice, sampler=reanalyse, "
    "sampler=reanalyse_redraw"
)
OFFLOADED = ["offload=reference", "policy.zero_stage=3"]
UNMOVED = "offload.reference: true, and the run has no frozen reference of its own; use offload=optimizer or none"
HF = ("task=gsm8k", "model=hf", "model.path=x")


def unread(*overrides: str, used: list[str] = USED) -> list[str]:
    composed = compose("train", overrides)
    parts, taken = _bound(composed.config, [], Parts)
    return idle(composed, parts, taken, used)


@pytest.mark.parametrize(
    ("overrides", "reported"),
    [
        (["algo=ppo", "selection.below=0.5"], [
            f"selection.below: nothing in use reads it; {REPLAYING} would"
        ]),
        (["sampler=random_cut", "selection=peak"], [
            f"selection: nothing in use reads it; {REPLAYING} would"
        ]),
        (["+foo=1"], ["foo: nothing in use reads it"]),
        (["+data.note=1", "+foo={a: 1}"], ["data.note: nothing in use reads it", "foo: nothing in use reads it"]),
        (["reward_model=sequence", "reward_model.path=x"], [
            "reward_model.path: nothing in use reads it; task=hh would",
            "reward_model: nothing in use reads it; task=hh would",
        ]),
        (["guidance=rationale"], ["guidance: nothing in use reads it; trainer=gsi would"]),
        (["sandbox.workers=2"], [
            "sandbox.workers: nothing in use reads it; task=apps, task=apps_plus, task=humaneval, task=mbpp, "
                "task=minicode would"
        ]),
        (["algo=ppo", "data.cut_points=line"], [
            f"data.cut_points: nothing in use reads it; {CUTTING} would"
        ]),
        ([*HF, "template=chat", "data.plain_template='{question}'"], ["data.plain_template: nothing in use reads it"]),
        (["objective=grpo", "critic=none", "trainer.n=8", "policy.critic_lr=0.1"], [
            "policy.critic_lr: critic is none"
        ]),
        (["objective=supervised", "algo=ppo", "kl=reward"], [
            "kl: nothing in use reads it; objective=grpo, objective=ppo, objective=rloo, objective=vineppo would"
        ]),
        (["evaluation.n=0", "evaluation.temperature=0.5"], ["evaluation.temperature: evaluation.n is 0"]),
    ],
)  # fmt: skip
def test_a_key_without_effect_is_reported_with_what_would_read_it(overrides: list[str], reported: list[str]) -> None:
    assert [text.replace(" without effect;", "") for text in unread(*overrides)] == reported


@pytest.mark.parametrize(
    "overrides",
    [
        [
            "selection.below=0.5",
            "data.max_response_length=8",
            "data.plain_template='{question}'",
            "seed=3",
            "warmstart.steps=3",
        ],
        ["task=minicode", "sandbox.workers=2"],
        ["algo=gsi", "guidance.shares=[0.5]"],
        ["algo=ppo", "sampler=retrospective", "selection=peak", "critic.value_trunk_grad_scale=0.5"],
        ["task=minichat", "data.warmstart.steps=3", "data.name=mine"],
        ["reward_model=none", "logger=none", "run.threads=null"],
        ["kl=loss", "kl.coef=0.1", "kl.estimator=k2", "evaluation.n=2", "evaluation.temperature=0.5"],
        ["+other={a: 3}", "trainer.critic_warmup='${other.a}'"],
    ],
)
def test_a_key_that_is_read_is_not_reported_however_far_its_value_travels(overrides: list[str]) -> None:
    assert unread(*overrides) == []


def test_an_evaluation_reads_no_keys_of_training_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    _warn.cache_clear()
    for _ in range(2):
        load("evaluate", ["trainer.n=2", "evaluation.n=3", "data.max_response_length=4", *HF])
    assert caplog.messages == ["trainer.n: without effect; nothing in use reads it"]


# --- runs in which nothing happens ------------------------------------------------------------------------------------


def reported_on(*overrides: str) -> list[str]:
    """What is reported of a run of 100 problems whose references have 10 tokens."""
    sizes = ["trainer.critic_warmup=0", "trainer.train_batch_size=8", "trainer.ppo_mini_batch_size=4"]
    steps = ["trainer.total_tokens=null", "trainer.total_training_steps=30", "trainer.ppo_epochs=1"]
    kept = [text for text in (*sizes, *steps) if text.partition("=")[0] not in {o.partition("=")[0] for o in overrides}]
    _, parts = load("train", [*kept, *overrides])
    longest = parts.engine.sampling.max_new_tokens
    return cautions(parts, parts.trainer.course(100, longest, 10.0))


USE = "use one that replays, as in sampler=reanalyse"
CREDIT = ["objective=grpo", "critic=none", "trainer.n=2", "objective.recovery_coef=0.5"]
UNREPLAYED = (
    "sampler.schedule.share: 0 while there are states, which are collected from {} on: nothing is replayed; "
    "sampler=problems is the same"
)


@pytest.mark.parametrize(
    ("overrides", "reported"),
    [
        (["trainer.critic_warmup=30"], [
            "trainer.critic_warmup: 30, and the run has 30 steps: the actor never moves; lower it, or train longer"
        ]),
        (["trainer.critic_warmup=50", "trainer.total_tokens=1600", "trainer.total_training_steps=null",
          "run.save_freq=5", "run.test_freq=5"], [
            "trainer.critic_warmup: 50, and the run has about 20 steps: the actor never moves; lower it, or train "
            "longer"
        ]),
        (["policy.lr_warmup_steps=60"], [
            "policy.lr_warmup_steps: 60, and the run has 60 optimiser steps: the learning rate never reaches "
            "policy.actor_lr; lower it, or train longer"
        ]),
        (["run.save_freq=31", "run.test_freq=40"], [
            "run.save_freq: 31, and the run has 30 steps: nothing is saved on the way; lower it",
            "run.test_freq: 40, and the run has 30 steps: nothing is measured on the way; lower it",
        ]),
        (["policy.actor_lr=0", "policy.critic_lr=0"], [
            "policy.actor_lr: 0, so that the actor never moves", "policy.critic_lr: 0, so that the critic never learns",
        ]),
        (["lora=default", *OFFLOADED], [UNMOVED]),
        (["kl=none", *OFFLOADED], [UNMOVED]),
        (OFFLOADED, []),
        (["objective.vf_coef=0"], ["objective.vf_coef: 0, so that the critic never learns"]),
        (["engine=truncated", "engine.top_k=1"], [
            "engine.top_k: 1 draws the likeliest token alone, so that nothing is explored"
        ]),
        (["engine=truncated", "engine.top_k=7"], [
            "engine.top_p: 0.95 draws from a part of the distribution, and training compares with the whole; use "
            "engine=hf to train",
            "engine.top_k: 7 draws from a part of the distribution, and training compares with the whole; use "
            "engine=hf to train",
        ]),
        (["engine=truncated", "engine.top_p=1"], []),
        (["objective=grpo", "trainer.n=2", "trainer.critic_warmup=30"], []),
        (["sampler=prompt_replay", "sampler.momentum=0"], [
            "sampler.momentum: 0, and with trainer.n=1 every pass rate is 0 or 1, outside sampler.window: no problem "
            "comes again; expected momentum above 0, as in 0.7, or a greater trainer.n"
        ]),
        (["sampler=prompt_replay"], []),
        (["sampler=prompt_replay", "sampler.momentum=0", "trainer.n=4"], []),
        (["sampler=pcl", "siblings=replayed"], [
            f"siblings.n_replayed: 4, and MiddlePrompts starts nothing again; {USE}, or siblings=none"
        ]),
        (["siblings=replayed", "trainer.n=2", "siblings.n_replayed=17"], [
            "siblings.n_replayed: 17 is more than the 16 rollouts of a step; expected fewer, as in 4"
        ]),
        (["sampler=redraw", "siblings=replayed", "trainer.n=2", "siblings.n_replayed=16"], []),
        ([*CREDIT, "sampler=prompt_replay"], [
            f"objective.recovery_coef: 0.5, and PromptReplay starts from no prefix; {USE}, or 0"
        ]),
        *(([*CREDIT, f"sampler={control}"], [
            f"objective.recovery_coef: 0.5, and {name} starts from no prefix; {USE}, or 0"
        ]) for control, name in (
            ("redraw", "Redraw"), ("practice", "Practice"), ("pass_rate_redraw", "PassRateRedraw"),
            ("success_archive_redraw", "SuccessArchiveRedraw"), ("successes_redraw", "SuccessRedraw"),
        )),
        *(([*CREDIT, f"sampler={sampler}"], []) for sampler in ("retrospective", "pass_rate", "success_archive")),
        *(([f"sampler={sampler}", "objective.advantage_norm=origin"], [
            f"objective.advantage_norm: origin, and {name} starts nothing again; {USE}, or batch"
        ]) for sampler, name in (("problems", "Problems"), ("practice", "Practice"))),
        (["sampler=redraw", "objective.advantage_norm=origin"], []),
        (["objective.advantage_norm=siblings"], [
            "objective.advantage_norm: siblings, and every start has one rollout; use siblings=replayed, or origin"
        ]),
        (["objective.advantage_norm=siblings", "siblings=replayed", "siblings.n_replayed=1"], [
            "objective.advantage_norm: siblings, and every start has one rollout; use siblings=replayed, or origin"
        ]),
        (["objective.advantage_norm=siblings", "sampler=problems"], [
            f"objective.advantage_norm: siblings, and Problems starts nothing again; {USE}, or batch"
        ]),
        (["objective.advantage_norm=siblings", "siblings=replayed"], []),
        (["objective.advantage_norm=siblings", "trainer.n=2"], []),
        (["sampler.schedule.share=0"], [UNREPLAYED.format(0)]),
        (["sampler.schedule.share=[[0, 0], [1, 0]]"], [UNREPLAYED.format(0)]),
        (["sampler.schedule.collect=[0.5, 1]", "sampler.schedule.share=[[0.2, 0.5], [0.5, 0]]"], [
            UNREPLAYED.format(0.5)
        ]),
        (["sampler.schedule.collect=[1, 1]"], [UNREPLAYED.format(1)]),
        (["sampler.schedule.collect=[0.5, 1]", "sampler.schedule.share=[[0.4, 0.5], [0.6, 0]]"], []),
        (["sampler.schedule.collect=[0.5, 1]", "sampler.schedule.share=[[0.2, 0], [0.8, 0], [1, 0.5]]"], []),
        (["trainer.total_tokens=5", "trainer.total_training_steps=null"], [
            "trainer.total_tokens: reached in the first step; raise it, or give trainer.total_training_steps"
        ]),
        (["trainer.critic_warmup=29", "policy.lr_warmup_steps=59", "run.save_freq=30", "run.test_freq=null"], []),
        (["trainer.total_training_steps=2"], []),
    ],
)  # fmt: skip
def test_a_run_in_which_nothing_happens_is_reported(overrides: list[str], reported: list[str]) -> None:
    assert reported_on(*overrides) == reported


def test_another_loop_is_looked_at_too() -> None:
    _, parts = load("train", ["algo=gsi"])
    assert cautions(parts, parts.trainer.course(100, 16, 10.0)) == []


def test_the_plan_and_the_start_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given: list[Any] = ["trainer.critic_warmup=3", "trainer.total_tokens=null", "trainer.total_training_steps=3"]
    made = plan(*load("train", given))
    for text in (plan_text(made), "\n".join(in_short(made))):
        assert "\nwarning: trainer.critic_warmup: 3, and the run has 3 steps: the actor never moves; " in text
