"""A rule that finds nothing for long says so once, with the metric that shows why."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.replay import PAD, problem, through_pickle
from fixtures.samplers import Inspector, P, Q, memory, retrospective, schedule, started, teach, wrote
from rrl.collate import collate
from rrl.errors import DataError
from rrl.parts.samplers.controls import SuccessPrefix
from rrl.parts.samplers.retrospective import Retrospective
from rrl.parts.selections.confidence import Confidence
from rrl.parts.selections.critic import CriticThreshold, CriticTopK
from rrl.parts.selections.oracle import Oracle
from rrl.parts.selections.pivot import Pivot
from rrl.types import Feedback, Judged, State, Verdict

NEVER = Confidence(below=1e-9)
SAME = "; reported again only when this changes"


def failing(sampler: Retrospective, steps: int, *, values: float = 0.0) -> None:
    """So many steps with a failure of three tokens, whose returns are 1, 0, 0; a critic of ``values`` 1 knows them."""
    for _ in range(steps):
        numbers = [[values, 0.0, 0.0]]
        teach(sampler, (wrote(P, 5, 6, 2), 0.0), values=numbers, returns=[[1.0, 0.0, 0.0]])


def solving(sampler: Retrospective, steps: int) -> None:
    for _ in range(steps):
        teach(sampler, (wrote(P, 5, 6, 2), 1.0), (wrote(Q, 5, 6, 2), 1.0))


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        (
            NEVER,
            "Confidence(below=1e-09) finds none; look at replay/buffer_size and actor/entropy; move its bounds, or use "
            "another selection",
        ),
        (
            CriticThreshold(tau=0.5, min_explained_variance=None),
            "CriticThreshold(min_explained_variance=None, tau=0.5) finds none; look at replay/buffer_size and "
            "critic/values/mean; move its bounds, or use another selection",
        ),
        (
            CriticTopK(k=2, min_explained_variance=0.25),
            "the critic explains less than selection.min_explained_variance=0.25 of the returns; look at "
            "critic/vf_explained_var; lower that bound, or train the critic longer (trainer.critic_warmup)",
        ),
    ],
)
def test_a_rule_that_finds_nothing_in_twenty_steps_of_failures_says_so_once(
    selection: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    sampler = retrospective(selection=selection)
    failing(sampler, 19)
    assert caplog.messages == []
    failing(sampler, 31)
    assert caplog.messages == [f"step 20: no state was found in 20 steps: {reason}{SAME}"]


def test_the_oracle_points_to_the_evidence(caplog: pytest.LogCaptureFixture) -> None:
    sampler = retrospective(
        selection=Oracle(cut="last"), tokenizer=SimpleNamespace(decode=lambda tokens: "x" * len(tokens))
    )
    wrong = replace(wrote(P, 5, 6, 2), response="xxx")
    for _ in range(20):
        judged = Judged(wrong, Feedback(0.0, Verdict.WRONG, {"error_free": 0}))
        sampler.observe([judged], collate([wrong], [[0.0] * 3], PAD))
    assert caplog.messages == [
        "step 20: no state was found in 20 steps: Oracle(cut='last') finds none; look at replay/buffer_size and "
        f"evidence.error_free of the rollouts in rollouts/; move its bounds, or use another selection{SAME}"
    ]


def test_responses_without_a_place_to_cut_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    words = SimpleNamespace(decode=lambda tokens: "word " * len(tokens))
    failing(retrospective(selection=Pivot(gamma=2.0, outcomes=10), cut_points="line", tokenizer=words), 20)
    (said,) = caplog.messages
    assert "data.cut_points=line allows no cut in any of them" in said and "use data.cut_points=token" in said


def test_a_found_state_ends_the_silence_and_a_new_one_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    sampler = retrospective(selection=CriticThreshold(tau=0.5, min_explained_variance=None))
    for _ in range(2):
        failing(sampler, 19)
        teach(sampler, (wrote(P, 5, 6, 2), 0.0), values=[[0.0, 0.9, 0.0]])
    assert caplog.messages == []
    failing(sampler, 20)
    assert len(caplog.messages) == 1
    teach(sampler, (wrote(P, 5, 6, 2), 0.0), values=[[0.0, 0.9, 0.0]])
    failing(sampler, 20)
    assert len(caplog.messages) == 2


def test_another_cause_is_told_when_it_has_lasted_as_long(caplog: pytest.LogCaptureFixture) -> None:
    sampler = retrospective(selection=CriticThreshold(tau=2.0, min_explained_variance=0.25))
    for _ in range(15):
        failing(sampler, 2)
        failing(sampler, 2, values=1.0)
    failing(sampler, 19)
    assert len(caplog.messages) == 1 and "finds none" in caplog.messages[0]
    failing(sampler, 1)
    assert len(caplog.messages) == 2 and "look at critic/vf_explained_var" in caplog.messages[1]


def test_a_memory_that_stays_empty_says_what_became_of_its_states(caplog: pytest.LogCaptureFixture) -> None:
    sampler = retrospective(max_problem_success=0.5)
    failing(sampler, 1)
    solving(sampler, 25)
    (said,) = caplog.messages
    assert said.startswith("step 21: no state was found in 20 steps: the memory is empty, 2 states were forgotten, and")
    assert "look at replay/evictions and critic/score/fresh/mean" in said


def test_while_there_are_states_and_no_failures_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    sampler = retrospective()
    failing(sampler, 1)
    solving(sampler, 50)
    assert len(sampler.buffer) == 2 and caplog.messages == []


def test_the_rule_of_successes_says_that_there_are_none(caplog: pytest.LogCaptureFixture) -> None:
    failing(retrospective(kind=SuccessPrefix), 20)
    assert "no response can be collected from" in caplog.messages[0]


def test_before_states_are_collected_and_for_failures_of_states_nothing_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sampler = retrospective(selection=NEVER, schedule=schedule(collect=(0.5, 1.0)))
    sampler.sample(1, 0.25)
    failing(sampler, 30)
    assert caplog.messages == []


def test_a_resumed_run_counts_on(caplog: pytest.LogCaptureFixture) -> None:
    before, after = (retrospective(selection=NEVER) for _ in range(2))
    failing(before, 12)
    after.load_state_dict(through_pickle(before.state_dict()))
    failing(after, 7)
    assert caplog.messages == []
    failing(after, 1)
    assert len(caplog.messages) == 1


def test_references_are_a_source_only_where_there_are_some() -> None:
    sampler = retrospective(sources="canonical", buffer=memory())
    sampler.start([problem(reference=(5, 2)), problem("q")], 0, Inspector(), None)
    with pytest.raises(DataError, match=r"'canonical', but none of the 2 problems has a reference; use"):
        sampler.start([problem(), problem("q")], 0, Inspector(), None)


@pytest.mark.parametrize(
    ("choice", "idle", "metric"),
    [
        ("pass_rate", "sampler.prompts=1", "replay/ratio and explore/unsolved_frac"),
        ("prompt_replay", "sampler.share=0", "replay/problems_in_window"),
        ("group_replay", "sampler.share=0", "replay/groups and replay/group_share"),
    ],
)
def test_a_sampler_that_brings_nothing_back_in_twenty_steps_says_so_once_and_after_a_resume(
    choice: str, idle: str, metric: str, caplog: pytest.LogCaptureFixture
) -> None:
    def waits(sampler: Any, steps: int) -> int:
        for _ in range(steps):
            teach(sampler, (wrote(P, 5, 6, 2), 0.0), (wrote(P, 5, 7, 2), 0.0), advantages=[[0.0] * 3] * 2)
        return len(caplog.messages)

    sampler, resumed, meant = started(choice), started(choice), started(choice, idle)
    before = 0 if choice == "group_replay" else 1  # a problem that comes for the first time cannot come again
    assert waits(sampler, before + 19) == 0 == waits(meant, 45)
    resumed.load_state_dict(through_pickle(sampler.state_dict()))
    assert waits(resumed, 1) == 1 == waits(resumed, 40)
    assert caplog.messages[0].startswith("in 20 steps no ") and f"look at {metric}" in caplog.messages[0]


@pytest.mark.parametrize("choice", ["pass_rate", "prompt_replay"])
def test_while_every_problem_is_new_nothing_can_come_again(choice: str, caplog: pytest.LogCaptureFixture) -> None:
    sampler = started(choice)
    for number in range(40):
        teach(sampler, (wrote(problem(f"new{number}"), 5, 6, 2), 0.0))
    assert caplog.messages == []


def test_a_sampler_with_something_to_bring_back_begins_to_wait_anew(caplog: pytest.LogCaptureFixture) -> None:
    sampler = started("prompt_replay", "sampler.momentum=0")
    for scores in ((0.0, 0.0), (0.0, 1.0), (0.0, 0.0)):  # a pass rate of one half lies in the window
        for _ in range(19):
            teach(sampler, *((wrote(P, 5, 6, 2), score) for score in scores))
    assert caplog.messages == []
    teach(sampler, (wrote(P, 5, 6, 2), 0.0))
    assert len(caplog.messages) == 1


def test_a_start_from_an_own_prefix_ends_the_wait(caplog: pytest.LogCaptureFixture) -> None:
    sampler = started("pass_rate")
    for state in (State(P), State(P, (5,), f"head start of {P.id}"), State(P)):
        for _ in range(19):
            teach(sampler, (wrote(state, 6, 2), 0.0))
    assert caplog.messages == []
