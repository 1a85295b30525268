"""What PPOCoder and RLTF pay for every class of outcome, worked by hand; one token is one character."""

from collections.abc import Sequence
from typing import Any

import pytest

from fixtures.programs import (
    BROKEN,
    CODE,
    COMPILE,
    NONE,
    PASSED,
    RUNTIME,
    TIMED_OUT,
    WRONG,
    Characters,
    evidence,
    feedback,
    result,
    written,
)
from rrl.parts.rewards.outcomes import Pay, gravest
from rrl.parts.rewards.ppocoder import PPOCoder
from rrl.parts.rewards.regions import responsible
from rrl.parts.rewards.rltf import RLTF
from rrl.types import Feedback, Judged, State
from rrl.verifiers.programs import Outcome, find_program

PAY = Pay(passed=1.0, wrong_answer=-0.3, runtime_error=-0.6, compile_error=-1.0)
WORTH = {PASSED: 1.0, WRONG: -0.3, RUNTIME: -0.6, TIMED_OUT: -0.6, COMPILE: -1.0, NONE: -1.0}


# --- outcomes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "worth"), WORTH.items())
def test_every_outcome_has_its_pay(outcome: Outcome, worth: float) -> None:
    assert PAY.of(outcome) == worth


@pytest.mark.parametrize(
    ("tests", "outcome", "line"),
    [
        ([result(PASSED), result(WRONG), result(RUNTIME, 2), result(TIMED_OUT)], RUNTIME, 2),
        ([result(WRONG), result(TIMED_OUT), result(RUNTIME, 2)], TIMED_OUT, None),
        ([result(RUNTIME, 3), result(RUNTIME, 2)], RUNTIME, 3),
        ([result(WRONG), result(COMPILE, 1), result(RUNTIME, 2)], COMPILE, 1),
        ([result(WRONG), result(BROKEN), result(PASSED)], WRONG, None),
    ],
)
def test_the_gravest_result_of_all_tests_counts(tests: list[Any], outcome: Outcome, line: int | None) -> None:
    first = next(test for test in tests if test.outcome is not PASSED)
    found = gravest(evidence(first.outcome, line=first.line, tests=tuple(tests)))
    assert (found.outcome, found.line) == (outcome, line)


def test_evidence_without_single_tests_counts_as_it_is() -> None:
    assert gravest(evidence(RUNTIME, line=2, error="ZeroDivisionError")) == result(RUNTIME, 2, "ZeroDivisionError")


def test_a_sandbox_failure_has_no_price() -> None:
    for reward in (ppocoder(), rltf()):
        with pytest.raises(ValueError, match="the sandbox failed; expected the verdict 'error'"):
            reward(Judged(written(CODE), feedback(BROKEN)))


# --- regions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "facts", "blamed"),
    [
        (PASSED, {}, None),
        (WRONG, {}, None),
        (WRONG, {"line": 2}, None),
        (RUNTIME, {"line": 2, "error": "ZeroDivisionError"}, "b = a / 0"),
        (RUNTIME, {"line": 3, "error": "NameError"}, "print(b)"),  # the last line may crash as any other
        (RUNTIME, {"error": "MemoryError"}, None),
        (RUNTIME, {"line": 2, "error": "RecursionError"}, CODE.strip()),
        (RUNTIME, {"line": 4}, None),  # the empty line after the last newline
        (RUNTIME, {"line": 5}, None),
        (RUNTIME, {"line": 0}, None),
        (COMPILE, {"line": 1, "error": "SyntaxError"}, "a = int(input())"),
        (COMPILE, {"line": 3, "error": "SyntaxError"}, CODE.strip()),  # cut off
        (COMPILE, {"line": 4, "error": "IndentationError"}, CODE.strip()),  # "expected an indented block" at the end
        (COMPILE, {}, None),
        (TIMED_OUT, {}, CODE.strip()),
        (TIMED_OUT, {"line": 2}, CODE.strip()),
    ],
)
def test_the_responsible_region_of_every_class(outcome: Outcome, facts: dict[str, Any], blamed: str | None) -> None:
    region = responsible(evidence(outcome, **facts), CODE)
    assert (region and CODE[region.start : region.stop]) == blamed


@pytest.mark.parametrize(
    ("line", "blamed"),
    [(1, "if a:"), (2, "if a:\n  b = ("), (3, "if a:\n  b = ("), (4, "if a:\n  b = ("), (5, "if a:\n  b = (")],
)
def test_the_last_line_of_a_program_is_the_last_that_is_written(line: int, blamed: str) -> None:
    source = "if a:\n  b = (\n\n  \n"
    region = responsible(evidence(COMPILE, source, line=line, error="SyntaxError"), source)
    assert region is not None and source[region.start : region.stop] == blamed


@pytest.mark.parametrize(("program", "start"), [("a = 2\nb", 0), ("a = 1\nb", 1), ("", 0)])
def test_evidence_of_another_program_blames_nothing(program: str, start: int) -> None:
    assert responsible(evidence(RUNTIME, program, start, line=1), "a = 1\nb") is None
    assert responsible(evidence(TIMED_OUT, program, start), "a = 1\nb") is None


def test_a_response_without_a_program_has_no_region() -> None:
    assert responsible(evidence(NONE, None), "  \n") is None


def test_lines_are_those_of_the_program_in_its_block() -> None:
    response = "Here:\n```python\n  a = 1\r\n\x0cb = 2\u2028+ c\rd = 3\n```\nDone.\n"
    program = find_program(response)
    lines = ["a = 1", "b = 2\u2028+ c", "d = 3"]  # Python counts \r\n, \r and \n, and no other line ends
    for number, line in enumerate(lines, start=1):
        region = responsible(evidence(RUNTIME, program.source, program.start, line=number), response)
        assert response[region.start : region.stop] == line


@pytest.mark.parametrize(
    ("response", "second", "whole"),
    [
        ("1. ```python\n   a(\n   b)\n   ```", "b)", "a(\n   b)"),
        ("> ```python\n> if a:\n>    b = c\n> ```", "b = c", "if a:\n>    b = c"),
        ("```\n>>> a\n1\n>>> b\n```", "b", "a\n1\n>>> b"),
        ("Answer: ```python\na\n  b```", "b", "a\n  b"),
    ],
)
def test_regions_lie_in_the_response_also_where_the_program_lost_its_margin(
    response: str, second: str, whole: str
) -> None:
    program = find_program(response)
    for outcome, line, blamed in ((RUNTIME, 2, second), (TIMED_OUT, None, whole)):
        region = responsible(evidence(outcome, program.source, program.start, line=line), response)
        assert response[region.start : region.stop] == blamed


@pytest.mark.parametrize("line", [-1, 0, 3])
def test_a_line_that_the_program_does_not_have_is_not_to_blame(line: int) -> None:
    assert responsible(evidence(RUNTIME, "a\nb", line=line), "a\nb") is None


def test_blanks_around_a_line_are_not_to_blame() -> None:
    source = "if x:\n    y = z  \n"
    region = responsible(evidence(RUNTIME, source, line=2), source)
    assert region == ("line", 10, 15)


def test_a_program_that_is_not_in_the_response_blames_nothing() -> None:
    assert responsible(evidence(TIMED_OUT, start=1), CODE) is None


# --- PPOCoder ---------------------------------------------------------------------------------------------------------


def ppocoder(**changes: Any) -> PPOCoder:
    weights = {"signal_weight": 1.0, "syntax_weight": 1.0, "semantics_weight": 1.0}
    return PPOCoder(**{"signal": "tests", "pay": PAY} | weights | changes)


@pytest.mark.parametrize(("outcome", "worth"), WORTH.items())
def test_ppocoder_pays_signal_and_matches_on_the_last_token(outcome: Outcome, worth: float) -> None:
    # The program is the reference, so that both matches are 1; a response without a program matches nothing.
    response, program = ("  ", None) if outcome is NONE else (CODE, CODE)
    pay = ppocoder()(Judged(written(response, end=True), feedback(outcome, program)))
    assert pay == [0.0] * len(response) + [pytest.approx(worth + (0 if outcome is NONE else 2))]


@pytest.mark.parametrize(("outcome", "worth"), {**dict.fromkeys(WORTH, 1.0), COMPILE: -1.0, NONE: -1.0}.items())
def test_the_compile_signal_knows_two_classes(outcome: Outcome, worth: float) -> None:
    reward = ppocoder(signal="compile", syntax_weight=0.0, semantics_weight=0.0)
    assert reward(Judged(written(CODE), feedback(outcome)))[-1] == worth


def test_ppocoder_adds_its_three_parts_by_weight() -> None:
    # Reference x = f(1) + 2, program x = 2: of the sub-trees Module, Assign, BinOp, Call none; of the edges x<-f none.
    # Program y = f(3): of the sub-trees the call; of the edges the one.
    reward = ppocoder(signal_weight=2.0, syntax_weight=4.0, semantics_weight=0.5)
    rollout = written("y = f(3)", reference="```python\nx = f(1) + 2\n```")
    assert reward(Judged(rollout, feedback(WRONG, "y = f(3)")))[-1] == pytest.approx(2 * -0.3 + 4 * 0.25 + 0.5 * 1.0)
    assert reward(Judged(rollout, feedback(WRONG, "x = 2")))[-1] == pytest.approx(2 * -0.3)


@pytest.mark.parametrize(("program", "reference"), [("x = (", CODE), (CODE, "print 3"), (CODE, "")])
def test_what_cannot_be_parsed_matches_nothing(program: str, reference: str) -> None:
    assert ppocoder()(Judged(written(CODE, reference=reference), feedback(RUNTIME, program)))[-1] == -0.6


def test_ppocoder_pays_new_tokens_only_for_the_whole_program() -> None:
    rollout = written(CODE, prefix=CODE[:17])
    assert ppocoder()(Judged(rollout, feedback(PASSED))) == [0.0] * 18 + [3.0]


def test_ppocoder_reports_its_parts() -> None:
    rollouts = [written(CODE), written("x = (")]
    metrics = ppocoder().observe(list(map(Judged, rollouts, [feedback(PASSED), feedback(COMPILE, "x = (")])))
    assert metrics == {
        "ppocoder/signal/mean": 0.0, "ppocoder/syntax/mean": 0.5, "ppocoder/semantics/mean": 0.5,
        "ppocoder/unmatched_frac": 0.5, "ppocoder/bad_reference_frac": 0.0,
    }  # fmt: skip
    bad = ppocoder().observe([Judged(written(CODE, reference="print 3"), feedback(PASSED))])
    assert (bad["ppocoder/unmatched_frac"], bad["ppocoder/bad_reference_frac"]) == (1.0, 1.0)
    none = ppocoder().observe([Judged(written(" "), feedback(NONE, None))])
    assert (none["ppocoder/unmatched_frac"], none["ppocoder/bad_reference_frac"]) == (1.0, 0.0)


def test_ppocoder_refuses_a_negative_weight() -> None:
    with pytest.raises(ValueError, match="syntax_weight: expected a number >= 0, got -1"):
        ppocoder(syntax_weight=-1.0)


# --- RLTF: outcomes ---------------------------------------------------------------------------------------------------


def rltf(decode: Any = None, **changes: Any) -> RLTF:
    off = {"adaptive": False, "relative": False, "paid_on": "last", "penalty": 0.0, "penalty_on": "token"}
    reward = RLTF(**{"pay": PAY} | off | changes)
    reward.start(Characters(), decode)
    return reward


@pytest.mark.parametrize(("outcome", "worth"), WORTH.items())
def test_rltf_pays_the_outcome_on_the_last_token(outcome: Outcome, worth: float) -> None:
    assert rltf()(Judged(written("abc"), feedback(outcome, "abc"))) == [0.0, 0.0, worth]


def test_rltf_may_pay_the_outcome_on_every_new_token() -> None:
    assert rltf(paid_on="every")(Judged(written("abcd", prefix="ab"), feedback(RUNTIME, "abcd"))) == [-0.6, -0.6]


@pytest.mark.parametrize(
    ("outcome", "passed", "worth"),
    [(WRONG, 0, -0.3), (WRONG, 1, 0.35), (WRONG, 2, 1.0), (RUNTIME, 1, -0.6), (TIMED_OUT, 1, -0.6), (COMPILE, 0, -1.0),
     (NONE, 0, -1.0), (PASSED, 2, 1.0)],
)  # fmt: skip
def test_a_wrong_answer_earns_by_the_tests_it_passes(outcome: Outcome, passed: int, worth: float) -> None:
    # -0.3 + 1.3 passed / total; what crashes in a test earns nothing for those it passes.
    pay = rltf(adaptive=True)(Judged(written("a"), feedback(outcome, "a", passed=passed, total=2)))
    assert pay == [pytest.approx(worth)]


def test_no_tests_earn_nothing() -> None:
    assert rltf(adaptive=True)(Judged(written("a"), feedback(WRONG, "a", passed=0, total=0))) == [-0.3]


# --- RLTF: relative to a greedy response ------------------------------------------------------------------------------


class Greedy:
    """Judges a greedy response to each state as configured, and remembers the states."""

    def __init__(self, *feedback: Feedback) -> None:
        self.asked: list[list[State]] = []
        self._feedback = feedback

    def __call__(self, states: Sequence[State]) -> list[Feedback]:
        self.asked.append(list(states))
        return list(self._feedback)


def test_the_greedy_response_to_the_same_problem_is_taken_off() -> None:
    greedy = Greedy(feedback(WRONG, "a", passed=1, total=2), feedback(COMPILE, "a"))
    reward = rltf(greedy, relative=True, adaptive=True)
    rollouts = [written("a", name="p"), written("a", name="q"), written("a", name="p")]
    feedbacks = [feedback(PASSED, "a"), feedback(RUNTIME, "a"), feedback(COMPILE, "a")]
    judged = list(map(Judged, rollouts, feedbacks))
    metrics = reward.observe(judged)
    pays = [reward(each)[0] for each in judged]
    assert pays == pytest.approx([1 - 0.35, -0.6 + 1, -1 - 0.35])
    assert metrics["rltf/baseline_reward/mean"] == pytest.approx((0.35 - 1) / 2)
    assert metrics["rltf/outcome/mean"] == pytest.approx((1 - 0.6 - 1) / 3)


def test_one_response_a_problem_is_written_from_the_bare_prompt() -> None:
    greedy = Greedy(feedback(PASSED), feedback(PASSED))
    reward = rltf(greedy, relative=True)
    rollouts = [written("ab", prefix="a", name="p"), written("a", name="p"), written("a", name="q")]
    reward.observe([Judged(r, feedback(WRONG, r.response)) for r in rollouts])
    assert [[(s.problem.id, s.prefix, s.replayed_from) for s in states] for states in greedy.asked] == [
        [("p", (), None), ("q", (), None)]
    ]


def test_a_greedy_response_that_could_not_be_judged_takes_nothing_off() -> None:
    reward = rltf(Greedy(feedback(BROKEN)), relative=True)
    metrics = reward.observe([Judged(written("a"), feedback(WRONG, "a"))])
    assert reward(Judged(written("a"), feedback(WRONG, "a"))) == [-0.3]
    assert (metrics["rltf/baseline_error_frac"], metrics["rltf/baseline_reward/mean"]) == (1.0, 0.0)


def test_of_several_greedy_responses_one_that_could_not_be_judged_is_worth_what_the_others_are() -> None:
    reward = rltf(Greedy(feedback(BROKEN), feedback(WRONG, "a")), relative=True)
    rollouts = [written("a", name="p"), written("a", name="q")]
    metrics = reward.observe([Judged(r, feedback(WRONG, "a")) for r in rollouts])
    assert [reward(Judged(r, feedback(PASSED, "a")))[0] for r in rollouts] == pytest.approx([1.3, 1.3])
    assert metrics["rltf/baseline_reward/mean"] == pytest.approx(-0.3)


def test_without_it_nothing_more_is_written() -> None:
    greedy = Greedy()
    assert "rltf/baseline_reward/mean" not in rltf(greedy).observe([Judged(written("a"), feedback(WRONG, "a"))])
    assert greedy.asked == []


def test_the_penalty_of_the_greedy_response_is_not_taken_off() -> None:
    reward = rltf(Greedy(feedback(TIMED_OUT)), relative=True, penalty=0.3)
    reward.observe([Judged(written("a"), feedback(PASSED, "a"))])
    assert reward(Judged(written("a"), feedback(PASSED, "a"))) == [pytest.approx(1.6)]


def test_baselines_are_saved_and_restored() -> None:
    first, second = (rltf(Greedy(feedback(COMPILE)), relative=True) for _ in range(2))
    first.observe([Judged(written("a"), feedback(PASSED, "a"))])
    second.load_state_dict(first.state_dict())
    assert second(Judged(written("a"), feedback(PASSED, "a"))) == [2.0]


# --- RLTF: penalties --------------------------------------------------------------------------------------------------

DIVISION = {"line": 2, "error": "ZeroDivisionError"}


def penalties(prefix: str = "", outcome: Outcome = RUNTIME, response: str = CODE, **facts: Any) -> list[float]:
    """What each new token pays under a penalty of .3 for each; the outcome is worth nothing here."""
    reward = rltf(penalty=0.3, pay=Pay(passed=0.0, wrong_answer=0.0, runtime_error=0.0, compile_error=0.0))
    program = find_program(response)
    judged = feedback(outcome, program.source, program.start, **facts)
    return reward(Judged(written(response, prefix=prefix), judged))


def test_the_tokens_of_the_line_pay() -> None:
    assert penalties(**DIVISION) == [0.0] * 17 + [-0.3] * 9 + [0.0] * 10


def test_the_tokens_of_the_whole_program_pay() -> None:
    response = f"Try:\n```python\n{CODE}```\n"
    for outcome, facts in [(TIMED_OUT, {}), (RUNTIME, {"line": 2, "error": "RecursionError"}), (COMPILE, {"line": 3})]:
        assert penalties(outcome=outcome, response=response, **facts) == [0.0] * 15 + [-0.3] * 35 + [0.0] * 5


@pytest.mark.parametrize("outcome", [PASSED, WRONG])
def test_no_token_pays_where_nothing_is_to_blame(outcome: Outcome) -> None:
    assert set(penalties(outcome=outcome)) == {0.0}


def test_a_line_in_the_replayed_prefix_pays_nothing() -> None:
    assert penalties(prefix=CODE[:27], **DIVISION) == [0.0] * 9
    assert penalties(prefix=CODE[:5], line=1, error="ValueError") == [-0.3] * 11 + [0.0] * 20


def test_of_a_line_that_the_prefix_began_the_new_tokens_pay() -> None:
    assert penalties(prefix=CODE[:20], **DIVISION) == [-0.3] * 6 + [0.0] * 10


def test_a_penalty_may_be_shared_by_the_tokens_of_the_region() -> None:
    shared = rltf(penalty=0.3, penalty_on="region")
    pay = shared(Judged(written(CODE), feedback(RUNTIME, **DIVISION)))
    assert pay[17:26] == pytest.approx([-0.3 / 9] * 9)
    assert sum(pay) == pytest.approx(-0.6 - 0.3)


def test_the_shares_of_replayed_tokens_are_paid_by_no_one() -> None:
    shared = rltf(penalty=0.3, penalty_on="region")
    pay = shared(Judged(written(CODE, prefix=CODE[:20]), feedback(RUNTIME, **DIVISION)))
    assert sum(pay) == pytest.approx(-0.6 - 0.3 * 6 / 9)


def test_outcome_baseline_and_penalty_add_up_on_the_last_token() -> None:
    reward = rltf(Greedy(feedback(COMPILE)), relative=True, penalty=0.3)
    rollout = written("x = 1\ny = /")
    judged = feedback(COMPILE, rollout.response, line=2)
    reward.observe([Judged(rollout, judged)])
    assert reward(Judged(rollout, judged))[-2:] == pytest.approx([-0.3, -1.0 + 1.0 - 0.3])


def test_the_end_token_is_not_to_blame() -> None:
    pay = rltf(penalty=0.3)(Judged(written(CODE.strip(), end=True), feedback(TIMED_OUT, CODE.strip())))
    assert pay == pytest.approx([-0.3] * 35 + [-0.6])


def test_rltf_reports_what_it_blamed() -> None:
    rollouts = [written(CODE), written(CODE, prefix=CODE[:27]), written(CODE), written(CODE)]
    judged = [feedback(RUNTIME, line=1), feedback(RUNTIME, line=2), feedback(TIMED_OUT), feedback(WRONG)]
    metrics = rltf(penalty=0.3).observe(list(map(Judged, rollouts, judged)))
    assert metrics == {
        "rltf/located_frac": 0.5, "rltf/whole_frac": 0.25, "rltf/in_prefix_frac": 0.25,
        "rltf/outcome/mean": pytest.approx((-0.6 * 3 - 0.3) / 4),
    }  # fmt: skip


def test_rltf_refuses_a_negative_penalty() -> None:
    with pytest.raises(ValueError, match=r"penalty: expected a number >= 0, got -0\.3"):
        rltf(penalty=-0.3)
