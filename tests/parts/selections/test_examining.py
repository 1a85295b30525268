"""Rules that have more written before they cut: what they ask, what they make of it, and that it is counted."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from fixtures.author import Scripted, response, said
from fixtures.replay import tiny
from fixtures.samplers import P, Q, retrospective, schedule, teach, wrote
from rrl.cuts import Cutter, spread_out
from rrl.parts.selections.examining import chosen
from rrl.parts.selections.self_localized import SelfLocalized, named_step
from rrl.parts.selections.verified import Verified
from rrl.training.prompts import Chat, Plain
from rrl.types import State, TokenScores

BYTES = tiny(None).tokenizer
LINES = "2 + 2 = 4\n4 + 1 = 6\n6 - 1 = 5\n"
RESPONSE = response(BYTES, LINES)
LEGAL = Cutter(BYTES, "line").legal(RESPONSE.prefix)
CONF = Path(__file__).parents[3] / "conf" / "selection"


def localized(author: Scripted | None = None, **changes: Any) -> SelfLocalized:
    settings: dict[str, Any] = {
        "question": "Q: {question}\n{steps}\nOf {count}?", "reply_tokens": 8, "temperature": 0.0, "failures": 9,
        "cut_points": "line", "template": Chat(system=None),
    }  # fmt: skip
    rule = SelfLocalized(**settings | changes)
    if author is not None:
        rule.start(author)
    return rule


def verified(author: Scripted | None = None, **changes: Any) -> Verified:
    rule = Verified(**{"candidates": 3, "continuations": 2, "failures": 9} | changes)
    if author is not None:
        rule.start(author)
    return rule


def scored(response: State, found: dict[int, float]) -> TokenScores:
    return TokenScores((0.0,) * len(response.prefix), (), found=found)


# --- self_localized ---------------------------------------------------------------------------------------------------


def test_the_policy_is_asked_with_the_problem_and_its_numbered_steps() -> None:
    author = Scripted(BYTES, "2")
    found, metrics = localized(author).examine([RESPONSE], [LEGAL], Random(0))
    assert author.asked == ["Q: 1 + 1?\nStep 1: 2 + 2 = 4\nStep 2: 4 + 1 = 6\nStep 3: 6 - 1 = 5\nOf 3?"]
    assert found == [{10: 1.0}]  # ten bytes up to the end of the first line, before the second step
    assert metrics == {"replay/examined": 1.0, "replay/examine_tokens": 2.0, "replay/localized_frac": 1.0}
    assert author.how == (8, 0.0)


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        ("2", 2), ("Step 3", 3), (" 3. \n", 3), ("First 2 + 2 = 4 holds.\nStep 2", 2), (r"\boxed{2}", 2), ("1", 1),
        ("Step 7", None), ("", None), ("2 or 3", None), ("0", None), ("-2", None), ("2.5", None), ("two", None),
        ("02", None), ("2\nsince 4 + 1 = 5", None), ("\n", None), ("9" * 5000, None),
    ],
)  # fmt: skip
def test_a_reply_names_a_step_by_the_only_number_of_its_last_line(reply: str, named: int | None) -> None:
    assert named_step(said(RESPONSE, reply), 3) == named


def test_a_reply_that_was_cut_off_names_nothing() -> None:
    assert named_step(said(RESPONSE, "2", finished=False), 3) is None


def test_there_is_a_cut_before_the_named_step_and_none_before_the_first() -> None:
    replies = ["2", "Step 7", "", "2 or 3", "1", "3"]
    author = Scripted(BYTES, *replies)
    rule = localized(author)
    found, metrics = rule.examine([RESPONSE] * 6, [LEGAL] * 6, Random(0))
    cut = [rule.cuts(scored(RESPONSE, each), LEGAL, Random(0)) for each in found]
    assert cut == [[10], [], [], [], [], [20]]
    assert metrics["replay/localized_frac"] == 0.5  # 2, 1 and 3
    assert metrics["replay/examine_tokens"] == sum(len(reply) + 1 for reply in replies)
    assert rule.score(scored(RESPONSE, found[0]), 10) == 0.0


def test_blank_lines_are_no_steps_and_an_end_of_a_line_at_the_end_leaves_none() -> None:
    text = response(BYTES, "a\n\nb\nc\n\n")
    author = Scripted(BYTES, "2", "3")
    legal = Cutter(BYTES, "line").legal(text.prefix)
    found, _ = localized(author).examine([text, text], [legal, legal], Random(0))
    assert author.asked[0] == "Q: 1 + 1?\nStep 1: a\nStep 2: b\nStep 3: c\nOf 3?"
    assert [sorted(each) for each in found] == [[2], [5]]
    assert set(legal) >= {2, 5}


def test_braces_in_a_problem_stand_for_nothing() -> None:
    author = Scripted(BYTES, "1")
    strange = response(BYTES, LINES, question="{steps} {count} {x}")
    localized(author).examine([strange], [LEGAL], Random(0))
    assert author.asked[0].startswith("Q: {steps} {count} {x}\nStep 1: 2")


def test_a_question_that_does_not_fit_into_the_context_has_no_reply() -> None:
    found, metrics = localized(Scripted(BYTES, None, "2")).examine([RESPONSE] * 2, [LEGAL] * 2, Random(0))
    assert found == [{}, {10: 1.0}]
    assert metrics == {"replay/examined": 2.0, "replay/examine_tokens": 2.0, "replay/localized_frac": 0.5}


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"cut_points": "token"}, "cut_points: token, but .* expected line or sentence"),
        ({"template": Plain(plain_template="{question}")}, "template: plain, but .* expected template=chat"),
        ({"question": "{steps}"}, "question: expected a text with {question}$"),
        ({"question": "Which?"}, "question: expected a text with {question} and {steps}"),
        ({"reply_tokens": 0}, "reply_tokens: expected at least 1"),
        ({"failures": 0}, "failures: expected at least 1"),
        ({"temperature": -1.0}, "temperature: expected a number from 0 to 2"),
    ],
)
def test_what_the_question_needs_is_checked(changes: dict[str, Any], reported: str) -> None:
    with pytest.raises(ValueError, match=reported):
        localized(**changes)


# --- verified ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [6]), (2, [3, 8]), (3, [2, 6, 9]), (10, list(range(1, 11))), (99, list(range(1, 11)))],
)
def test_candidates_are_spread_evenly(count: int, expected: list[int]) -> None:
    assert spread_out(range(1, 11), count) == expected


def test_the_candidate_nearest_one_half_is_taken_where_some_continuation_succeeds() -> None:
    rule = verified()

    def cut(found: dict[int, float]) -> list[int]:
        return rule.cuts(scored(RESPONSE, found), LEGAL, Random(0))

    assert LEGAL == [10, 20, 30]
    assert cut({10: 0.25, 20: 0.5, 30: 0.0}) == [20]
    assert cut({10: 0.25, 20: 0.0, 30: 0.0}) == [10]
    assert cut({10: 0.25, 20: 0.75, 30: 0.0}) == [20]  # of two equally near the later one
    assert cut({10: 1.0, 20: 0.0}) == [10]
    assert cut({10: 0.0, 20: 0.0, 30: 0.0}) == cut({}) == []
    assert [rule.score(scored(RESPONSE, {10: p}), 10) for p in (0.25, 0.5, 1.0)] == [-0.25, 0.0, -0.5]


def test_estimates_are_shares_of_successes_and_what_cannot_be_judged_is_left_out() -> None:
    results = {10: (1, 0, 0, 0), 20: (1, -1, 1, 0), 30: (-1, -1, -1, -1)}
    author = Scripted(BYTES, right=lambda state: results[len(state.prefix)])
    rule = verified(author, continuations=4)
    found, metrics = rule.examine([RESPONSE], [LEGAL], Random(0))
    assert found == [{10: 0.25, 20: 2 / 3}]
    assert [len(state.prefix) for state in author.written_from] == [10] * 4 + [20] * 4 + [30] * 4
    assert metrics == {
        "replay/examined": 1.0,
        "replay/examine_tokens": 3 * (2 + 3 + 4 + 5),  # a letter more each time, and an end
        "replay/recoverable_frac": 1.0,
        "replay/candidate_success/mean": 3 / 7,
    }


@pytest.mark.parametrize("name", ["candidates", "continuations", "failures"])
def test_numbers_of_a_trial_are_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        verified(**{name: 0})


# --- both -------------------------------------------------------------------------------------------------------------


def test_the_most_that_a_step_has_written() -> None:
    assert localized(failures=5, reply_tokens=7).expense(100) == 35
    assert verified(failures=5, candidates=3, continuations=2).expense(100) == 3000


def test_at_most_so_many_responses_are_examined_drawn_among_those_that_can_be_cut() -> None:
    legal: list[Sequence[int]] = [[1], [], [2], [3], [], [4]]
    drawn = [chosen(legal, 2, Random(seed)) for seed in range(200)]
    assert all(each == sorted(each) and len(each) == 2 for each in drawn)
    assert {number for each in drawn for number in each} == {0, 2, 3, 5}
    assert chosen(legal, 9, Random(0)) == [0, 2, 3, 5]


def test_others_are_not_cut() -> None:
    author = Scripted(BYTES, right=lambda state: (1, 0))
    found, metrics = verified(author, failures=1).examine([RESPONSE] * 3, [LEGAL] * 3, Random(0))
    assert sum(map(bool, found)) == metrics["replay/examined"] == 1


# The stored rules are those that ship, apart from what parts take by name.
def test_the_shipped_question_has_the_problem_and_the_steps() -> None:
    shipped = yaml.safe_load((CONF / "self_localized.yaml").read_text(encoding="utf-8"))
    author = Scripted(BYTES, "2")
    localized(author, question=shipped["question"]).examine([RESPONSE], [LEGAL], Random(0))
    assert "1 + 1?" in author.asked[0] and "Step 3: 6 - 1 = 5" in author.asked[0] and "{" not in author.asked[0]


def test_a_replay_sampler_remembers_what_the_rule_finds_of_failures_alone() -> None:
    author = Scripted(BYTES, right=lambda state: {1: (1, 0), 2: (0, 0), 3: (1, 1)}[len(state.prefix)])
    sampler = retrospective(selection=verified())
    sampler.lend(author)
    metrics = teach(
        sampler, (wrote(P, 5, 6, 7, 2), 0.0), (wrote(Q, 5, 6, 7, 2), 1.0), (wrote(State(Q, (5,), "hard1@9"), 6), 0.0)
    )
    assert [(stored.problem_id, stored.prefix, stored.score_now) for stored in sampler.buffer] == [("hard0", (5,), 0.0)]
    assert (metrics["replay/examined"], metrics["replay/recoverable_frac"]) == (1.0, 1.0)
    assert {state.problem for state in author.written_from} == {P}
    assert sampler.expense(10) == 9 * 3 * 2 * 10


def test_nothing_is_written_when_nothing_is_collected() -> None:
    author = Scripted(BYTES, right=lambda state: (1, 0))
    sampler = retrospective(selection=verified(), schedule=schedule(collect=(0.5, 1.0)))
    sampler.lend(author)
    assert "replay/examined" not in teach(sampler, (wrote(P, 5, 6, 7, 2), 0.0))
    assert author.written_from == []


@pytest.mark.parametrize("sources", ["both", "canonical"])
def test_references_are_not_examined(sources: str) -> None:
    with pytest.raises(ValueError, match=f"sources: expected self, because Verified .* got '{sources}'"):
        retrospective(selection=verified(), sources=sources)


def test_random_numbers_are_those_of_the_sampler() -> None:
    def seeds(state: Any) -> list[int]:
        author = Scripted(BYTES, right=lambda state: (1, 0))
        rng = Random()
        rng.setstate(state)
        verified(author).examine([RESPONSE], [LEGAL], rng)
        return author.seeds

    first, second = Random(0), Random(1)
    assert seeds(first.getstate()) == seeds(first.getstate()) != seeds(second.getstate())
