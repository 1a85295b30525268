r"""MATH: where answers are read, which are equal, who is blamed when judging fails; the real data; training."""

import gzip
import json
import os
import random
import re
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

import rrl.parts.tasks.math
from rrl.cli import train
from rrl.config.check import load
from rrl.errors import ConfigError, DataError
from rrl.parts.tasks.math import MATH
from rrl.types import Example, Feedback, Problem, Rollout, State, Verdict
from rrl.verifiers.final_answers import final_answer, is_words, last_box, same_text
from rrl.verifiers.math_equality import _leaves_work, compare
from rrl.verifiers.math_verifier import MathVerifier

HERE = Path(__file__).resolve().parents[2]
LIMITS: dict[str, Any] = {
    "workers": 1, "seconds": 1.0, "patience": 60.0, "memory_mb": 1024, "max_characters": 1000
}  # fmt: skip


def make_task(judge: MathVerifier, path: object = None, answer_format: Any = "boxed") -> MATH:
    return MATH(
        path=None if path is None else str(path),
        hub_id="EleutherAI/hendrycks_math",
        math500_hub_id="HuggingFaceH4/MATH-500",
        answer_format=answer_format,
        judge=judge,
    )


def rollout(response: str, answer: str, finished: bool = True, question: str = "?") -> Rollout:
    example = Example("math/train/0", "Level 1", question, "", answer, {"subject": "algebra"})
    return Rollout(State(Problem(example, (), ())), (), (), (), finished, response, 0)


@pytest.fixture(scope="module")
def judge() -> Iterator[MathVerifier]:
    """One warm worker for all tests of this file."""
    made = MathVerifier(**LIMITS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def folder() -> Path:
    """The official problems, from $RRL_DATA or from shared/data beside the repository."""
    root = Path(os.environ.get("RRL_DATA", Path(__file__).parents[4] / "shared" / "data")) / "math"
    missing = [str(file) for file in (root / "train.jsonl.gz", root / "test.jsonl.gz") if not file.is_file()]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)}: set RRL_DATA to a folder with math/{{train,test}}.jsonl.gz")
    return root


@pytest.fixture(scope="module")
def examples(folder: Path) -> list[Example]:
    """Train, then test."""
    task = make_task(MathVerifier(**LIMITS), folder)
    return task.examples("train") + task.examples("test")


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


@pytest.mark.parametrize("text", ["\\boxed{" * 150_000, "{" * 200_000, "\\boxed{" + "x" * 10**6, "$" * 10**6])
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
    assert len(found[5].evidence["parsed"]) == 1000


# --- who is to blame --------------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class Fragile(MathVerifier):
    """A judge whose workers do what the texts say, see fixtures/math_worker.py."""

    module: ClassVar[str] = "fixtures.math_worker"


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fragile]:
    """Its workers."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    made = Fragile(**LIMITS | {"seconds": 0.2, "patience": 1.5, "memory_mb": 300})
    yield made
    made.close()


BLAME = [
    # what happens, as answer and as reference: verdict, outcome
    ("spin", ("unparseable", "time_out"), ("error", "time_out")),
    ("hog", ("unparseable", "memory"), ("error", "memory")),
    ("raise", ("unparseable", "raised"), ("error", "raised")),
    ("segv", ("unparseable", "crashed"), ("error", "crashed")),
    ("kill", ("error", "killed"), ("error", "killed")),
    ("sleep", ("error", "stalled"), ("error", "stalled")),
]


@pytest.mark.parametrize(("deed", "as_answer", "as_reference"), BLAME)
def test_an_answer_that_breaks_the_verifier_is_unparseable_and_other_failures_are_its_own(
    deed: str, as_answer: tuple[str, str], as_reference: tuple[str, str], fragile: Fragile
) -> None:
    found = fragile.judge([("1", "2"), (deed, "1"), ("1", deed)])
    told = [(f.verdict.value, f.evidence["outcome"]) for f in found]
    assert told == [("wrong", "different"), as_answer, as_reference]
    assert [f.score for f in found] == [0.0, 0.0, 0.0]
    assert ("error" in found[1].evidence) == (deed != "hog")


def test_a_canary_that_is_judged_wrongly_makes_the_whole_batch_an_error(
    fragile: Fragile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/always-equal")
    found = fragile.judge([("1", "2"), ("3", "3"), (None, "3")])
    assert [f.verdict for f in found] == [Verdict.ERROR] * 3
    assert {f.evidence["outcome"] for f in found} == {"canary"}
    assert "'0.6' against '\\\\frac{1}{2}' is different, but was found equal" in found[0].evidence["error"]
    assert len([r for r in caplog.records if "workers are replaced" in r.message]) == 2


def test_new_workers_may_judge_what_broken_ones_did_not(fragile: Fragile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/always-equal")
    fragile.begin([("1", "2")])
    fragile.ask("1", "1").result()
    monkeypatch.setenv("PATH", os.environ["PATH"].removesuffix(":/always-equal"))
    assert [f.verdict.value for f in fragile.judge([("1", "2"), ("1", "1")])] == ["wrong", "right"]


def test_workers_that_cannot_start_make_errors_and_no_exceptions(
    fragile: Fragile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/broken")
    found = fragile.judge([("1", "2")])
    assert (found[0].verdict, found[0].evidence["outcome"]) == (Verdict.ERROR, "canary")
    assert "does not start: ImportError" in found[0].evidence["error"]


def test_equal_pairs_are_judged_once_and_errors_are_tried_again(fragile: Fragile, tmp_path: Path) -> None:
    counter = f"count {tmp_path / 'asked'}"
    pairs = [(counter, "1")] * 5
    fragile.begin(pairs)
    assert len({id(fragile._asked(pair)) for pair in pairs}) == 1
    fragile.judge(pairs)
    assert [f.verdict for f in fragile.judge(pairs)] == [Verdict.WRONG] * 5  # a second time would have raised
    first, second = (fragile.judge([("1", "kill")])[0] for _ in range(2))
    assert first.verdict is second.verdict is Verdict.ERROR
    assert ("1", "kill") not in fragile._known


def test_an_empty_batch_starts_nothing(fragile: Fragile) -> None:
    assert fragile.judge([]) == []
    assert not fragile._pool._pool.workers


PATHOLOGICAL = [
    "9^{9^{9^9}}", "10^{10^{10}}", "(10^9)!", "{" * 10_000 + "5" + "}" * 10_000, r"\frac{1}{" * 10_000 + "}" * 10_000
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("answer", PATHOLOGICAL, ids=lambda text: text[:12])
def test_a_pathological_answer_costs_its_limit_and_is_never_right(answer: str) -> None:
    judge = MathVerifier(**LIMITS | {"max_characters": 10**9})
    found = judge.judge([(answer, "42"), ("0.50", r"\frac12")])
    judge.close()
    assert found[0].verdict in (Verdict.UNPARSEABLE, Verdict.WRONG)
    assert found[1].verdict is Verdict.RIGHT


def test_a_tower_of_powers_is_unparseable_and_the_next_answer_is_judged(judge: MathVerifier) -> None:
    found = judge.judge([("10^{10^{10}}", "42"), ("0.50", r"\frac12")])
    assert (found[0].verdict, found[0].evidence["outcome"]) == (Verdict.UNPARSEABLE, "time_out")
    assert found[1].verdict is Verdict.RIGHT


# --- the real data ----------------------------------------------------------------------------------------------------


def test_examples_are_the_files_rows_in_order(examples: list[Example]) -> None:
    assert len(examples) == 7498 + 5000
    first, last = examples[0], examples[-1]
    assert (first.id, first.level, first.strata) == ("math/train/algebra/0.json", "Level 5", {"subject": "algebra"})
    assert last.id.startswith("math/test/precalculus/")
    assert first.question.startswith(r"Let \[f(x)")
    assert first.answer == "0"
    assert first.reference.endswith(r"$a+b=-3+3=\boxed{0}$.")


def test_levels_and_subjects_are_the_official_ones(examples: list[Example]) -> None:
    test = examples[7498:]
    assert Counter(example.level for example in test) == {
        "Level 1": 437, "Level 2": 894, "Level 3": 1131, "Level 4": 1214, "Level 5": 1324
    }  # fmt: skip
    assert Counter(example.strata["subject"] for example in test) == {
        "algebra": 1187, "counting_and_probability": 474, "geometry": 479, "intermediate_algebra": 903,
        "number_theory": 540, "prealgebra": 871, "precalculus": 546,
    }  # fmt: skip
    unknown = [example.id for example in examples if example.level == "Level ?"]
    assert unknown == ["math/train/geometry/377.json", "math/train/geometry/471.json"]


def test_canonical_solutions_are_right_and_others_are_wrong(examples: list[Example], judge: MathVerifier) -> None:
    """150 of each, by chance; experiments/math/verifier.py has all of them."""
    sample = random.Random(7).sample(examples, 150)
    task = make_task(judge)
    own = task.verify([rollout(example.reference, example.answer) for example in sample])
    assert [f.verdict for f in own] == [Verdict.RIGHT] * 150
    others = [*sample[1:], sample[0]]
    found = task.verify([rollout(one.reference, two.answer) for one, two in zip(sample, others, strict=True)])
    right = [(f.evidence["parsed"], f.evidence["expected"]) for f in found if f.solved]
    assert all(one.strip() == two.strip() for one, two in right)
    assert Counter(f.verdict.value for f in found) == {"wrong": 150 - len(right), "right": len(right)}
    assert len(right) < 8


@pytest.mark.slow
def test_every_canonical_solution_is_right(examples: list[Example], judge: MathVerifier) -> None:
    found = make_task(judge).verify([rollout(example.reference, example.answer) for example in examples])
    assert Counter(f.verdict for f in found) == {Verdict.RIGHT: 12_498}


# --- files, hub, splits -----------------------------------------------------------------------------------------------

ROW = {"problem": "P", "level": "Level 3", "type": "Counting & Probability", "solution": r"So \boxed{4}."}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.parent


def test_rows_need_no_unique_id(tmp_path: Path, judge: MathVerifier) -> None:
    example = make_task(judge, write(tmp_path / "test.jsonl", ROW)).examples("test")[0]
    assert example == Example(
        "math/test/0", "Level 3", "P", r"So \boxed{4}.", "4", {"subject": "counting_and_probability"}
    )


def test_a_problem_with_an_empty_box_is_left_out_and_told(
    tmp_path: Path, judge: MathVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [ROW, {**ROW, "solution": r"so there are $\boxed{}$ primes.", "unique_id": "train/number_theory/7115.json"}]
    examples = make_task(judge, write(tmp_path / "train.jsonl", *rows)).examples("train")
    assert [example.id for example in examples] == ["math/train/0"]
    assert "1 problems have no final answer and are left out: math/train/number_theory/7115.json" in caplog.text


def test_math500_is_a_split_of_its_own_with_its_own_fields(tmp_path: Path, judge: MathVerifier) -> None:
    row = {
        "problem": "P", "solution": r"\boxed{4}", "answer": "4", "subject": "Number Theory", "level": 2,
        "unique_id": "test/number_theory/5.json",
    }  # fmt: skip
    example = make_task(judge, write(tmp_path / "math500.jsonl", row)).examples("math500")[0]
    assert (example.id, example.level) == ("math/test/number_theory/5.json", "Level 2")
    assert (example.answer, example.strata) == ("4", {"subject": "number_theory"})


def test_the_hub_has_seven_subjects_that_are_joined_in_order(
    judge: MathVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def load_split(path: None, *, hub_id: str, hub_config: str | None, split: str, fields: Any) -> list[Any]:
        asked.append((hub_id, hub_config, split))
        return [{**ROW, "problem": str(hub_config), "answer": "4", "subject": "Algebra", "unique_id": "u", "level": 1}]

    monkeypatch.setattr(rrl.parts.tasks.math, "load_split", load_split)
    task = make_task(judge)
    assert [example.question for example in task.examples("train")] == list(rrl.parts.tasks.math.SUBJECTS)
    assert {(hub, split) for hub, _, split in asked} == {("EleutherAI/hendrycks_math", "train")}
    task.examples("math500")
    assert asked[-1] == ("HuggingFaceH4/MATH-500", None, "test")


def test_a_wrong_split_is_told_with_the_known_ones(judge: MathVerifier) -> None:
    with pytest.raises(ConfigError, match=r"evaluation.split: .*'validation'; expected one of train, test, math500"):
        make_task(judge).examples("validation")


def test_data_that_is_not_math_is_refused(tmp_path: Path, judge: MathVerifier) -> None:
    folder = write(tmp_path / "train.jsonl", {**ROW, "solution": "4"}, {**ROW, "solution": "5"})
    with pytest.raises(DataError, match=r"train: none of 2 solutions ends in a box"):
        make_task(judge, folder).examples("train")
    write(tmp_path / "test.jsonl", {"problem": "P", "solution": "S"})
    with pytest.raises(DataError, match=r"(?s)field 'level' is missing.*field 'type' is missing"):
        make_task(judge, folder).examples("test")


def test_demonstrations_are_shuffled_training_problems(tmp_path: Path, judge: MathVerifier) -> None:
    folder = write(tmp_path / "train.jsonl", *({**ROW, "problem": str(i)} for i in range(6)))
    task = make_task(judge, folder)
    many = [example.question for example in task.demonstrations(12, seed=3)]
    assert [sorted(part) for part in (many[:6], many[6:])] == [list("012345")] * 2
    assert many[:6] != many[6:]
    assert task.vocabulary() is None


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("task.answer_format=loose", "task.answer_format: expected 'boxed' | 'flexible', got 'loose'"),
        ("task.judge.workers=0", "task.judge.workers: expected at least 1 or null, got 0"),
        ("task.judge.seconds=0", "task.judge.seconds, patience: expected 0 < seconds <= patience, got 0"),
        ("task.judge.max_characters=0", "task.judge.max_characters: expected at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_key(key: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("train", ["task=math", key])
    assert told in str(caught.value)


def test_the_yaml_states_every_field() -> None:
    stated = yaml.safe_load((HERE.parent / "conf/task/math.yaml").read_text(encoding="utf-8"))["task"]
    assert stated.pop("_target_") == "rrl.parts.tasks.math.MATH"
    assert {*stated, "path"} == MATH.__dataclass_fields__.keys()  # the path is data.path
    assert stated["judge"].keys() - {"_target_"} == {f.name for f in fields(MathVerifier) if f.init}


def test_the_documented_defaults_are_those_of_the_yaml() -> None:
    stated = yaml.safe_load((HERE.parent / "conf/task/math.yaml").read_text(encoding="utf-8"))["task"]
    leaves = {f"task.{key}": value for key, value in stated.items()}
    leaves |= {f"task.judge.{key}": value for key, value in leaves.pop("task.judge").items()}
    text = (HERE.parent / "docs" / "math.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(task\.[\w.]+)` \|.*\| `([^`]+)` \|$", text, re.MULTILINE)
    expected = {key: value for key, value in leaves.items() if not key.endswith("_target_")}
    assert {key: yaml.safe_load(value) for key, value in told} == expected


# --- training ---------------------------------------------------------------------------------------------------------

RUN = {
    "task": "math", "algo": "rrl", "model": "tiny", "run.test_freq": "null", "run.rollout_freq": 1,
    "model.hidden_size": 16, "model.num_hidden_layers": 1,
    "warmstart.steps": 1, "warmstart.batch_size": 4,
    "data.max_prompt_length": 160, "data.max_response_length": 40, "data.level_weights": "{Level 4: 1, Level 5: 2}",
    "trainer.train_batch_size": 6, "trainer.ppo_mini_batch_size": 6, "trainer.critic_warmup": 0,
    "trainer.total_tokens": "null", "trainer.total_training_steps": 1, "evaluation.limit": 7, "evaluation.n": 0,
    "task.judge.workers": 1,
}  # fmt: skip


def test_a_step_of_replay_on_real_problems(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):  # every 25th problem: all levels and subjects
        rows = gzip.decompress((folder / f"{split}.jsonl.gz").read_bytes()).decode().split("\n")[::25]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    places = {"data.path": tmp_path, "run.dir": tmp_path / "run"}
    train._train([f"{key}={value}" for key, value in {**RUN, **places}.items()])
    step = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert sum(step[f"verdict/{v.value}"] for v in Verdict) == pytest.approx(1.0)
    assert step["verdict/error"] == 0
    assert step["data/level_share/Level 4"] + step["data/level_share/Level 5"] == pytest.approx(1.0)
    subjects = {name for name in step if name.startswith("val/math/subject:")}
    assert len(subjects) >= 5
    assert "val/math/Level 5/acc/greedy" in step
    dump = (tmp_path / "run" / "rollouts" / "step-000001.jsonl").read_text().splitlines()
    assert json.loads(dump[0])["problem"]["strata"].keys() == {"subject"}


def test_judging_begins_while_other_rollouts_are_being_written(judge: MathVerifier) -> None:
    task = make_task(judge)
    batch = [rollout(r"\boxed{0.125}", r"\frac18"), rollout(r"\boxed{2}", "2"), rollout("", "3")]
    task.begin(batch)
    future = judge._known["0.125", r"\frac18"]
    assert set(judge._known) & {("2", "2"), (None, "3")} == set()
    assert isinstance(task.verify(batch)[0], Feedback)
    assert judge._known["0.125", r"\frac18"] is future
