"""Judging by tests: every outcome with its line and type, in the real sandbox; and what is submitted when."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from rrl.sandbox.limits import Limits
from rrl.sandbox.runs import Job, ProgramRun
from rrl.sandbox.sandbox import Sandbox
from rrl.types import Example, Feedback, Problem, Rollout, State, Verdict
from rrl.verifiers.program_verifier import ProgramVerifier, Suite
from rrl.verifiers.programs import Outcome, ProgramEvidence

LIMITS = Limits(
    wall_seconds=20.0, cpu_seconds=20.0, memory_mb=512, processes=64, open_files=32, file_mb=1, output_kb=64
)  # fmt: skip
ADD = Suite(function=None, entry=None, inputs=("1 2\n", "3 4\n"), outputs=("3\n", "7\n"))
CALL = Suite(function="add", entry=None, inputs=([1, 2], [3, 4]), outputs=(3, 7))


@pytest.fixture(scope="module")
def judge() -> Iterator[ProgramVerifier]:
    sandbox = Sandbox(limits=LIMITS, workers=2, isolation="auto")
    yield ProgramVerifier(sandbox=sandbox, tolerance=1e-6, stop_at_failure=False)
    sandbox.close()


def rollout(response: str, suite: Suite = ADD) -> Rollout:
    example = Example(id="p", level="l", question="?", reference="", answer=suite.as_text())
    return Rollout(State(Problem(example, (), ())), (), (), (), True, response, 0)


def reported(judge: ProgramVerifier, response: str, suite: Suite = ADD) -> ProgramEvidence:
    return ProgramEvidence.of(judge.verify([rollout(response, suite)])[0].evidence)


# Every outcome

READ = "a, b = map(int, input().split())\n"
OUTCOMES = [
    # program, outcome, tests passed, error, line
    (READ + "print(a + b)", "passed", 2, None, None),
    (READ + "print(a * b + 1)", "wrong_answer", 1, None, None),
    (READ + "print(a - b)", "wrong_answer", 0, None, None),
    (READ + "print(a + b + 0.5)", "wrong_answer", 0, None, None),
    (READ + "print(a + b)\nx = [][0]", "runtime_error", 0, "IndexError", 3),
    (READ + "print(7)\nif a == 1:\n    1 // 0", "runtime_error", 1, "ZeroDivisionError", 4),
    ("def f():\n    return g()\ndef g():\n    raise KeyError\nf()\n", "runtime_error", 0, "KeyError", 4),
    ("import nowhere", "runtime_error", 0, "ModuleNotFoundError", 1),
    ("print(1\n", "compile_error", 0, "SyntaxError", 1),
    ("x = 1\nfor\n", "compile_error", 0, "SyntaxError", 2),
    ("if 1:\n  x = 1\n y = 2\n", "compile_error", 0, "IndentationError", 3),
    ("return 1", "compile_error", 0, "SyntaxError", 1),
    ("def f(): f()\nf()", "runtime_error", 0, "RecursionError", 1),
    ("print('x' * 10**6)", "runtime_error", 0, "OutputLimit", None),
    ("raise SystemExit(0)", "wrong_answer", 0, None, None),
]


@pytest.mark.parametrize(("program", "outcome", "passed", "error", "line"), OUTCOMES)
def test_every_outcome_has_its_type_and_line(
    judge: ProgramVerifier, program: str, outcome: str, passed: int, error: str | None, line: int | None
) -> None:
    found = reported(judge, f"Here:\n```python\n{program}\n```")
    assert (found.outcome.value, found.passed, found.total) == (outcome, passed, 2)
    assert (found.error, found.line) == (error, line)
    assert (found.program, found.start) == (f"{program}\n", len("Here:\n```python\n"))
    assert len(found.tests) == 2


COUNT = Suite(function=None, entry=None, inputs=("1\n", "2\n", "3\n"), outputs=("1\n", "2\n", "3\n"))
UP_TO_A_FAILURE = [
    # program, tests run, tests passed, outcome
    ("print(input())", 3, 3, "passed"),
    ("print(min(int(input()), 2))", 3, 2, "wrong_answer"),
    ("print([1][int(input()) - 1])", 2, 1, "runtime_error"),
    ("print(", 1, 0, "compile_error"),
]


@pytest.mark.parametrize(("program", "ran", "passed", "outcome"), UP_TO_A_FAILURE)
def test_tests_after_a_failure_do_not_run_where_that_is_asked(
    judge: ProgramVerifier, program: str, ran: int, passed: int, outcome: str
) -> None:
    brief = ProgramVerifier(sandbox=judge.sandbox, tolerance=0.0, stop_at_failure=True)
    found, whole = reported(brief, program, COUNT), reported(judge, program, COUNT)
    assert (len(found.tests), found.passed, found.total, found.outcome.value) == (ran, passed, 3, outcome)
    assert (found.tests, found.outcome, found.error, found.line) == (
        whole.tests[:ran], whole.outcome, whole.error, whole.line,
    )  # fmt: skip


def test_a_program_that_does_not_end_is_a_time_out() -> None:
    sandbox = Sandbox(limits=replace(LIMITS, wall_seconds=0.5), workers=2, isolation="auto")
    found = reported(ProgramVerifier(sandbox=sandbox, tolerance=0.0, stop_at_failure=False), "while True: pass")
    sandbox.close()
    assert (found.outcome, found.passed, found.error, found.line) == (Outcome.TIME_OUT, 0, "WallTime", None)


CALLS = [
    ("def add(a, b):\n    return a + b", "passed", 2, None, None),
    ("class Solution:\n    def add(self, a: int, b: int) -> List[int]:\n        return a + b", "passed", 2, None, None),
    ("def add(a, b):\n    return [a + b]", "wrong_answer", 0, None, None),
    ("def add(a, b):\n    return str(a + b)", "wrong_answer", 0, None, None),
    ("def add(a, b):\n    print(a + b)", "wrong_answer", 0, None, None),
    ("def add(a, b):\n    return a + c", "runtime_error", 0, "NameError", 2),
    ("def add(a):\n    return a", "runtime_error", 0, "TypeError", None),
    ("def plus(a, b):\n    return a + b", "runtime_error", 0, "NameError", None),
    ("def add(a, b):\n    return a + b\nx = (1", "compile_error", 0, "SyntaxError", 3),
    ("from __future__ import annotations\ndef add(a, b):\n    raise OSError", "runtime_error", 0, "OSError", 3),
]


@pytest.mark.parametrize(("program", "outcome", "passed", "error", "line"), CALLS)
def test_functions_are_called_and_lines_are_those_of_the_program_itself(
    judge: ProgramVerifier, program: str, outcome: str, passed: int, error: str | None, line: int | None
) -> None:
    found = reported(judge, program, CALL)
    assert (found.outcome.value, found.passed, found.error, found.line) == (outcome, passed, error, line)


def test_messages_name_the_programs_own_lines_too(judge: ProgramVerifier) -> None:
    found = reported(judge, "def add(a, b):\nreturn a", CALL)
    assert (found.error, found.line) == ("IndentationError", 2)
    assert "line 1" in found.message
    assert "line 3" not in found.message


def test_messages_count_the_programs_own_lines_also_behind_a_statement_of_the_future(judge: ProgramVerifier) -> None:
    found = reported(judge, "from __future__ import annotations\ndef add(a, b):\nreturn a", CALL)
    assert (found.error, found.line) == ("IndentationError", 3)
    assert "line 2" in found.message


IMPORTED = [
    # expression, value
    ("comb(5, 2)", 10),
    ("isqrt(17)", 4),
    ("lcm(4, 6)", 12),
    ("round(pi, 2)", 3.14),
    ("inf > maxsize", True),
    ("list(pairwise([1, 2, 3]))", [[1, 2], [2, 3]]),
    ("[k for k, _ in groupby('aab')]", ["a", "b"]),
    ("list(islice(count(3), 2))", [3, 4]),
    ("[*chain('a', 'b')]", ["a", "b"]),
    ("reduce(add, [1, 2, 3])", 6),
    ("reduce(operator.mul, accumulate([1, 2]))", 3),
    ("max([[1, 3], [2, 1]], key=itemgetter(1))", [1, 3]),
    ("cache(lambda x: x)(1)", 1),
    ("lru_cache(None)(len)('ab')", 2),
    ("isinstance(Counter('aab'), Counter)", True),
    ("Counter('aab').most_common(1)", [["a", 2]]),
    ("[*OrderedDict(a=1)]", ["a"]),
    ("defaultdict(int)['x']", 0),
    ("collections.deque([1, 2])[0] + deque([1])[0]", 2),
    ("[str(Iterator), str(Callable)]", ["typing.Iterator", "typing.Callable"]),
    ("str(Optional[List[int]])", "typing.Optional[typing.List[int]]"),
    ("heapq.nsmallest(1, [2, 1]) + nlargest(1, [2, 1])", [1, 2]),
    ("[bisect([1, 2], 1), bisect.bisect_left([1, 2], 1), bisect_left([1, 2], 2)]", [1, 0, 1]),
    ("copy.deepcopy([1]) + copy([2]) + deepcopy([3])", [1, 2, 3]),
    ("[datetime(2020, 1, 2).day, datetime.datetime(2020, 1, 2).day, date(2020, 1, 3).day]", [2, 2, 3]),
    ("(datetime.strptime('2020', '%Y') + timedelta(days=1)).day", 2),
    ("[random() < 1, random.randint(1, 1), choice([2])]", [True, 1, 2]),
    ("re.sub('a', 'b', 'a') + ascii_lowercase[:1] + string.digits[:1]", "ba0"),
    ("median([1, 3]) + mean([2])", 4),
    ("json.dumps([1]) + StringIO('x').read()", "[1]x"),
    ("sys.maxsize == maxsize and math.gcd(4, 6)", 2),
    # no built-in name is another's
    ("pow(2, 3, 5)", 3),
    ("type(pow(2, 2)).__name__", "int"),
    ("abs(-2)", 2),
    ("eval(compile('1', 'x', 'eval'))", 1),
    ("sum(map(int, '12'))", 3),
]


@pytest.mark.parametrize("head", ["", "from __future__ import annotations\n"])
def test_a_called_program_finds_what_the_sites_import_for_it(judge: ProgramVerifier, head: str) -> None:
    lines = "".join(f"        if n == {n}: return {source}\n" for n, (source, _) in enumerate(IMPORTED))
    values = tuple(value for _, value in IMPORTED)
    suite = Suite(function="f", entry=None, inputs=tuple([n] for n in range(len(values))), outputs=values)
    found = reported(judge, f"{head}class Solution:\n    def f(self, n: int) -> Optional[int]:\n{lines}", suite)
    assert [source for (source, _), test in zip(IMPORTED, found.tests, strict=True) if test.outcome != "passed"] == []


@pytest.mark.parametrize("name", ["gcd", "comb", "permutations", "mean", "sum", "sorted", "len"])
def test_a_function_that_a_program_does_not_define_is_not_found_among_these(judge: ProgramVerifier, name: str) -> None:
    suite = Suite(function=name, entry=None, inputs=([1, 2],), outputs=(1,))
    for program in ("x = 1", "class Solution:\n    pass"):
        found = reported(judge, program, suite)
        assert (found.outcome, found.error) == (Outcome.RUNTIME_ERROR, "NameError")


def test_a_program_defines_or_imports_what_it_likes_over_them(judge: ProgramVerifier) -> None:
    suite = Suite(function="gcd", entry=None, inputs=([4, 6],), outputs=(2,))
    for program in ("from math import gcd", "def gcd(a, b): return 2", "import math\ngcd = math.gcd"):
        assert reported(judge, program, suite).outcome is Outcome.PASSED


def test_a_program_that_reads_and_prints_finds_nothing_imported(judge: ProgramVerifier) -> None:
    assert reported(judge, READ + "print(reduce(add, (a, b)))").error == "NameError"


@pytest.mark.parametrize(
    ("outputs", "returned", "passed"),
    [
        (([3], [7]), "a + b", 2),  # every expected value wraps the value itself, as in row 4184 of APPS
        (([3], [7]), "[a + b]", 2),
        (([3], [7, 7]), "a + b", 0),
        (([3], 7), "a + b", 1),
        (([3, 1], [7, 1]), "(a + b, 1)", 2),
        (({"3": 1}, {"7": 1}), "{a + b: 1}", 2),
        ((3.0000001, 7), "a + b", 2),
        ((None, None), "None", 2),
        ((True, False), "a == 1", 2),
    ],
)
def test_what_a_function_returns_is_compared_as_json(
    judge: ProgramVerifier, outputs: tuple[Any, ...], returned: str, passed: int
) -> None:
    suite = Suite(function="add", entry=None, inputs=CALL.inputs, outputs=outputs)
    assert reported(judge, f"def add(a, b):\n    return {returned}", suite).passed == passed


@pytest.mark.parametrize(
    "program",
    [
        "def solve():\n    a, b = map(int, input().split())\n    print(a + b)",
        "def solve():\n    a, b = map(int, input().split())\n    print(a + b)\n\nsolve()",
        "def solve():\n    a, b = map(int, input().split())\n    print(a + b)\nif __name__ == '__main__':\n    solve()",
        "def solve():\n    a, b = map(int, input().split())\n    return a + b\n\nprint(solve())",
        "def solve():\n    a, b = map(int, input().split())\n    print(a + b)\nif True:\n    solve()",
        "a, b = map(int, input().split())\nprint(a + b)",
    ],
)
def test_a_script_that_defines_its_entry_is_run_once_whether_it_calls_it_or_not(
    judge: ProgramVerifier, program: str
) -> None:
    suite = Suite(function=None, entry="solve", inputs=ADD.inputs, outputs=ADD.outputs)
    assert reported(judge, program, suite).outcome is Outcome.PASSED


def test_a_script_cut_off_below_its_entry_is_blamed_on_its_own_last_line(judge: ProgramVerifier) -> None:
    suite = Suite(function=None, entry="solve", inputs=ADD.inputs, outputs=ADD.outputs)
    found = reported(judge, "def solve():\n    for i in range(3):", suite)
    assert (found.outcome, found.line) == (Outcome.COMPILE_ERROR, 2)


@pytest.mark.parametrize(
    ("printed", "outcome", "passed", "error", "line"),
    [("a + b", "passed", 2, None, None), ("a + b + 1", "runtime_error", 0, "ZeroDivisionError", 4)],
)
def test_a_thread_that_fails_is_to_blame_where_the_output_is_not_right(
    judge: ProgramVerifier, printed: str, outcome: str, passed: int, error: str | None, line: int | None
) -> None:
    program = f"{READ}import threading\ndef fail():\n    1 / 0\nthreading.Thread(target=fail).start()\nprint({printed})"
    found = reported(judge, program)
    assert (found.outcome.value, found.passed, found.error, found.line) == (outcome, passed, error, line)


# Verdicts


@pytest.mark.parametrize(
    ("response", "verdict", "score"),
    [
        ("a, b = map(int, input().split())\nprint(a + b)", Verdict.RIGHT, 1.0),
        ("print(3)", Verdict.WRONG, 0.0),
        ("for", Verdict.WRONG, 0.0),
        ("```java\nint x;\n```", Verdict.UNPARSEABLE, 0.0),
        ("", Verdict.UNPARSEABLE, 0.0),
    ],
)
def test_a_response_is_right_when_all_tests_are_passed(
    judge: ProgramVerifier, response: str, verdict: Verdict, score: float
) -> None:
    feedback = judge.verify([rollout(response)])[0]
    assert (feedback.verdict, feedback.score) == (verdict, score)


def test_no_program_is_reported_with_the_number_of_tests(judge: ProgramVerifier) -> None:
    found = reported(judge, "```\n```")
    assert (found.outcome, found.program, found.passed, found.total) == (Outcome.NO_PROGRAM, None, 0, 2)


class Recorder:
    """In the place of the sandbox: keeps jobs, and answers when it is reported to."""

    def __init__(self, *statuses: str) -> None:
        self.jobs: list[Job] = []
        self.futures: list[list[Future[ProgramRun]]] = []
        self._statuses = statuses

    def submit(self, job: Job) -> "list[Future[ProgramRun]]":
        self.jobs.append(job)
        self.futures.append([Future() for _ in self._statuses or job.inputs])
        if self._statuses:
            self.answer(-1)
        return self.futures[-1]

    def answer(self, number: int) -> None:
        futures = self.futures[number]
        for future, s in zip(futures, self._statuses or ("ended",) * len(futures), strict=True):
            future.set_result(ProgramRun(s, "3" if s == "ended" else None, None, None, "", 0.0))  # type: ignore[arg-type]


def recorded(*statuses: str) -> tuple[Recorder, ProgramVerifier]:
    recorder = Recorder(*statuses)
    return recorder, ProgramVerifier(sandbox=recorder, tolerance=0.0, stop_at_failure=False)  # type: ignore[arg-type]


def outcome(feedback: Feedback) -> tuple[str, str]:
    return feedback.verdict.value, feedback.evidence["outcome"]


FAILURES: list[tuple[Sequence[str], tuple[str, str]]] = [
    (("ended", "sandbox_failure"), ("error", "sandbox_failure")),
    (("runtime_error", "sandbox_failure"), ("error", "sandbox_failure")),
    (("sandbox_failure", "sandbox_failure"), ("error", "sandbox_failure")),
    (("runtime_error", "time_out"), ("wrong", "runtime_error")),
    (("time_out", "runtime_error"), ("wrong", "time_out")),
    (("ended", "time_out"), ("wrong", "time_out")),
]


@pytest.mark.parametrize(("statuses", "expected"), FAILURES)
def test_the_first_failure_decides_the_outcome_and_the_sandboxs_own_goes_before_all(
    statuses: Sequence[str], expected: tuple[str, str]
) -> None:
    feedback = recorded(*statuses)[1].verify([rollout("x")])[0]
    assert (outcome(feedback), feedback.score) == (expected, 0.0)


def test_programs_run_as_soon_as_they_are_written_and_are_collected_later() -> None:
    recorder, judge = recorded()
    judge.begin([rollout("x"), rollout("y")])
    assert [job.source for job in recorder.jobs] == ["x", "y"]
    judge.begin([rollout("z")])
    for number in range(3):
        recorder.answer(number)
    feedback = judge.verify([rollout("z"), rollout("x"), rollout("y")])
    assert len(recorder.jobs) == 3
    assert [f.evidence["program"] for f in feedback] == ["z", "x", "y"]


def test_equal_programs_for_equal_tests_run_once() -> None:
    recorder, judge = recorded("ended", "ended")
    same = [rollout("x"), rollout("Or so:\n```python\nx\n```"), rollout("```\nx\n```"), rollout("x")]
    feedback = judge.verify([*same, rollout("x", CALL)])
    assert [job.source for job in recorder.jobs] == ["x", "x\n", "x"]
    assert [f.evidence["start"] for f in feedback] == [0, 17, 4, 0, 0]


def test_verify_alone_submits_and_a_new_batch_is_judged_anew() -> None:
    recorder, judge = recorded("ended", "ended")
    judge.begin([rollout("of another rank")])
    judge.verify([rollout("x")])
    judge.verify([rollout("x")])
    assert [job.source for job in recorder.jobs] == ["of another rank", "x", "x"]
    assert not judge._pending


def test_expected_outputs_do_not_enter_the_sandbox() -> None:
    recorder, judge = recorded("ended")
    judge.begin([rollout("x", Suite(function=None, entry=None, inputs=("in",), outputs=("secret",)))])
    assert "secret" not in repr(recorder.jobs)


def test_tests_survive_as_text() -> None:
    for suite in (ADD, CALL, Suite(function=None, entry="f", inputs=('é"\n',), outputs=("",))):
        assert Suite.of(suite.as_text()) == suite
        assert json.loads(suite.as_text())["inputs"] == list(suite.inputs)


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(ValueError, match="tolerance: expected a number >= 0, got -1"):
        ProgramVerifier(sandbox=Sandbox(limits=LIMITS, workers=1, isolation="auto"), tolerance=-1, stop_at_failure=False)
