"""Rules and samplers that need what a run lacks are refused by name, before a model loads."""

import pytest

from fixtures.config import faults
from rrl.config.check import load

WITHOUT_CRITIC = ("objective=grpo", "trainer.n=8", "critic=none")


def no_critic(rule: str) -> str:
    return (
        f"sampler.selection: {rule} reads the critic, which this objective does not train; use objective=ppo, "
        "selection=confidence or largest_fall with of=logprob, or another sampler"
    )


def no_critic_for(sampler: str) -> str:
    return (
        f"sampler: {sampler} reads the critic, which this objective does not train; use objective=ppo, other keys of "
        "it, or another sampler"
    )


def no_first_errors(task: str) -> str:
    return (
        f"sampler.selection: Oracle needs first_errors, which the task {task} does not give; expected "
        "task=minicode|trace, or another selection"
    )


ANOTHER = "or another rule, as selection=largest_fall or selection=random_cut"
NO_STEPS = f"data.cut_points: token, but the policy is asked for a wrong step; expected line or sentence, {ANOTHER}"
NO_TURNS = (
    "template: plain, but the policy is asked a question; expected template=chat with a model for instructions, "
    f"{ANOTHER}"
)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([*WITHOUT_CRITIC, "selection=critic_threshold"], no_critic("CriticThreshold")),
        ([*WITHOUT_CRITIC, "selection=critic_rise", "sampler=redraw"], no_critic("CriticRise")),
        ([*WITHOUT_CRITIC, "selection=top_k", "selection.min_explained_variance=0.1"], no_critic("CriticTopK")),
        ([*WITHOUT_CRITIC, "selection=critic_middle", "sampler=successes"], no_critic("CriticMiddle")),
        ([*WITHOUT_CRITIC, "selection=largest_fall"], no_critic("LargestFall")),
        ([*WITHOUT_CRITIC, "selection=entropy", "selection.top_value=0.1"], no_critic("HighestEntropy")),
        ([*WITHOUT_CRITIC, "sampler=pcl"], no_critic_for("MiddlePrompts")),
        ([*WITHOUT_CRITIC, "sampler=allocation", "sampler.expects=critic"], no_critic_for("Allocation")),
        (["task=gsm8k", "selection=oracle", "sampler=retrospective"], no_first_errors("GSM8K")),
        (["task=minichat", "selection=oracle", "sampler=allocation"], no_first_errors("MiniChat")),
        (
            ["selection=oracle", "sampler.sources=both"],
            "sampler.sources: expected self, because Oracle needs a first error, which references do not have, got "
            "'both'; or another selection",
        ),
        (
            ["selection=oracle", "sampler=successes"],
            "selection: Oracle needs a first error, which solved responses do not have; expected another "
            "rule, or sampler=retrospective",
        ),
        (["selection=self_localized", "data.cut_points=line"], NO_TURNS),
        (["selection=self_localized", "template=chat"], NO_STEPS),
        (
            ["selection=verified", "sampler.sources=both"],
            "sampler.sources: expected self, because Verified examines failed responses, which references are not, got "
            "'both'; or another selection",
        ),
        (
            ["selection=verified", "sampler=successes"],
            "selection: Verified examines failed responses, which solved responses are not; expected another rule, or "
            "sampler=retrospective",
        ),
    ],
)
def test_what_needs_more_than_the_run_has_is_named_with_what_would_do(overrides: list[str], expected: str) -> None:
    assert faults(*overrides) == [expected]


def test_all_that_a_question_lacks_is_reported() -> None:
    assert faults("selection=self_localized") == [NO_STEPS, NO_TURNS]


def test_with_a_critic_that_nothing_trains_both_are_reported() -> None:
    assert faults("objective=grpo", "trainer.n=8", "selection=peak", "critic=own") == [
        "critic: there is one, but this objective trains no critic; use critic=none", no_critic("CriticPeak"),
    ]  # fmt: skip


def test_the_oracle_fits_tasks_that_tell_first_errors() -> None:
    parts = load("train", ["task=minicode", "sampler=redraw", "selection=oracle"])[1]
    assert parts.sampler.needs == {"first_errors"}
