"""Several responses to a problem: pass@k, the majority's answer, intervals, and warnings of what spoils a figure."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from fixtures.training import problem
from rrl.training.figures import doubts, report
from rrl.training.pass_at_k import bootstrap, budgets, majority, pass_at_k
from rrl.types import Feedback, Judged, Rollout, State, Verdict

VERDICTS = {"r": Verdict.RIGHT, "w": Verdict.WRONG, "u": Verdict.UNPARSEABLE, "e": Verdict.ERROR}
"""Letters that stand for the verdicts of responses."""


def answers(verdicts: str, stated: Sequence[str | None] | None = None, cut: str = "", name: str = "0") -> list[Judged]:
    """Responses of one token more each to one problem; ``stated`` are the answers read, ``cut`` marks with x."""
    made = []
    for number, letter in enumerate(verdicts):
        finished = cut[number : number + 1] != "x"
        tokens = (5,) * (number + 1)
        rollout = Rollout(State(problem((1, 2), name=name)), tokens, (0.0,) * len(tokens), (), finished, "", 0)
        evidence = {} if stated is None else {"parsed": stated[number]}
        made.append(Judged(rollout, Feedback(float(letter == "r"), VERDICTS[letter], evidence)))
    return made


# --- pass@k -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "right", "k", "expected"),
    [
        # By hand: 1 - C(3, 2) / C(5, 2) = 1 - 3/10, and so on.
        (5, 2, 1, 0.4), (5, 2, 2, 0.7), (5, 2, 4, 1.0), (5, 0, 3, 0.0), (4, 1, 2, 0.5), (3, 3, 3, 1.0), (8, 1, 8, 1.0),
        # numpy code of Chen et al. 2021, figure 3: 1 - prod(1 - k / arange(n - c + 1, n + 1)).
        (200, 7, 10, 0.3055988116177335), (200, 1, 100, 0.5), (100, 50, 4, 0.9412683536394877),
    ],
)  # fmt: skip
def test_pass_at_k_is_that_of_the_paper(n: int, right: int, k: int, expected: float) -> None:
    assert pass_at_k(n, right, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_the_mean_over_all_draws_of_k() -> None:
    responses = (1, 0, 0, 1, 0, 0)
    draws = [any(draw) for draw in combinations(responses, 3)]
    assert pass_at_k(6, 2, 3) == pytest.approx(sum(draws) / len(draws)) == pytest.approx(0.8)


@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8]), (0, [0])])
def test_budgets_are_powers_of_two_and_all(n: int, expected: list[int]) -> None:
    assert budgets(n) == expected


def test_pass_at_one_is_the_accuracy_and_each_k_is_a_mean_over_problems() -> None:
    result = report([answers("rrww"), answers("wwww"), answers("rrrr"), answers("wwwr")], seed=0)
    found = {k: part["value"] for k, part in result["pass@k"].items()}
    # Of 4 responses 2, 0, 4, 1 are right: pass@2 = 1 - C(2, 2)/6 = 5/6, 0, 1 and 1 - C(3, 2)/6 = 1/2.
    assert found == {"1": result["accuracy"], "2": pytest.approx((5 / 6 + 0 + 1 + 1 / 2) / 4), "4": 0.75}
    assert result["accuracy"] == pytest.approx(0.4375)


def test_responses_that_the_verifier_failed_on_are_no_draws() -> None:
    result = report([answers("rewe"), answers("wwww"), answers("eeee")], seed=0)["pass@k"]
    assert {k: (part["value"], part["n_problems"]) for k, part in result.items()} == {
        "1": (0.25, 2),
        "2": (0.5, 2),
        "4": (0.0, 1),
    }


# --- majority ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "expected"),
    [("abb", "b"), ("abab", "a"), ("ba", "b"), ([None, None, "c"], "c"), ([None], None), ([], None)],
)
def test_the_most_frequent_answer_wins_and_of_equals_the_first(
    stated: Sequence[str | None], expected: str | None
) -> None:
    assert majority(list(stated)) == expected


def test_the_majority_is_right_where_its_answer_is() -> None:
    rows = [
        answers("rrw", ["7", "7", "8"]),
        answers("wwr", ["1", "1", "2"]),
        answers("wr", ["3", "4"]),  # the first of equals
        answers("uur", [None, None, "5"]),  # no answer is no vote
        answers("uu", [None, None]),
        answers("rw", ["1  0", "1 1"]),
    ]
    result = report(rows, seed=0)
    assert (result["maj@n"]["value"], result["maj@n"]["n_problems"]) == (0.5, 6)


def test_answers_that_differ_in_setting_alone_vote_together() -> None:
    row = answers("wrr", ["x", r"\dfrac12", r"\frac{1}{2}"])
    forms = ("x", "half", "half")
    row = [
        replace(j, feedback=replace(j.feedback, evidence={**j.feedback.evidence, "form": form}))
        for j, form in zip(row, forms, strict=True)
    ]
    assert report([row], seed=0)["maj@n"]["value"] == 1.0


def test_answers_that_cannot_be_compared_have_no_majority_and_the_result_says_so() -> None:
    vote = report([answers("rw")], seed=0)["maj@n"]
    assert vote == {"value": None, "reason": "the verifier states no answer that could be compared with others"}


def test_one_response_has_neither_pass_at_k_nor_a_majority() -> None:
    assert {"pass@k", "maj@n"} & report([answers("r", ["1"])], seed=0).keys() == set()


# --- intervals --------------------------------------------------------------------------------------------------------


def test_the_interval_is_that_of_the_resampled_problems() -> None:
    """The mean of a resample of 50 ones and 50 zeros is binomial: its 2.5 and 97.5 % quantiles are 40 and 60 of 100."""
    assert bootstrap([1.0] * 50 + [0.0] * 50, seed=0) == [0.40, 0.60]


def test_the_same_seed_gives_the_same_interval() -> None:
    values = [0.0, 0.1, 0.5, 0.7, 1.0] * 7
    assert bootstrap(values, 3) == bootstrap(values, 3)
    assert bootstrap(values, 3) != bootstrap(values, 4)


def test_problems_that_agree_are_no_certainty() -> None:
    """Newcombe, Stat. Med. 1998, table I, method 3: none of 20 and ten of ten."""
    assert bootstrap([0.0] * 20, 0) == pytest.approx([0.0, 0.1611], abs=5e-5)
    assert bootstrap([1.0] * 10, 0) == pytest.approx([0.7225, 1.0], abs=5e-5)
    assert bootstrap([], 0) == [0.0, 1.0]


# --- what spoils a figure ---------------------------------------------------------------------------------------------


def test_length_truncation_and_unreadable_answers_stand_beside_every_accuracy() -> None:
    def of(level: str, subject: str, *given: Any) -> list[Judged]:
        example = replace(problem((1,), level=level).example, strata={"subject": subject})
        return [
            replace(j, rollout=replace(j.rollout, state=State(replace(j.rollout.state.problem, example=example))))
            for j in answers(*given)
        ]

    result = report([of("L1", "a", "ru", None, ".x"), of("L2", "a", "wwww", None, "xx..")], seed=0)
    names = ("length", "truncated", "unparseable")
    parts = (result, result["levels"]["L1"], result["levels"]["L2"], result["strata"]["subject"]["a"])
    # Lengths 1, 2 and 1, 2, 3, 4.
    assert [tuple(part[name] for name in names) for part in parts] == [
        (pytest.approx(13 / 6), 0.5, pytest.approx(1 / 6)), (1.5, 0.5, 0.5), (2.5, 0.5, 0.0),
        (pytest.approx(13 / 6), 0.5, pytest.approx(1 / 6)),
    ]  # fmt: skip
    assert all("pass@k" in part and "maj@n" in part for part in parts)


@pytest.mark.parametrize(
    ("verdicts", "cut", "said"),
    [
        ("rwwu", "", None),  # 25 % is not more than a quarter
        ("rwuu", "", "50 % .* \\(0 %\\) .* \\(50 %\\)"),
        ("wwrw", "xx..", "50 % .* \\(50 %\\) .* \\(0 %\\)"),
        ("uurr", "x...", "50 % .* \\(25 %\\) .* \\(50 %\\)"),  # both at once counts once
        ("rrrr", "xxxx", None),  # right ones were long enough
        ("eeer", "xxx.", None),
    ],
)
def test_a_warning_where_length_or_format_explains_the_figure(verdicts: str, cut: str, said: str | None) -> None:
    import re

    found = doubts("greedy", [answers(verdicts, None, cut)])
    assert len(found) == (said is not None)
    assert said is None or re.match(f"greedy: {said}", found[0])
