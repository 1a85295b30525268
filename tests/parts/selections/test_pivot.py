"""The rule that learns where going on succeeds: its regression against another's, its draws, and what is saved."""

import math
from collections import Counter
from random import Random
from typing import Any

import numpy
import pytest
from scipy.optimize import minimize

from fixtures.replay import THROUGH
from fixtures.samplers import P, Q, memory, retrospective, teach, wrote
from rrl.parts.selections.pivot import Pivot
from rrl.types import State, TokenScores

RESPONSE = TokenScores(logprobs=(-1.0,) * 8, values=())
FEW = [(0.25, False), (0.5, True), (0.75, True)]


def pivot(gamma: float = 2.0, outcomes: int = 100) -> Pivot:
    return Pivot(gamma=gamma, outcomes=outcomes)


def taught(seen: list[tuple[float, bool]], **changes: Any) -> Pivot:
    rule = pivot(**changes)
    rule.learn(seen)
    return rule


def test_before_anything_is_learnt_success_is_one_half_everywhere() -> None:
    assert [pivot(gamma=0.0).score(RESPONSE, cut) for cut in (1, 4, 8)] == [0.5] * 3


def test_the_regression_is_the_one_that_scipy_finds() -> None:
    random = numpy.random.default_rng(0)
    shares = random.integers(1, 8, 400) / 8
    solved = random.random(400) < 1 / (1 + numpy.exp(5 * shares - 2))

    def loss(line: Any) -> float:
        logits = line[0] + line[1] * shares
        return float(numpy.logaddexp(0, logits).sum() - (solved * logits).sum() + line @ line / 2)

    a, b = minimize(loss, numpy.zeros(2), method="BFGS", options={"gtol": 1e-9}).x
    rule = taught(list(zip(shares.tolist(), solved.tolist(), strict=True)), gamma=0.0, outcomes=400)
    expected = [1 / (1 + math.exp(-a - b * cut / 8)) for cut in range(1, 8)]
    assert [rule.score(RESPONSE, cut) for cut in range(1, 8)] == pytest.approx(expected, rel=1e-5)


def test_where_late_cuts_succeed_they_are_taken_and_a_few_outcomes_count_little() -> None:
    rising, falling = taught(FEW * 30, gamma=0.0), taught([(share, not won) for share, won in FEW] * 30, gamma=0.0)
    assert rising.score(RESPONSE, 7) > 0.9 and rising.score(RESPONSE, 1) < 0.4
    assert falling.score(RESPONSE, 7) < 0.1 and falling.score(RESPONSE, 1) > 0.6
    assert 0.5 < taught(FEW, gamma=0.0).score(RESPONSE, 7) < 0.7


def test_the_latest_outcomes_count_alone() -> None:
    assert taught([(0.5, True)] * 9 + FEW, outcomes=3)._line == taught(FEW, outcomes=3)._line


def test_a_cut_is_drawn_in_proportion_to_success_and_lateness() -> None:
    # Without outcomes in proportion to (t / 8)^2: of 2, 4 and 6 a share of 4, 16 and 36 in 56.
    rng, rule = Random(0), pivot()
    counts = Counter(rule.cuts(RESPONSE, [2, 4, 6], rng)[0] for _ in range(20_000))
    shares = {cut: count / 20_000 for cut, count in counts.items()}
    assert shares == pytest.approx({2: 4 / 56, 4: 16 / 56, 6: 36 / 56}, abs=0.01)
    assert rule.cuts(RESPONSE, [], rng) == []


def test_it_learns_from_rollouts_that_went_on_from_its_cuts() -> None:
    learnt: list[Any] = []
    rule = pivot()
    rule.learn = lambda outcomes: learnt.extend(outcomes)  # type: ignore[method-assign]
    sampler = retrospective(selection=rule)
    teach(sampler, (wrote(P, 5, 6, 7, 2), 0.0), (wrote(Q, 8, 9), 0.0))
    (first, second) = sampler.buffer
    share = len(first.prefix) / 4
    assert (first.whole, second.whole, len(second.prefix)) == (4, 2, 1)
    starts = [State(P, first.prefix, first.key), State(Q, second.prefix, second.key), State(Q, (), second.key)]
    gone = State(P, (5,), "hard0@99")
    teach(sampler, *((wrote(start, 6), score) for start, score in zip([*starts, gone], (1, 0, 1, 1), strict=True)))
    assert learnt == [(share, True), (0.5, False)]  # not of an emptied prefix, nor of a state that is forgotten


@THROUGH
def test_what_was_learnt_is_saved_with_the_sampler(through: Any) -> None:
    sampler, resumed = (retrospective(selection=pivot(outcomes=4), buffer=memory()) for _ in range(2))
    teach(sampler, (wrote(P, 5, 6, 7, 2), 0.0))
    (stored,) = sampler.buffer
    teach(sampler, (wrote(State(P, stored.prefix, stored.key), 6), 1.0))
    resumed.load_state_dict(through(sampler.state_dict()))
    assert resumed.selection._line == sampler.selection._line != (0.0, 0.0)
    for rule in (sampler.selection, resumed.selection):
        rule.learn(FEW)
    assert resumed.selection._line == sampler.selection._line


@pytest.mark.parametrize(("changes", "message"), [({"gamma": -1.0}, "gamma"), ({"outcomes": 0}, "outcomes")])
def test_an_impossible_setting_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pivot(**changes)
