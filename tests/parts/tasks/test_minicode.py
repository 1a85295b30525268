"""The embedded programming task: its words by hand, its problems, and its programs judged by the real sandbox."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from fixtures.replay import ids, tiny
from rrl.cuts import Cutter
from rrl.parts.tasks.minicode import (
    LEVELS,
    STRONG,
    WEAK,
    WORDS,
    MiniCode,
    ask,
    error_free,
    every_line_counts,
    planned,
    run,
    write,
)
from rrl.sandbox.limits import Limits
from rrl.sandbox.sandbox import Sandbox
from rrl.types import Example, Feedback, Problem, Rollout, State
from rrl.verifiers.program_verifier import ProgramVerifier, Suite
from rrl.verifiers.programs import ProgramEvidence

LIMITS = Limits(
    wall_seconds=20.0, cpu_seconds=5.0, memory_mb=512, processes=64, open_files=32, file_mb=1, output_kb=64
)  # fmt: skip
SUITE = Suite(function="f", entry=None, inputs=([4], [6], [9]), outputs=(4, 1, 4))
PROBLEM = Example("one", "hard3", "take 5 rest 9 cap 4", "", SUITE.as_text())
UNUSED: Any = None


@pytest.fixture(scope="module")
def judge() -> Iterator[ProgramVerifier]:
    sandbox = Sandbox(limits=LIMITS, workers=2, isolation="auto")
    yield ProgramVerifier(sandbox=sandbox, tolerance=0.0, stop_at_failure=False)
    sandbox.close()


def task(judge: ProgramVerifier = UNUSED, **changes: Any) -> MiniCode:
    shape = {
        "train_per_level": 200, "tests": 3, "demonstration_lengths": (1, 3, 5),
        "demonstration_weak": 0.25, "start_seed": 0, "judge": judge,
    }  # fmt: skip
    return MiniCode(**shape | changes)


def judged(judge: ProgramVerifier, *programs: tuple[Example, str]) -> list[Feedback]:
    rollouts = [Rollout(State(Problem(e, (), ())), (), (), (), True, text, 0) for e, text in programs]
    code = task(judge)
    code.begin(rollouts)
    return code.verify(rollouts)


def words(example: Example) -> list[str]:
    return [word for word in example.question.split() if word in WORDS]


# --- words and programs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "x", "number", "expected"),
    [("add", -3, 5, 2), ("take", -3, 5, -8), ("times", -3, 5, -15), ("share", -7, 2, -4), ("rest", -7, 3, 2),
     ("cap", 9, 4, 4), ("cap", -9, 4, -9), ("lift", 9, 4, 9), ("lift", -9, 4, 4), ("gap", 2, 9, 7), ("gap", 9, 2, 7),
     ("flip", 9, 2, -7), ("square", -3, 2, 11)],
)  # fmt: skip
def test_each_word_does_what_it_says(word: str, x: int, number: int, expected: int) -> None:
    assert run([(word, number)], x) == expected


def test_a_plan_is_asked_for_and_written_as_worked_by_hand() -> None:
    plan = [("add", 3), ("cap", 9), ("square", 1)]
    assert ask(plan) == "add 3 cap 9 square 1 . . . ."
    assert write(plan) == "def f(x): \n x += 3 \n x = min(x, 9 ) \n x = x * x + 1 \n return x"
    assert run(plan, 8) == 82  # 11, then 9, then 82


@pytest.mark.parametrize("word", WORDS)
def test_each_line_of_python_does_what_its_word_says(word: str) -> None:
    space: dict[str, Any] = {}
    exec(write([(word, 7)]), space)
    for x in range(-20, 21):
        assert space["f"](x) == run([(word, 7)], x)


def test_arguments_have_to_show_every_line() -> None:
    plan = [("lift", 2), ("cap", 9)]
    assert every_line_counts(plan, [0, 12])
    assert not every_line_counts(plan, [0, 5])  # nothing is above 9
    assert not every_line_counts(plan, [5, 12])  # nothing is below 2


# --- problems ---------------------------------------------------------------------------------------------------------


def test_a_level_is_a_number_and_a_kind_of_words() -> None:
    for example in task().examples("test"):
        count, kind = LEVELS[example.level]
        assert len(words(example)) == count
        assert set(words(example)) <= set(kind)


def test_each_test_expects_what_the_question_says() -> None:
    for example in task(tests=4).examples("test"):
        parts = example.question.replace(".", "").split()
        plan = [(word, int(number)) for word, number in zip(parts[::2], parts[1::2], strict=True)]
        suite = Suite.of(example.answer)
        assert len({x for (x,) in suite.inputs}) == 4
        assert [run(plan, x) for (x,) in suite.inputs] == list(suite.outputs)
        assert example.reference == write(plan)


def test_the_vocabulary_covers_every_question_and_reference_with_their_line_ends() -> None:
    tokenizer = tiny(task().vocabulary()).tokenizer
    examples = task().examples("test") + task().demonstrations(200, 0)
    texts = [text for example in examples for text in (f"{example.question} :", example.reference)]
    assert all(tokenizer.decode(ids(tokenizer, text), skip_special_tokens=True) == text for text in texts)


def test_a_response_can_be_cut_after_each_line() -> None:
    tokenizer = tiny(task().vocabulary()).tokenizer
    tokens = ids(tokenizer, write([("add", 3), ("cap", 9)]))
    legal = Cutter(tokenizer, "line").legal(tokens)
    assert [tokenizer.decode(tokens[:cut]) for cut in legal] == [
        "def f(x): \n", "def f(x): \n x += 3 \n", "def f(x): \n x += 3 \n x = min(x, 9 ) \n",
    ]  # fmt: skip


@pytest.mark.parametrize("weak", [0.0, 0.25, 1.0])
def test_demonstrations_hold_the_asked_share_of_weak_words(weak: float) -> None:
    found = [word for e in task(demonstration_weak=weak).demonstrations(2000, 0) for word in words(e)]
    assert sum(word in WEAK for word in found) / len(found) == pytest.approx(weak, abs=0.02)
    assert set(found) == (set(WEAK) if weak else set()) | (set(STRONG) if weak < 1 else set())


# --- verdicts of the sandbox ------------------------------------------------------------------------------------------


def test_every_reference_passes_and_none_without_one_of_its_lines(judge: ProgramVerifier) -> None:
    examples = [e for level in LEVELS for e in task().examples("test") if e.level == level][::6]
    shorter = []
    for example in examples:
        lines = example.reference.split("\n")
        shorter += [(example, "\n".join(lines[:n] + lines[n + 1 :])) for n in range(1, len(lines) - 1)]
    assert all(f.solved and f.score == 1 for f in judged(judge, *((e, e.reference) for e in examples)))
    assert [f.evidence["outcome"] for f in judged(judge, *shorter)] == ["wrong_answer"] * len(shorter)


@pytest.mark.parametrize(
    ("program", "outcome", "error", "line", "passed"),
    [
        ("def f(x): \n x -= 5 \n x %= 9 \n x = min(x, 4 ) \n return x", "passed", None, None, 3),
        ("def f(x): \n return x", "wrong_answer", None, None, 1),
        ("def f(x): \n x -= 5 \n x %= 0 \n return x", "runtime_error", "ZeroDivisionError", 3, 0),
        ("def f(x): \n x += y \n return x", "runtime_error", "NameError", 2, 0),
        ("def f(x): \n x = min(x, 5 \n return x", "compile_error", "SyntaxError", 2, 0),
        ("def f(x):", "compile_error", "IndentationError", 1, 0),
        ("x += 3", "runtime_error", "NameError", 1, 0),
        ("", "no_program", None, None, 0),
    ],
)
def test_a_program_is_judged_with_its_kind_of_failure_and_line(
    judge: ProgramVerifier, program: str, outcome: str, error: str | None, line: int | None, passed: int
) -> None:
    evidence = ProgramEvidence.of(judged(judge, (PROBLEM, program))[0].evidence)
    assert (evidence.outcome.value, evidence.error, evidence.line) == (outcome, error, line)
    assert (evidence.passed, evidence.total) == (passed, 3)


# --- the first error --------------------------------------------------------------------------------------------------


# PROBLEM takes 5, keeps the rest by 9 and caps at 4; for x = 4, 6, 9 that is -1, 1, 4, then 8, 1, 4, then 4, 1, 4.
@pytest.mark.parametrize(
    "program",
    [
        "def f(x): \n x -= 5 \n x %= 9 \n x = min(x, 4 ) \n |y",
        "def f(x): \n x -= 5 \n x |+= 9 \n x = min(x, 4 ) \n return x",
        "def f(x): \n x -= 5 \n x %= |8 \n x = min(x, 4 ) \n return x",  # 7, 1, 4 is never reached
        "def f(x): \n x -= 5 \n x %= 9 \n x = m|ax(x, 4 ) \n return x",
        "def f(x): \n x -= 5 \n x %= 9 \n |return x",  # too early
        "def f(x): \n x -= 2 \n x -= 3 \n return x",  # a detour
        "def f(x): \n x -= 5 \n x += 0 \n x %= 9 \n x |+= 1",
        "def f(x): \n x -= 5 \n x *= 1 \n \n x %= 9|1 \n",  # a line without effect, and a blank one
        "def f(x): \n x -= 5 \n x |= x % 9 \n x = min(x, 4 ) \n return x",  # right, but of no word's form
        "def f(x): \n x -= 5 \n x %= |0 \n return x",
        "def f(x): \n x -= 5 \n x %= |09 \n",
        "def f(x): \n x -= 5 \n x %= 9 \n x = min(x, 4 ) \n return x \n|x \n",
        "def f(x): \n x -= 5 \n | x %= 9 \n",  # another indentation
        "def f(x): \n|x -= 5",
        "def f(|y): \n x -= 5",
        "|x -= 5 \n return x",
        "def f(x): \n x -= 5 \n x %= 9|",  # cut off
        "def f(x):|",
        "|",
        "So:\n```python\ndef f(x):\n    x-=5\n    x %= 9\n    x = |(x)\n```\nDone.",
        "def f(x):\r\n\tx -= 5\r\n\tx  %=  9\r\n\tx |+= x\r\n",
    ],
)
def test_the_first_error_is_where_the_reference_leads_no_further(program: str) -> None:
    expected = program.index("|") if "|" in program else program.index("2")
    assert error_free(program.replace("|", ""), PROBLEM) == expected


def passes(source: str, suite: Suite) -> bool:
    space: dict[str, Any] = {}
    try:
        exec(source, space)
        return [space["f"](*given) for given in suite.inputs] == list(suite.outputs)
    except Exception:
        return False


def spoilt(reference: str, rng: random.Random) -> str:
    """The reference with one or two of its words exchanged for others, left out, or doubled."""
    words = reference.split(" ")
    for _ in range(rng.choice([1, 2])):
        place = rng.randrange(len(words))
        words[place : place + 1] = rng.choice([[rng.choice(words)], [], [words[place]] * 2, [str(rng.randrange(10))]])
    return " ".join(words)


def test_what_is_before_the_error_can_always_be_completed_by_the_reference() -> None:
    rng = random.Random(0)
    begun = 0
    for example in task().examples("test"):
        suite, whole = Suite.of(example.answer), example.reference
        assert error_free(whole, example) == len(whole) and write(planned(example.question)) == whole
        written = spoilt(whole, rng)
        if passes(written, suite):
            continue
        free = written[: error_free(written, example)]
        begun += "\n" in free
        ends = [end + whole[place:] for place in range(len(whole) + 1) for end in ("", "\n")]
        assert any(passes(free + end, suite) for end in ends), (written, free)
    assert begun > 20


def test_the_evidence_says_where_the_first_error_is_and_a_right_program_has_none(judge: ProgramVerifier) -> None:
    wrong, right = "def f(x): \n x += 5", "def f(x): \n x = x - 5 \n x %= 9 \n x = min(x, 4 ) \n return x"
    found = judged(judge, (PROBLEM, wrong), (PROBLEM, right), (PROBLEM, ""))
    assert [each.evidence["error_free"] for each in found] == [14, len(right), 0]
    assert MiniCode.gives == {"references", "programs", "first_errors"}
