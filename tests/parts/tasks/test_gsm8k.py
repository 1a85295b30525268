"""GSM8K's verifier: every canonical answer of the real data, and a table of the ways models write numbers."""

import json
import os
import random
import re
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

import rrl.parts.tasks.gsm8k
from rrl.errors import DataError
from rrl.parts.tasks.gsm8k import GSM8K
from rrl.types import Example, Problem, Rollout, State, Verdict

TRAIN, TEST = 7473, 1319


@pytest.fixture(scope="module")
def folder() -> Path:
    """The official files, from $RRL_DATA or from shared/data beside the repository."""
    root = Path(os.environ.get("RRL_DATA", Path(__file__).parents[4] / "shared" / "data"))
    missing = [str(file) for file in (root / "gsm8k/train.jsonl", root / "gsm8k/test.jsonl") if not file.is_file()]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)}: set RRL_DATA to a folder that holds gsm8k/{{train,test}}.jsonl")
    return root / "gsm8k"


@pytest.fixture(scope="module")
def solutions(folder: Path) -> list[str]:
    """All 8,792 official solutions, read without the code under test."""
    lines = [line for split in ("train", "test") for line in (folder / f"{split}.jsonl").read_bytes().split(b"\n")]
    return [json.loads(line)["answer"] for line in lines if line]


@pytest.fixture(scope="module")
def examples(folder: Path) -> list[Example]:
    """Train, then test, without annotations."""
    return task(folder).examples("train") + task(folder).examples("test")


def task(path: object = None, *, annotations: bool = False, answer_format: str = "flexible") -> GSM8K:
    return GSM8K(
        path=None if path is None else str(path),
        hub_id="openai/gsm8k:main",
        calculator_annotations=annotations,
        answer_format=answer_format,  # type: ignore[arg-type]
    )


def rollout(response: str, example: Example | str, finished: bool = True) -> Rollout:
    if isinstance(example, str):
        example = Example(id="gsm8k/train/0", level="steps1-2", question="?", reference="", answer=example)
    state = State(Problem(example, (), ()))
    return Rollout(state, actions=(), logprobs=(), kept=(), finished=finished, response=response, version=0)


def verdict(response: str, answer: str, answer_format: str = "flexible") -> str:
    return task(answer_format=answer_format).verify([rollout(response, answer)])[0].verdict.value


def number(solution: str) -> Decimal:
    return Decimal(solution.split("\n")[-1].removeprefix("#### ").replace(",", ""))


def write(folder: Path, *answers: str) -> Path:
    rows = [json.dumps({"question": f"Q{i}", "answer": answer}) for i, answer in enumerate(answers)]
    (folder / "train.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


# The real data


@pytest.mark.parametrize(("every", "count"), [(24, 367), pytest.param(1, TRAIN + TEST, marks=pytest.mark.slow)])
@pytest.mark.parametrize("answer_format", ["strict", "flexible"])
def test_every_canonical_solution_is_right_about_its_own_problem(
    examples: list[Example], solutions: list[str], answer_format: str, every: int, count: int
) -> None:
    gsm8k = task(answer_format=answer_format)
    chosen = list(zip(solutions, examples, strict=True))[::every]
    plain = gsm8k.verify([rollout(example.reference, example) for _, example in chosen])
    annotated = gsm8k.verify([rollout(text, example) for text, example in chosen])
    assert Counter((item.verdict, item.score) for item in plain) == {(Verdict.RIGHT, 1.0): count}
    assert Counter((item.verdict, item.score) for item in annotated) == {(Verdict.RIGHT, 1.0): count}


# ``equal``: how many problems share their number with the one ``shift`` further, counted on the raw files.
@pytest.mark.parametrize(
    ("first", "shift", "equal"),
    [(TRAIN, 1, 15), *(pytest.param(0, *case, marks=pytest.mark.slow) for case in ((1, 90), (17, 77), (1000, 80)))],
)
def test_another_problems_solution_is_wrong_unless_the_numbers_agree(
    examples: list[Example], solutions: list[str], first: int, shift: int, equal: int
) -> None:
    own = solutions[first:]
    others = own[shift:] + own[:shift]
    feedback = task().verify([rollout(other, each) for other, each in zip(others, examples[first:], strict=True)])
    agree = [number(other) == number(mine) for other, mine in zip(others, own, strict=True)]
    assert [item.verdict for item in feedback] == [Verdict.RIGHT if same else Verdict.WRONG for same in agree]
    assert [item.score for item in feedback] == [float(same) for same in agree]
    assert sum(agree) == equal


@pytest.mark.parametrize(
    ("first", "every", "count"), [(TRAIN, 4, 330), pytest.param(0, 1, TRAIN + TEST, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "ending", ["The answer is ${}.", r"So \[\boxed{{\${}}}\] dollars.", "**Answer:** {}", "This makes {} in all."]
)
def test_other_endings_are_right_when_flexible_and_unparseable_when_strict(
    solutions: list[str], ending: str, first: int, every: int, count: int
) -> None:
    own = solutions[first::every]
    texts = [re.sub("#### (.+)$", lambda found: ending.format(found[1]), solution) for solution in own]
    rollouts = [rollout(text, str(number(solution))) for text, solution in zip(texts, own, strict=True)]
    flexible = Counter(item.verdict for item in task().verify(rollouts))
    strict = Counter(item.verdict for item in task(answer_format="strict").verify(rollouts[-TEST:]))
    assert flexible == {Verdict.RIGHT: count}
    assert strict == {Verdict.UNPARSEABLE: min(count, TEST)}


def test_examples_are_the_files_rows_in_order(examples: list[Example]) -> None:
    rows = ["train/17", "train/7472", "test/0", "test/1318"]
    assert [examples[i].id for i in (17, TRAIN - 1, TRAIN, -1)] == [f"gsm8k/{row}" for row in rows]
    assert examples[0].question.startswith("Natalia sold clips to 48 of her friends in April")
    assert examples[0].answer == "72"


def test_references_are_the_solutions_with_or_without_annotations(
    folder: Path, examples: list[Example], solutions: list[str]
) -> None:
    annotated = task(folder, annotations=True)
    assert [example.reference for example in annotated.examples("test")] == solutions[TRAIN:]
    assert examples[0].reference == (
        "Natalia sold 48/2 = 24 clips in May.\nNatalia sold 48+24 = 72 clips altogether in April and May.\n#### 72"
    )
    stripped = ["".join(part.split(">>")[-1] for part in solution.split("<<")) for solution in solutions]
    assert [example.reference for example in examples] == stripped


def test_levels_are_buckets_of_solution_steps(examples: list[Example]) -> None:
    train, test = (Counter(example.level for example in part) for part in (examples[:TRAIN], examples[TRAIN:]))
    assert train == {"steps1-2": 2602, "steps3-4": 3602, "steps5+": 1269}
    assert test == {"steps1-2": 427, "steps3-4": 662, "steps5+": 230}


# The verifier, by hand

NUMBERS = [
    ("#### 18", "18", "right"),
    ("#### 18", "81", "wrong"),
    ("####18", "18", "right"),
    ("#### 18\n", "18", "right"),
    ("#### 18.", "18", "right"),
    ("#### 18,", "18", "right"),
    ("#### 18.00", "18", "right"),
    ("#### 018", "18", "right"),
    ("#### 18.000000000000000000001", "18", "wrong"),
    ("#### 9007199254740993", "9007199254740992", "wrong"),  # equal as floats
    ("#### 0.1", "1/10", "right"),  # not equal as float and fraction
    ("#### 1,234", "1234", "right"),
    ("#### 1234", "1,234", "right"),
    ("#### 1,234,567", "1234567", "right"),
    ("#### 1,000.50", "1000.5", "right"),
    ("#### 1{,}234", "1234", "right"),
    (r"#### 1,\!234", "1234", "right"),
    (r"#### 1\,234", "1234", "right"),
    ("#### 12,34", "1234", "unparseable"),
    ("#### 1,2", "12", "unparseable"),
    ("#### 0,500", "500", "unparseable"),
    ("#### 1.2.3", "1.2", "unparseable"),
    ("#### -5", "-5", "right"),
    ("#### -5", "5", "wrong"),
    ("#### 5", "-5", "wrong"),
    ("#### +5", "5", "right"),
    ("#### −5", "-5", "right"),
    ("#### –5", "-5", "right"),
    ("#### $18", "18", "right"),
    ("#### -$18", "-18", "right"),
    ("#### $-18", "-18", "right"),
    ("#### €18", "18", "right"),
    ("#### 18 dollars", "18", "right"),
    ("#### 18kg", "18", "right"),
    ("#### 25%", "25", "right"),
    ("#### 25%", "0.25", "wrong"),
    ("#### 18 (3*6=18)", "18", "right"),
    ("#### **18**", "18", "right"),
    ("#### 1/2", "0.5", "right"),
    ("#### -1/2", "-0.5", "right"),
    ("#### 36 / 2", "18", "right"),
    ("#### .5", "1/2", "right"),
    ("#### 1,500/1,000", "1.5", "right"),
    ("#### 5e3", "5000", "right"),
    ("#### 5/0", "5", "unparseable"),
    ("#### 1e99", "1e99", "right"),
    ("#### 1e100", "1", "unparseable"),
    ("#### 1e999999999", "1", "unparseable"),
    ("#### 1e-999999999", "1", "unparseable"),
    ("#### ١٨", "18", "unparseable"),
    ("#### 1８", "1", "unparseable"),
    ("#### eighteen", "18", "unparseable"),
    ("####", "18", "unparseable"),
    ("", "18", "unparseable"),
]


@pytest.mark.parametrize(("response", "answer", "expected"), NUMBERS)
def test_numbers_are_compared_exactly_however_they_are_written(response: str, answer: str, expected: str) -> None:
    assert verdict(response, answer, "strict") == expected
    assert verdict(response, answer, "flexible") == expected


PLACES = [
    # response, number read when strict, number read when flexible
    ("#### 3\n#### 18", "18", "18"),
    ("#### 18\nThat is 3 + 15, so the answer is 4 and \\boxed{5}.", "18", "18"),
    ("#### 18\n\n#### Notes\nNone.", "18", "18"),
    ("#### 1. Count\n3\n#### 2. **Add**\nWe get \\boxed{18}.", None, "18"),
    ("#### Step 2: add\n15 + 3 = 18", None, "18"),
    ("#### 5 + 13 = 18", None, "18"),
    ("#### 3 * (6) = 18", None, "18"),
    ("#### 5 apples + 13 apples = 18", None, "18"),
    ("#### 1\\frac{1}{2} or 18", None, "18"),
    (r"\boxed{18}", None, "18"),
    (r"\boxed{3} and \boxed{18} make 7", None, "18"),
    (r"\boxed 18", None, "18"),
    (r"\boxed{\$1,234}", None, "1234"),
    (r"\boxed{18\text{ dollars}}", None, "18"),
    (r"\boxed{\text{18 dollars}}", None, "18"),
    (r"\boxed{-18\%}", None, "-18"),
    (r"\boxed{-\$18} after 2 hours", None, "-18"),
    (r"\boxed{\frac{1}{2}} of 3", None, "1/2"),
    (r"\boxed{\dfrac{36}{2}}", None, "18"),
    (r"\boxed{-\frac{1}{2}} of 3", None, "-1/2"),
    (r"The answer is 3, no: \boxed{18}", None, "18"),
    ("The answer is 18. It took 2 hours.", None, "18"),
    ("The answer is **18**. It took 2 hours.", None, "18"),
    ("The final answer is: $18.50. It took 2 hours.", None, "37/2"),
    ("THE ANSWER IS -18, after 2 hours.", None, "-18"),
    (r"The answer is \(18\), after 2 hours.", None, "18"),
    ("The answer is:\n18\nIt took 2 hours.", None, "18"),
    ("Answer: 18 after 2 hours", None, "18"),
    ("The answer is 3. Wait, the answer is 18. It took 2 hours.", None, "18"),
    ("The answer is 25% of 72 = 18", None, "18"),
    ("The answer is 15 + 3 = 18", None, "18"),
    ("The answer is 15 x 3 that is 18", None, "18"),
    ("The answer is 9:30, so 18", None, "18"),
    ("The answer is 1 000, so 18", None, "18"),
    ("My answers are 3 and 18", None, None),
    ("3 and then 18", None, "18"),
    ("She has 18 clips, altogether.", None, "18"),
    ("20-2=18", None, "18"),
    ("20-18", None, None),
    ("pages 3–18", None, None),
    ("(20)-18", None, None),
    ("It falls to -18 degrees", None, "-18"),
    ("the total...18", None, "18"),
    ("<think>So the answer is 20? No.</think>\n**18**", None, "18"),
    (r"<think>\boxed{20}? No.</think>" + "\nThe answer is 18.", None, "18"),
    ("<think>#### 20</think>\n#### 18", "18", "18"),
    ("#### 20\n</think>\n#### 18", "18", "18"),
    ("<think>#### 18", None, None),
    ("<answer>18</answer> (checked 2 times)", None, "18"),
    ("<answer>20</answer>, no: <answer>18</answer>", None, "18"),
    ("<think><answer>20</answer></think>18", None, "18"),
    ("<answer>#### 18</answer>", "18", "18"),
    ("#### 18\nQuestion: How many?\nAnswer:\n#### 25", "18", "18"),
    ("Question: How many?\n#### 18\n\nQuestion: And now?\n#### 25", "18", "18"),
    ("He runs 3.5 and 1,2", None, None),
    ("3 and then 1e999999999", None, None),
    ("I do not know.", None, None),
]


@pytest.mark.parametrize(("response", "strict", "flexible"), PLACES)
def test_the_most_explicit_place_decides(response: str, strict: str | None, flexible: str | None) -> None:
    found = [task(answer_format=name).verify([rollout(response, "7")])[0] for name in ("strict", "flexible")]
    assert [item.evidence["parsed"] for item in found] == [strict, flexible]
    assert [item.verdict is Verdict.UNPARSEABLE for item in found] == [strict is None, flexible is None]


def test_a_verdict_comes_with_score_and_evidence() -> None:
    right, wrong, unparseable = task().verify([rollout(text, "1,234") for text in ("#### 1234", "#### 5", "none")])
    assert (right.score, right.verdict, right.evidence) == (1.0, "right", {"parsed": "1234", "expected": "1,234"})
    assert (wrong.score, wrong.verdict, wrong.evidence) == (0.0, "wrong", {"parsed": "5", "expected": "1,234"})
    assert (unparseable.score, unparseable.evidence) == (0.0, {"parsed": None, "expected": "1,234"})
    assert unparseable.verdict is Verdict.UNPARSEABLE


def test_an_unfinished_response_is_judged_by_its_text() -> None:
    cut_off = [rollout(text, "18", finished=False) for text in ("#### 18", "#### 1", "she has")]
    assert [item.verdict.value for item in task().verify(cut_off)] == ["right", "wrong", "unparseable"]


def test_the_verifiers_own_failure_is_an_error_for_that_item_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fragile(text: str, answer_format: str) -> None:
        if "boom" in text:
            raise OverflowError("too large")

    monkeypatch.setattr(rrl.parts.tasks.gsm8k, "read_answer", fragile)
    first, second = task().verify([rollout("boom", "18"), rollout("calm", "18")])
    assert (first.score, first.verdict) == (0.0, Verdict.ERROR)
    assert first.evidence == {"parsed": None, "expected": "18", "error": "OverflowError: too large"}
    assert second.verdict is Verdict.UNPARSEABLE


def test_an_example_without_a_numeric_answer_is_an_error_and_never_wrong() -> None:
    feedback = task().verify([rollout("#### 18", "eighteen")])[0]
    assert (feedback.score, feedback.verdict) == (0.0, Verdict.ERROR)
    assert feedback.evidence["error"] == "ValueError: answer='eighteen': expected a number"


@pytest.mark.parametrize(
    "response",
    [
        "#### " + "9" * 10**6,
        "#### 1/" + "9" * 10**6,
        "#### 0." + "0" * 10**6 + "1",
        "#### " + "1," * 500_000,
        "#### " * 200_000,
        "answer is 5 " * 80_000 + "= x",
        r"\frac{" * 150_000,
        r"\boxed{" * 150_000,
        "-" * 10**6,
        " " * 10**6,
    ],
    ids=lambda response: response[:12].strip(),
)
def test_huge_responses_are_bounded_in_time(response: str) -> None:
    begin = time.perf_counter()
    assert verdict(response, "18") in ("wrong", "unparseable")
    assert time.perf_counter() - begin < 5


def test_a_number_is_read_up_to_64_characters() -> None:
    assert verdict("#### " + "9" * 64, "9" * 64) == "right"
    assert verdict("#### " + "9" * 65, "9") == "unparseable"


# Hyper-parameters, demonstrations, faults


def test_demonstrations_repeat_none_before_all_were_drawn(tmp_path: Path) -> None:
    gsm8k = task(write(tmp_path, *(f"#### {i}" for i in range(10))))
    few, many = gsm8k.demonstrations(4, seed=1), gsm8k.demonstrations(25, seed=1)
    assert few == many[:4]
    assert [len({example.id for example in many[i : i + 10]}) for i in (0, 10)] == [10, 10]
    assert len({example.id for example in many[20:]}) == 5
    assert many[:10] != many[10:20]
    assert gsm8k.demonstrations(25, seed=2) != many


def test_demonstrations_leave_the_global_generator_alone(tmp_path: Path) -> None:
    gsm8k = task(write(tmp_path, "#### 1", "#### 2", "#### 3"))
    random.seed(5)
    before = random.getstate()
    first = gsm8k.demonstrations(3, seed=1)
    assert random.getstate() == before
    random.seed(6)
    assert gsm8k.demonstrations(3, seed=1) == first


def test_steps_without_annotations_are_lines(tmp_path: Path) -> None:
    texts = ["a\nb\n#### 1", "a\nb\nc\n#### 1", "a\nb\nc\nd\ne\n#### 1", "<<1=1>>\n<<1=1>>\nc\n#### 1"]
    levels = [example.level for example in task(write(tmp_path, *texts)).examples("train")]
    assert levels == ["steps1-2", "steps3-4", "steps5+", "steps1-2"]


def test_each_annotation_of_a_line_is_stripped_by_itself(tmp_path: Path) -> None:
    gsm8k = task(write(tmp_path, "a <<1+1=2>>2 b <<2+2=4>>4\n#### 4"))
    assert gsm8k.examples("train")[0].reference == "a 2 b 4\n#### 4"


def test_rows_that_are_not_gsm8k_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        task(write(tmp_path, "#### 1", "forty-two", "42", "#### 1e999", "#### 5 + 3")).examples("train")
    assert [fault.split(":")[0] for fault in caught.value.faults[:-1]] == [f"train, row {i}" for i in (1, 2, 3, 4)]
    assert "ends in 'forty-two', expected '#### <number>'" in caught.value.faults[0]
    assert caught.value.faults[-1].startswith("remedy: ")


def test_an_unknown_answer_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"answer_format='loose': expected one of \('strict', 'flexible'\)"):
        task(answer_format="loose")


def test_text_is_free() -> None:
    assert task().vocabulary() is None


def test_the_yaml_states_every_field() -> None:
    stated = yaml.safe_load((Path(__file__).parents[3] / "conf/task/gsm8k.yaml").read_text(encoding="utf-8"))["task"]
    assert stated.pop("_target_") == "rrl.parts.tasks.gsm8k.GSM8K"
    assert {*stated, "path"} == GSM8K.__dataclass_fields__.keys()  # the path is data.path
