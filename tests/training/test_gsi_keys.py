"""Guided self-improvement: configurations, and the plan of a run."""

from pathlib import Path

import pytest

from rrl.config.check import load
from rrl.errors import ConfigError
from rrl.preflight.plan import plan, plan_text


def faults(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load("train", ["algo=gsi", *overrides])
    return list(caught.value.faults)


@pytest.mark.parametrize(("task", "model"), [("trace", []), ("gsm8k", ["model=hf", "model.path=somewhere"])])
def test_it_composes_with_tasks_and_models(task: str, model: list[str]) -> None:
    config, parts = load("train", ["algo=gsi", f"task={task}", *model])
    assert (config["trainer"]["iterations"], parts.policy.critic) == (4, None)
    assert parts.policy.actor_lr == (1e-5 if model else 3e-4)


@pytest.mark.parametrize(
    ("overrides", "reported"),
    [
        (["trainer.n=0", "trainer.temperature=0"], ["trainer.n: expected at least 1, got 0"]),
        (["trainer.ppo_epochs=2"], ["trainer.ppo_epochs: no such key"]),
        (["guidance.shares=[0.2,1.0]"], ["guidance.shares: expected numbers between 0 and 1, got [0.2, 1.0]"]),
        (
            ["guidance=answer", "guidance.text=x"],
            ["guidance.text: expected {question}, and {reference} or {answer}, got 'x'"],
        ),
        (
            ["trainer.first_iteration=neither"],
            ["trainer.first_iteration: expected 'sample' | 'references', got 'neither'"],
        ),
        (
            ["objective=grpo", "sampler=retrospective"],
            [
                "sampler: Retrospective reads the policy's log-probabilities or values of its rollouts, which "
                "GSISettings does not compute; expected sampler=problems, or another trainer",
                "objective: GRPO reads the policy's log-probabilities or values of its rollouts, which GSISettings "
                "does not compute; expected objective=supervised, or another trainer",
            ],
        ),
    ],
)
def test_what_does_not_fit_is_reported(overrides: list[str], reported: list[str]) -> None:
    found = faults(*overrides)
    for fault in reported:
        assert any(each.startswith(fault) for each in found), found


def test_a_task_without_references_is_refused_unless_none_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrl.parts.tasks.trace.Trace.gives", frozenset())
    reported = " needs references, which the task Trace does not give; expected task="
    assert faults()[0].startswith(f"trainer.guidance: StateReset{reported}")
    assert faults("guidance=rationale")[0].startswith(f"trainer.guidance: Hint{reported}")
    assert faults("guidance=answer")[0].startswith("trainer.guidance: Hint needs answers and references, which")
    assert load("train", ["algo=gsi", "guidance=none"])[1].trainer.helps == 0
    assert faults("guidance=none", "trainer.first_iteration=references")[0].startswith(
        f"trainer: GSISettings{reported}"
    )


def test_the_tests_of_a_program_are_no_answer_to_be_reported() -> None:
    (fault,) = faults("guidance=answer", "task=minicode")
    reported = "trainer.guidance: Hint needs answers"
    assert fault.startswith(f"{reported}, which the task MiniCode does not give; expected task=")
    assert any(fault.startswith(reported) for fault in faults("guidance=answer", "task=hh"))


def test_schedules_need_no_length_given_beforehand() -> None:
    assert load("train", ["algo=gsi", "policy.lr_schedule=cosine"])[1].policy.lr_schedule == "cosine"


def test_the_plan_reports_iterations(tmp_path: Path) -> None:
    sizes = ["trainer.problems_per_iteration=650", f"run.dir={tmp_path / 'run'}"]
    text = plan_text(plan(*load("train", ["algo=gsi", *sizes])))
    assert "4 iterations of 650 problems x 8 responses, 64 problems a step" in text
    assert "with help: up to 8 more to each problem with fewer than 4 right ones, 512 a step" in text
    # 11 steps of sampling, at most 8 x 2 of help, and for 1 to 650 x 8 answers 1 to 11 of 8 optimiser steps.
    assert "48 to 152 steps -> 4 to 328 optimiser steps" in text
    assert "5 evaluations" in text
    assert "old_log_prob" not in text


def test_the_plan_knows_budgets_and_a_first_iteration_on_references(tmp_path: Path) -> None:
    keys = ["trainer.problems_per_iteration=650", f"run.dir={tmp_path / 'run'}"]
    keys += ["trainer.first_iteration=references"]
    # 3 x (11 + 1) to 3 x (11 + 16 + 11) steps, and 11 mini-batches of references in 2 steps.
    assert plan(*load("train", ["algo=gsi", *keys])).course.steps[::2] == (38, 116)
    limited = plan(*load("train", ["algo=gsi", *keys, "trainer.total_tokens=20000"])).course
    assert limited.steps[::2] == (4, 116)  # 20,000 tokens may be 3 steps of 512 x 16
    assert limited.tokens == 19999 + 512 * 16
