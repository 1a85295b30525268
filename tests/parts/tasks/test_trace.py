"""The embedded task: its instructions by hand, its verdicts, and that its problems are fixed, apart and readable."""

import re
from collections import Counter
from typing import Any

import pytest

from fixtures.replay import ids, tiny
from rrl.parts.tasks.trace import LEVELS, STRONG, WEAK, Trace, run
from rrl.types import Example, Problem, Rollout, State

ANSWER = Example("trace/train/L3/0", "L3", "7 add3 sub2 mul5 . . . . . . . =", "0 8 5", "0 8 5")


def task(**changes: Any) -> Trace:
    settings = {
        "train_per_level": 300, "demonstration_lengths": (1, 3, 10), "demonstration_weak": 0.25,
        "start_seed": 0,
    }  # fmt: skip
    return Trace(**settings | changes)


def judged(response: str, finished: bool = True) -> Any:
    rollout = Rollout(State(Problem(ANSWER, (), ())), (), (), (), finished, response, version=0)
    return task().verify([rollout])[0]


def instructions(example: Example) -> list[str]:
    return [word[:3] for word in example.question.split() if word[:3] in STRONG | WEAK]


# By hand: 7+5=12, 2-4=-2, 8*3+3=27, 7*7+2=51, |1-9|=8, 3*8+6=30; all but the difference modulo 10.
def test_a_program_runs_as_worked_by_hand():
    program = [("add", 5), ("sub", 4), ("mul", 3), ("sqr", 2), ("gap", 9), ("tri", 6)]
    assert run(7, program) == [2, 8, 7, 1, 8, 0]


@pytest.mark.parametrize(
    ("operation", "x", "c", "expected"),
    [("add", 9, 9, 8), ("add", 0, 4, 4), ("sub", 3, 9, 4), ("sub", 9, 3, 6), ("mul", 4, 7, 5), ("mul", 6, 0, 0),
     ("sqr", 9, 9, 0), ("sqr", 5, 1, 6), ("gap", 2, 9, 7), ("gap", 9, 2, 7), ("tri", 9, 9, 6), ("tri", 2, 0, 6)],
)  # fmt: skip
def test_each_instruction_does_what_its_name_says(operation, x, c, expected):
    assert run(x, [(operation, c)]) == [expected]


@pytest.mark.parametrize(
    ("response", "verdict", "right_steps", "error_free"),
    [("0 8 5", "right", 3, 5), (" 0  8 5 ", "right", 3, 8), ("0 8 6", "wrong", 2, 4), ("0 8", "wrong", 2, 3),
     ("", "wrong", 0, 0), ("0 8 5 5", "wrong", 3, 6), ("1 8 5", "wrong", 0, 0), ("5", "wrong", 0, 0),
     ("0 8 add3", "unparseable", 2, 4), ("0 8 5 =", "unparseable", 3, 6), ("085", "unparseable", 0, 1),
     ("\n0\t8 56", "unparseable", 2, 6)],
)  # fmt: skip
def test_only_the_whole_trace_is_right(response, verdict, right_steps, error_free):
    feedback = judged(response)
    assert (feedback.verdict.value, feedback.score) == (verdict, float(verdict == "right"))
    parsed = None if verdict == "unparseable" else " ".join(response.split())
    assert feedback.evidence == {
        "error_free": error_free, "right_steps": right_steps, "steps": 3, "parsed": parsed,
    }  # fmt: skip


def test_a_trace_that_did_not_end_by_itself_is_wrong():
    assert (judged("0 8 5", finished=False).verdict.value, judged("0 8 5", finished=False).score) == ("wrong", 0.0)


def test_feedback_comes_in_the_order_of_the_rollouts():
    state = State(Problem(ANSWER, (), ()))
    rollouts = [Rollout(state, (), (), (), True, response, 0) for response in ("1", "0 8 5", "=")]
    assert [feedback.verdict.value for feedback in task().verify(rollouts)] == ["wrong", "right", "unparseable"]


def test_a_level_is_a_length_and_a_kind_of_instruction():
    for example in task().examples("test"):
        length, kind = LEVELS[example.level]
        assert len(instructions(example)) == length and set(instructions(example)) <= set(kind)


def test_every_answer_is_the_trace_of_its_question():
    for example in task().examples("train") + task().examples("test") + task().demonstrations(50, 0):
        start, *words = example.question.removesuffix("=").replace(".", "").split()
        trace = run(int(start), [(word[:3], int(word[3:])) for word in words])
        assert example.answer == example.reference == " ".join(map(str, trace))


def test_a_question_reads_as_a_program_of_ten_places():
    example = next(e for e in task().examples("test") if e.level == "L6")
    assert re.fullmatch(r"\d( (mul|sqr|gap|tri)\d){6} \. \. \. \. =", example.question)
    assert re.fullmatch(r"\d( \d){5}", example.reference)


def test_longer_demonstrations_add_a_hard_level_of_their_longest_and_places_to_all_questions():
    longer, usual = task(demonstration_lengths=(1, 20)), task()
    assert (longer.levels, longer.trained) == (("L3", "L6", "L10", "L20"), ("L3", "L10", "L20"))
    assert (usual.levels, usual.trained) == (("L3", "L6", "L10"), ("L3", "L10"))
    examples = longer.examples("train") + longer.examples("test") + longer.demonstrations(50, 0)
    assert {len(e.question.split()) for e in examples} == {22}  # the start, 20 places and the equals sign
    longest = [instructions(e) for e in examples if e.level == "L20"]
    assert len(longest) == 330 and all(len(words) == 20 and set(words) <= set(WEAK) for words in longest)
    shorter = [e for e in usual.examples("train") if e.level == "L10"]
    assert [e.reference for e in examples if "train/L10/" in e.id] == [e.reference for e in shorter]


def test_the_vocabulary_covers_every_question_and_reference():
    tokenizer = tiny(task().vocabulary()).tokenizer
    texts = [t for e in task().examples("test") + task().demonstrations(200, 0) for t in (e.question, e.reference)]
    assert len(task().vocabulary()) == 72
    assert all(tokenizer.decode(ids(tokenizer, text), skip_special_tokens=True) == text for text in texts)


@pytest.mark.parametrize("weak", [0.0, 0.25, 1.0])
def test_demonstrations_hold_the_asked_share_of_weak_instructions(weak):
    words = [word for e in task(demonstration_weak=weak).demonstrations(2000, 0) for word in instructions(e)]
    assert sum(word in WEAK for word in words) / len(words) == pytest.approx(weak, abs=0.02)
    assert set(words) == (set(WEAK) if weak else set()) | (set(STRONG) if weak < 1 else set())


def test_demonstrations_draw_their_lengths_evenly():
    lengths = Counter(len(instructions(e)) for e in task().demonstrations(6000, 0))
    assert {n: c / 6000 for n, c in lengths.items()} == pytest.approx({n: 1 / 3 for n in (1, 3, 10)}, abs=0.03)
