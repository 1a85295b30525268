"""MATH: where answers are read, and which are equal."""

import tracemalloc

import pytest

from fixtures.math_task import judge, make_task, rollout
from rrl.types import Verdict
from rrl.verifiers.final_answers import final_answer, form, is_words, last_box, same_text
from rrl.verifiers.math_equality import _leaves_work, compare
from rrl.verifiers.math_verifier import MathVerifier

__all__ = ["judge"]

pytestmark = pytest.mark.process


# --- where an answer stands -------------------------------------------------------------------------------------------

BOXES = [
    (r"so $x = \boxed{5}$.", "5"),
    (r"\boxed{3} and then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\text{a } \{x\} \frac{\sqrt{2}}{3}} is it", r"\text{a } \{x\} \frac{\sqrt{2}}{3}"),
    (r"\fbox{7}", "7"),
    (r"\boxed {7}", "7"),
    (r"it follows that $x^2 + y^2 = \boxed 9$.", "9"),
    (r"\boxed{\boxed{8}}", "8"),
    (r"\boxed{4} or \boxed{5", "4"),  # cut off within the second box
    (r"\boxed{\left\{ 1, 2 \right\}}", r"\left\{ 1, 2 \right\}"),
    (r"\boxed{1 \\ 2}", r"1 \\ 2"),
    (r"\boxed{}", None),
    (r"\boxed{3} but no: \boxed{ }", None),
    (r"\boxed{5", None),
    (r"\boxed", None),
    ("the answer is 5", None),
    ("", None),
]


@pytest.mark.parametrize(("response", "answer"), BOXES)
def test_the_last_complete_box_is_the_answer(response: str, answer: str | None) -> None:
    assert final_answer(response, "boxed") == answer
    if answer is not None:
        assert final_answer(response, "flexible") == answer


FLEXIBLE = [
    ("The answer is 5.", "5"),
    ("The answer is: $\\frac{1}{2}$. It took $3$ steps.", r"\frac{1}{2}"),
    ("Answer: -3/4, as we saw", "-3/4"),
    ("The final answer is \\(x^2\\), since 5 is odd", "x^2"),
    ("the answer is **12**", "12"),
    ("The answer is 3. No, the answer is 4", "4"),
    ("The answer is odd.", "odd"),
    ("The answers are $1$ or $2$", "1"),
    ("So $a = 3$ and therefore $b = 4$.", "b = 4"),
    (r"Thus \[x = 7.\]", "x = 7."),
    ("she has 1,234 left", "1,234"),
    ("20% of it is 30%", "30%"),
    ("the ratio is 1/2", "1/2"),
    ("I do not know", None),
]


@pytest.mark.parametrize(("response", "answer"), FLEXIBLE)
def test_without_a_box_a_flexible_reader_takes_the_most_explicit_place(response: str, answer: str | None) -> None:
    assert final_answer(response, "flexible") == answer
    assert final_answer(response, "boxed") is None


def test_boxes_in_boxes_cost_no_more_than_their_length() -> None:
    tracemalloc.start()
    found, (_, peak) = last_box("\\boxed{" * 20_000 + "7" + "}" * 20_000), tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == "7"
    assert peak < 20 * 2**20  # bytes; the contents of all boxes together have 1.6 GB


@pytest.mark.parametrize("text", ["\\boxed{" * 50_000, "{" * 100_000, "\\boxed{" + "x" * 10**6, "$" * 10**6])
def test_huge_responses_are_read_in_one_pass(text: str) -> None:
    assert last_box(text) is None
    assert final_answer(text + "\\boxed{5}", "flexible") == "5"


# --- what is equal ----------------------------------------------------------------------------------------------------

SAME_TEXT = [
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"\left( 1, 2 \right)", "(1,2)"),
    (r"x^2 + 1.", "x^2+1"),
    (r"10{,}000", r"10,\!000"),
    (r"5 \text{ cm}", r"5\mbox{cm}"),
    (r"\textbf{(B)}", r"\text{B}"),
    ("(b)", r"\text{(B)}"),
    ("Odd", r"\text{odd}"),
    ("june 20", r"\text{June 20}"),
    ("8:34", r"8\!:\!34 \text{ p.m.}"),
    ("5:00", r"05\!:\!00"),
]


@pytest.mark.parametrize(("answer", "expected"), SAME_TEXT)
def test_setting_does_not_matter(answer: str, expected: str) -> None:
    assert same_text(answer, expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("", ""), ("5", "-5"), ("x", "X"), ("12", "1,2"), ("BCAD", "CBAD"), ("8:34 a.m.", "8:34 p.m."), (".", ".")],
)
def test_what_is_not_the_same_text_is_not(answer: str, expected: str) -> None:
    assert not same_text(answer, expected)


def test_words_and_times_are_no_formulas() -> None:
    words = [r"\text{odd}", "CBAD", r"(\text{H})", "D, E", r"\text{A,B}", "9:24", r"\text{4:30 p.m.}"]
    formulas = ["x", "B", "ab", r"\text{13}", r"5 \text{ cm}", "1:2", "19:60", r"\sin x", r"\frac{1}{N+1}"]
    formulas += [r"\text{A5}_{11}"]
    assert [text for text in words + formulas if is_words(text)] == words


WORK = [
    r"\binom{10}{3}",
    "10!",
    "2+3",
    r"\max(5,6)",
    "32^2-18^2",
    r"\frac12+\frac13",
    r"\sin 30^\circ",
    r"(2+3)\cdot 4",
]
DONE = ["-3", "1/2", r"3\sqrt{2}-2", "3-2i", r"1\frac12", r"3 \times 10^5", r"2^{10}", "x+1", "(2,3)", r"\pi+2", "(-1)"]


def test_an_answer_that_leaves_the_work_to_be_done_is_known() -> None:
    assert [text for text in WORK + DONE if _leaves_work(text)] == WORK


@pytest.mark.parametrize(("answer", "expected"), [(r"\binom{10}{3}", "120"), ("10!", "3628800"), ("2+3", "5")])
def test_copying_what_is_to_be_computed_is_no_answer(answer: str, expected: str) -> None:
    assert compare(answer, expected, lambda phase: None) == "different"
    assert compare(answer, f"{answer} ", lambda phase: None) == "equal"


RIGHT, WRONG, UNPARSEABLE = "right", "wrong", "unparseable"
PAIRS = [
    # answer, reference, verdict
    ("0.5", r"\frac{1}{2}", RIGHT),
    ("1/2", r"\frac12", RIGHT),
    (r"\frac{2}{4}", r"\dfrac{1}{2}", RIGHT),
    ("0.333333", r"\frac{1}{3}", RIGHT),
    ("0.3333", r"\frac{1}{3}", WRONG),
    (r"-\frac{1}{2}", r"\frac{1}{2}", WRONG),
    (r"3\frac{1}{2}", r"\frac{7}{2}", RIGHT),
    ("3.5", r"3\frac{1}{2}", RIGHT),
    ("1000", "1,000", RIGHT),
    (r"\frac{4}{1841.666}", r"\frac{12}{5,\!525}", WRONG),
    (r"\frac{24}{11050}", r"\frac{12}{5,\!525}", RIGHT),
    (r"2\sqrt{2}", r"\sqrt{8}", RIGHT),
    (r"\frac{\sqrt2}{2}", r"\frac{1}{\sqrt{2}}", RIGHT),
    (r"\sqrt{8}", "2.83", WRONG),
    ("(x+1)^2", "x^2+2x+1", RIGHT),
    ("x^2+2x", "x^2+2x+1", WRONG),
    ("c + b + a", "a + b + c", RIGHT),
    ("a + b", "a + b + c", WRONG),
    (r"(\sin t)^2", r"\sin^2 t", RIGHT),
    (r"\frac{\pi}{2} + 2007", r"2007 + \frac\pi 2", RIGHT),
    ("6i - 3", "-3 + 6i", RIGHT),
    ("6 i - 3", "-3 + 6i", RIGHT),
    ("(1+2i)^2", "-3 + 4i", RIGHT),
    ("6i + 3", "-3 + 6i", WRONG),
    # sets, tuples, intervals
    ("2, 1", "1,2", RIGHT),
    (r"\{2, 1\}", "1,2", RIGHT),
    (r"1 \text{ and } 2", "1,2", RIGHT),
    ("10, 8, 6", r"6, 8\text{, and }10", RIGHT),
    (r"x = 1 \text{ or } x = 2", "1,2", RIGHT),
    ("4, 3, 2", r"2, 3, \text{ and } 4", RIGHT),
    ("1,2,3", "1,2", WRONG),
    ("2,1,1", "2,2,1", WRONG),
    ("2,2,1", "2,1,1", WRONG),
    (r"\pm 3", "3,-3", RIGHT),
    ("(2,1)", "(1,2)", WRONG),
    (r"\left(1, 0.5\right)", r"(1, \frac{1}{2})", RIGHT),
    ("x = 1, y = 2", "(1,2)", RIGHT),
    ("(x,y) = (1,2)", "(1,2)", RIGHT),
    ("[1,2)", "[1,2)", RIGHT),
    ("[1,2]", "[1,2)", WRONG),
    ("[1,2]", "(1,2)", WRONG),
    (r"x \in [1, 2]", "[1,2]", RIGHT),
    (r"(-\infty, 1) \cup (2, \infty)", r"(-\infty,1)\cup(2,\infty)", RIGHT),
    (r"(2, \infty) \cup (-\infty, 1)", r"(-\infty,1)\cup(2,\infty)", RIGHT),
    (r"(-\infty, 1]", r"(-\infty,1)", WRONG),
    (r"(-\infty, 3)", "x < 3", RIGHT),
    ("x < 3", r"(-\infty, 3)", RIGHT),
    ("x < 3", r"(-\infty, 3]", WRONG),
    ("3 > x", "x < 3", RIGHT),
    ("x > 3, x < 2", r"(-\infty, 2) \cup (3, \infty)", RIGHT),
    ("x < 3, x > 2", r"(-\infty, 3) \cup (2, \infty)", WRONG),  # which may mean both at once
    (r"x \ne 2, x \ne -1", r"(-\infty, -1) \cup (-1, 2) \cup (2, \infty)", RIGHT),
    # matrices
    (r"\begin{bmatrix} 1 \\ 0.5 \end{bmatrix}", r"\begin{pmatrix} 1 \\ 1/2 \end{pmatrix}", RIGHT),
    (r"\begin{pmatrix} 0.5 \\ 1 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 1/2 \end{pmatrix}", WRONG),
    (
        r"\begin{pmatrix} 1 & -1 \\ 1 & 1 \end{pmatrix}",
        r"\begin{pmatrix} 1 & -1 \\ 1 & \phantom -1 \end{pmatrix}",
        RIGHT,
    ),
    # units, degrees, percent, money, bases
    ("5", r"5 \text{ cm}", RIGHT),
    (r"5\text{ cm}", "5", RIGHT),
    (r"6\text{ cm}", "5", WRONG),
    (r"5\text{ m}", r"5\text{ cm}", WRONG),
    ("5 m", "5", RIGHT),
    ("2", "2s", WRONG),
    ("4", "4t", WRONG),
    ("90", r"90^\circ", RIGHT),
    (r"\$32", "32.00", RIGHT),
    ("17", r"17\%", RIGHT),
    ("0.17", r"17\%", RIGHT),
    (r"25\%", "0.25", RIGHT),
    (r"1700\%", r"17\%", WRONG),
    ("18", r"17\%", WRONG),
    ("56", r"0.56 = 56\%", RIGHT),
    ("2516", "2516_8", RIGHT),
    (r"2516_{8}", "2516_8", RIGHT),
    ("2516_9", "2516_8", WRONG),
    ("10_2", "10", WRONG),
    ("2:4", "1:2", RIGHT),
    ("2:5", "1:2", WRONG),
    (r"\frac{19}{60}", "19:60", RIGHT),
    # equations
    ("x = 5", "5", RIGHT),
    ("AB = 5", "5", RIGHT),
    (r"\angle ABC = 30^\circ", "30", RIGHT),
    ("2 + 3 = 5", "5", RIGHT),
    ("x = y = 5", "5", RIGHT),
    ("5", "x = 5", RIGHT),
    ("x^2 + y^2 = 13", "13", WRONG),
    ("20x + 23y - 69 = 0", "0", WRONG),
    ("y - 2x = 1", "y = 2x + 1", RIGHT),
    ("y - 2x = 2", "y = 2x + 1", WRONG),
    ("x^2 + 2 = 0", "x^2 + 1 = 0", WRONG),
    # words and letters
    (r"\text{even}", r"\text{odd}", WRONG),
    ("C", r"\text{(B)}", WRONG),
    ("XSQL", "LQSX", WRONG),
    ("dc", "CD", WRONG),
    ("b", "B", RIGHT),
    # nothing to read
    ("+", "5", UNPARSEABLE),
    (r"\frac{1}{", "5", UNPARSEABLE),
    ("))((", "5", UNPARSEABLE),
    (r"))(( \text{ cm}", "))((", WRONG),  # not even when nothing but the unit is another
]


def test_pairs_worked_by_hand(judge: MathVerifier) -> None:
    found = judge.judge([(answer, expected) for answer, expected, _ in PAIRS])
    wrongly = [
        (answer, expected, f.verdict.value, f.evidence["outcome"])
        for (answer, expected, verdict), f in zip(PAIRS, found, strict=True)
        if f.verdict.value != verdict
    ]
    assert not wrongly
    assert all(f.score == float(f.verdict is Verdict.RIGHT) for f in found)


COPIES = [
    # the question, an answer, the reference, and whether the answer is right
    ("Compute $95^2$.", "95^2", "9025", False),
    ("Compute $95^2$.", "9025", "9025", True),
    ("Compute $95^2$.", r"25 \cdot 361", "9025", False),
    (r"Simplify \[\sqrt{720}.\]", r"\sqrt{720}", r"12\sqrt5", False),
    (r"Simplify \(x\) where $x = \sqrt{720}$", r"\sqrt{720}", r"12\sqrt5", True),
    ("Factor $t^2-49$.", "t^2 - 49", "(t-7)(t+7)", False),
    ("Factor $t^2-49$.", "(t+7)(t-7)", "(t-7)(t+7)", True),
    ("What is $x$ if $x = 16^{7/4}$, that is, $16^{7/4}$?", "x = 16^{7/4}", "128", False),
    ("The root $x = 4$ is known.", "x = 4", "4", True),
    (r"One of $\frac12$ and $0.6$ is right.", r"\frac12", r"\frac{1}{2}", True),
    (r"Write $0.\overline{54}$ as a fraction.", r"0.\overline{54}", r"\frac{6}{11}", False),
]


def test_a_formula_of_the_question_is_no_answer_to_it(judge: MathVerifier) -> None:
    asked = [rollout(rf"\boxed{{{answer}}}", expected, question=question) for question, answer, expected, _ in COPIES]
    found = make_task(judge).verify(asked)
    assert [item.solved for item in found] == [right for *_, right in COPIES]
    assert [item.evidence["outcome"] for item in found].count("copied") == 5


def test_a_verdict_comes_with_evidence(judge: MathVerifier) -> None:
    responses = [r"\boxed{0.5}", r"\boxed{\frac12}", r"\boxed{2}", "none", r"\boxed{))}", r"\boxed{" + "1" * 2000 + "}"]
    found = make_task(judge).verify([rollout(text, r"\frac12") for text in responses])
    assert [(f.verdict.value, f.evidence["outcome"]) for f in found] == [
        ("right", "equal"),
        ("right", "same_text"),
        ("wrong", "different"),
        ("unparseable", "no_answer"),
        ("unparseable", "unreadable"),
        ("unparseable", "too_long"),
    ]
    assert found[0].evidence == {"parsed": "0.5", "expected": r"\frac12", "outcome": "equal"}
    (set_apart,) = make_task(judge).verify([rollout(r"\boxed{ \dfrac{1}{2} }", "3")])
    assert set_apart.evidence["form"] == form(r"\frac {1}{2}") != form("0.5")
    assert len(found[5].evidence["parsed"]) == 1000
