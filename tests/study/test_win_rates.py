"""Verdicts in both orders: outcomes by hand, shares and Wilson's intervals from the literature, position bias."""

from itertools import product

import pytest

from rrl.study.win_rates import Answered, JudgedQuestion, MatchResult, matches, table, tally
from rrl.training.intervals import wilson
from rrl.types import Comparison, Judgement, Preference

FIRST, SECOND, TIE, ERROR = Preference


def match(forward: Preference, backward: Preference, level: str = "helpful", ours: str = "x") -> JudgedQuestion:
    """A question judged with ours first, then with ours second."""
    return JudgedQuestion(Answered("id", level, "q", ours, "y"), Judgement(forward, ""), Judgement(backward, ""))


WIN, LOSE = match(FIRST, SECOND), match(SECOND, FIRST)
EVEN, FAILED = match(TIE, TIE), match(ERROR, SECOND)

# --- one question -----------------------------------------------------------------------------------------------------

OUTCOMES = {
    (FIRST, FIRST): "tie", (FIRST, SECOND): "win", (FIRST, TIE): "tie", (FIRST, ERROR): "error",
    (SECOND, FIRST): "lose", (SECOND, SECOND): "tie", (SECOND, TIE): "tie", (SECOND, ERROR): "error",
    (TIE, FIRST): "tie", (TIE, SECOND): "tie", (TIE, TIE): "tie", (TIE, ERROR): "error",
    (ERROR, FIRST): "error", (ERROR, SECOND): "error", (ERROR, TIE): "error", (ERROR, ERROR): "error",
}  # fmt: skip
"""By the verdict with ours first and the one with ours second."""


@pytest.mark.parametrize("verdicts", product(Preference, Preference))
def test_an_answer_wins_or_loses_only_in_both_orders(verdicts: tuple[Preference, Preference]) -> None:
    assert match(*verdicts).outcome.value == OUTCOMES[verdicts]


@pytest.mark.parametrize("verdicts", product(Preference, Preference))
def test_only_the_same_side_twice_follows_the_position(verdicts: tuple[Preference, Preference]) -> None:
    expected = {(FIRST, FIRST): FIRST, (SECOND, SECOND): SECOND}.get(verdicts)
    assert match(*verdicts).followed is expected


def test_ours_stands_first_in_the_first_comparison_and_second_in_the_next() -> None:
    asked: list[Comparison] = []

    def judge(comparisons: list[Comparison]) -> list[Judgement]:
        asked.extend(comparisons)
        return [Judgement(preference, str(i)) for i, preference in enumerate((FIRST, SECOND, SECOND, FIRST))]

    played = matches([Answered("1", "a", "q", "x", "y"), Answered("2", "b", "r", "v", "w")], judge)
    assert asked == [Comparison("q", "x", "y"), Comparison("q", "y", "x"), Comparison("r", "v", "w"),
                     Comparison("r", "w", "v")]  # fmt: skip
    assert [m.outcome for m in played] == [MatchResult.WIN, MatchResult.LOSE]
    assert (played[1].forward.reason, played[1].backward.reason) == ("2", "3")


def test_equal_answers_are_a_tie_without_a_judge() -> None:
    asked: list[Comparison] = []

    def judge(comparisons: list[Comparison]) -> list[Judgement]:
        asked.extend(comparisons)
        return [Judgement(FIRST, ""), Judgement(SECOND, "")]

    same, other = Answered("1", "a", "q", "x ", "\nx"), Answered("2", "a", "q", "x", "y")
    assert [m.outcome for m in matches([same, other], judge)] == [MatchResult.TIE, MatchResult.WIN]
    assert len(asked) == 2


def test_a_row_reports_question_answers_and_both_verdicts() -> None:
    played = JudgedQuestion(Answered("id", "a", "q", "x", "y"), Judgement(FIRST, "why"), Judgement(TIE, "hm"))
    assert played.row() == {
        "id": "id", "level": "a", "question": "q", "ours": "x", "theirs": "y", "outcome": "tie",
        "ours_first": {"preference": "first", "reason": "why"}, "theirs_first": {"preference": "tie", "reason": "hm"},
    }  # fmt: skip


# --- many -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion", Stat. Med. 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wins_have_wilsons_interval(count: int, of: int, low: float, high: float) -> None:
    result = tally([WIN] * count + [LOSE] * (of - count))
    assert result["win"] == {
        "count": count, "of": of, "share": pytest.approx(count / of), "interval95": pytest.approx([low, high], abs=5e-5)
    }  # fmt: skip
    assert result["win_rate_decided"] == result["win"]


def test_shares_are_of_what_was_judged_and_errors_are_counted_apart() -> None:
    result = tally([WIN] * 5 + [EVEN] * 3 + [LOSE] * 2 + [FAILED] * 7)
    assert (result["n"], result["errors"]) == (10, 7)
    assert [result[end]["share"] for end in ("win", "tie", "lose")] == [0.5, 0.3, 0.2]
    assert result["win_rate_ties_half"]["share"] == 0.65  # (5 + 3 / 2) / 10
    assert (result["win_rate_decided"]["share"], result["win_rate_decided"]["of"]) == (5 / 7, 7)


def test_half_ties_have_the_interval_of_as_many_questions() -> None:
    """Of 8 of 10 by scipy 1.17, binomtest(8, 10).proportion_ci(method="wilson"): half a win is no smaller sample."""
    result = tally([WIN] * 7 + [EVEN] * 2 + [LOSE])
    assert result["win_rate_ties_half"]["share"] == 0.8
    assert result["win_rate_ties_half"]["interval95"] == pytest.approx([0.4902, 0.9433], abs=5e-5)


def test_levels_are_kept_apart() -> None:
    helpful, harmless = [match(FIRST, SECOND)] * 3, [match(SECOND, FIRST, "harmless"), match(TIE, ERROR, "harmless")]
    result = tally([*helpful, *harmless])
    assert {level: (part["n"], part["win"]["count"], part["errors"]) for level, part in result["levels"].items()} == {
        "harmless": (1, 0, 1),
        "helpful": (3, 3, 0),
    }
    assert (result["n"], result["win"]["count"]) == (4, 3)


def test_where_nothing_could_be_judged_there_is_no_share() -> None:
    result = tally([FAILED] * 3)
    assert (result["n"], result["errors"]) == (0, 3)
    assert result["win"] == {"count": 0, "of": 0, "share": None, "interval95": None}


def test_a_judge_that_always_takes_the_first_ties_everything_with_a_bias_of_one() -> None:
    result = tally([match(FIRST, FIRST)] * 4)
    assert (result["tie"]["share"], result["win"]["count"], result["lose"]["count"]) == (1.0, 0, 0)
    bias = result["position_bias"]
    assert (bias["share"], bias["first"], bias["second"]) == (1.0, 4, 0)


def test_bias_is_of_what_the_judge_saw_and_could_judge() -> None:
    equal = match(TIE, TIE, ours="y")
    result = tally([match(FIRST, FIRST), match(SECOND, SECOND), WIN, match(FIRST, TIE), equal, equal, FAILED])
    bias = result["position_bias"]
    assert (bias["count"], bias["of"], bias["first"], bias["second"]) == (2, 4, 1, 1)
    assert (result["equal"], result["n"]) == (2, 6)


def test_the_table_has_a_row_for_each_level_and_one_for_all() -> None:
    result = tally([WIN] * 10 + [match(ERROR, ERROR, "harmless")])
    full, none = "1.000 [0.722, 1.000]", "0.000 [0.000, 0.278]"  # 10 and 0 of 10, by scipy as above
    lines = [line.split("  ") for line in table(result).splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells == [
        ["n", "win", "tie", "lose", "ties half", "of decided", "position bias", "errors"],
        ["harmless", "0", "-", "-", "-", "-", "-", "-", "1"],
        ["helpful", "10", full, none, none, full, full, none, "0"],
        ["all", "10", full, none, none, full, full, none, "1"],
    ]


def test_an_interval_stays_within_zero_and_one() -> None:
    assert wilson(0.0, 1)[0] == 0.0
    assert wilson(1.0, 1)[1] == 1.0
