"""What a selection rule has written: by the run's engine, counted to the token, timed apart, resumed in every bit."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.trainer import EVEN, gone_on, history, same
from fixtures.training import make_trainer, problems, replay
from rrl.parts.engines.hf import HFEngine
from rrl.parts.engines.static import StaticHF
from rrl.parts.selections.verified import Verified
from rrl.processes.clock import Clock
from rrl.training.trainer import Trainer
from rrl.types import Rollout, State

STARTS = [State(problem) for problem in problems()[:3]]


def verified(**changes: Any) -> Trainer:
    """A trainer whose rule tries two points of five failures three times each."""
    rule = Verified(candidates=2, continuations=3, failures=5)
    return make_trainer(task=EVEN, sampler=replay(0.5, selection=rule), train_batch_size=16, **changes)


def noted(trainer: Trainer) -> list[list[Rollout]]:
    """The rollouts of every later call of the engine."""
    calls, generate = list[list[Rollout]](), trainer.engine.generate

    def noting(*given: Any, **named: Any) -> list[Rollout]:
        calls.append(generate(*given, **named))
        return calls[-1]

    trainer.engine.generate = noting  # type: ignore[method-assign]
    return calls


@pytest.mark.parametrize("kind", [HFEngine, StaticHF])
def test_tokens_are_counted_as_the_sum_over_all_rows_that_were_generated(kind: type[HFEngine]) -> None:
    shape = {"temperature": 1.0, "max_response_length": 6, "stop": (), "batch_size": 7}
    trainer = verified(engine=kind(**shape))
    calls = noted(trainer)
    for metrics in trainer.run():
        tokens = [sum(len(rollout.actions) for rollout in rows) for rows in calls]
        assert metrics["budget/tokens_generated"] == sum(tokens)
        assert metrics["replay/examine_tokens"] == tokens[-1]
        assert len(calls[-1]) == metrics["replay/examined"] * 2 * 3
    assert len(calls) == 6  # rollouts and continuations of three steps
    assert metrics["budget/tokens_trained"] == sum(tokens[::2])
    assert len(trainer.sampler.remembered()) > 3


def test_they_are_spent_from_the_budget() -> None:
    steps = list(verified(total_training_steps=None, total_tokens=300).run())
    spent = [step["budget/tokens_generated"] for step in steps]
    written = 300 - sum(step["replay/examine_tokens"] for step in steps)
    assert spent[-2] < 300 <= spent[-1] and written < 200


def test_a_resumed_run_goes_on_in_every_bit(tmp_path: Path) -> None:
    whole = history(verified(), 2)
    assert whole[1][0]["replay/examine_tokens"] > 0
    assert same(whole[1:], gone_on(verified, tmp_path))


def test_what_is_written_leaves_the_engines_own_draws_as_they_are() -> None:
    author = (trainer := verified()).author
    before = trainer.engine.state_dict()["generator"]
    first, again, other = ([each.rollout for each in author.judged(STARTS, seed)] for seed in (1, 1, 2))
    assert [r.actions for r in first] == [r.actions for r in again] != [r.actions for r in other]
    assert bool((trainer.engine.state_dict()["generator"] == before).all())
    assert trainer.tokens_generated == sum(len(r.actions) for rows in (first, again, other) for r in rows)


def test_replies_follow_the_rendered_questions_and_are_drawn_as_asked() -> None:
    author = (trainer := verified()).author
    questions = ["7 add3 =", " ".join(["="] * 61), "8 add3 ="]  # with its first token the second one has 62 of 64
    greedy, again, drawn = (author.replies(questions, 3, *how) for how in ((0.0, 1), (0.0, 2), (1.0, 1)))
    assert greedy[1] is again[1] is drawn[1] is None
    assert [r.actions for r in greedy if r] == [r.actions for r in again if r] != [r.actions for r in drawn if r]
    assert greedy[0].state.problem.prompt == (1, *author.tokenizer("7 add3 =", add_special_tokens=False).input_ids)
    replies = [reply for row in (greedy, again, drawn) for reply in row if reply]
    assert max(len(reply.actions) for reply in replies) == 3
    assert trainer.tokens_generated == sum(len(reply.actions) for reply in replies)


def test_nothing_is_written_from_nothing() -> None:
    author = (trainer := verified()).author
    assert (author.replies([], 3, 0.0, 1), author.judged([], 1), trainer.tokens_generated) == ([], [], 0)


def test_judgements_are_the_tasks() -> None:
    for each in verified().author.judged(STARTS, 1):
        assert each.feedback.solved == (each.rollout.actions[0] % 2 == 0)


# --- the clock --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the given seconds pass."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_writing_is_timed_apart_and_no_second_twice() -> None:
    trainer = verified()
    trainer.step()
    costs = trainer.costs()
    phases = {name: seconds for name, seconds in costs.items() if name.startswith("timing_s/")}
    assert phases["timing_s/examine"] > 0
    assert phases.pop("timing_s/step") == pytest.approx(sum(phases.values()))


def test_a_phase_within_another_interrupts_it(ticks: Callable[[float], None]) -> None:
    shown = list[str]()
    clock = Clock(shown.append)
    with clock.phase("observe"):
        ticks(1)
        with clock.phase("examine"):
            ticks(10)
            assert clock.current() == ("examine", 10)
        ticks(2)
        assert (clock.current(), clock.finished) == (("observe", 2), "examine")
        with clock.phase("examine"):
            ticks(20)
    assert clock.current()[0] == "what follows observe"
    assert clock.take() == {"timing_s/observe": 3, "timing_s/examine": 30}
    assert shown == ["observe", "examine", "observe", "examine", "observe"]


def test_a_phase_that_fails_within_another_stays_current_and_interrupts_nothing_later(
    ticks: Callable[[float], None],
) -> None:
    clock = Clock()
    with pytest.raises(KeyError), clock.phase("observe"), clock.phase("examine"):
        raise KeyError
    ticks(5)
    assert clock.current() == ("examine", 5)
    with clock.phase("save_checkpoint"):
        ticks(1)
    assert clock.current()[0] == "what follows save_checkpoint"
    assert clock.take()["timing_s/save_checkpoint"] == 1
