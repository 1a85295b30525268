"""HumanEval and MBPP: made-up rows in the published formats, judged by the real sandbox, and programs that cheat."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rrl.errors import ConfigError, DataError
from rrl.parts.tasks.humaneval import HumanEval
from rrl.parts.tasks.mbpp import MBPP
from rrl.sandbox.limits import Limits
from rrl.sandbox.sandbox import Sandbox
from rrl.types import Feedback, Problem, Rollout, State
from rrl.verifiers.assertions import AssertVerifier

LIMITS = Limits(
    wall_seconds=20.0, cpu_seconds=0.5, memory_mb=512, processes=64, open_files=32, file_mb=1, output_kb=64
)  # fmt: skip
EVEN = {
    "task_id": "HumanEval/0",
    "prompt": "import math\nfrom typing import List\n\n\ndef half(x):\n    return math.floor(x / 2)\n\n\n"
    'def halves(numbers: List[int], *, keep=False) -> List[int]:\n    """The half of each even number."""\n',
    "entry_point": "halves",
    "canonical_solution": "    return [half(n) for n in numbers if n % 2 == 0]\n",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    import random\n"
    "    assert candidate([1, 2, 4]) == [1, 2]\n    for _ in range(3):\n        x = random.randint(1, 9)\n"
    "        assert candidate([2 * x], keep=True) == [x]\n"
    "    assert abs(sum(candidate([])) - 0.0) < 1e-6\n",
}
COUNT = {
    "task_id": 11,
    "text": "Write a function to count letters.",
    "code": "from collections import Counter\r\ndef twice(n):\r\n    return 2 * n\r\n"
    "def count(text):\r\n    return Counter(text)",
    "test_list": ["assert count('aab') == {'a': 2, 'b': 1}", "assert count('') == {}"],
    "test_setup_code": "",
    "challenge_test_list": ["assert count('zz')['z'] == 2"],
}
PAIR = {
    "task_id": 12,
    "prompt": "Write a function to find the distance of points.",
    "code": "def distance(p, q):\n    return math.dist(p, q), {p, q}\nimport math",
    "test_list": ["assert math.isclose(distance((0, 0), (3, 4))[0], 5.0) and (3, 4) in distance((0, 0), (3, 4))[1]"],
    "test_imports": ["import math"],
}


@pytest.fixture(scope="module")
def judge() -> Iterator[AssertVerifier]:
    sandbox = Sandbox(limits=LIMITS, workers=2, isolation="auto")
    yield AssertVerifier(sandbox=sandbox)
    sandbox.close()


def humaneval(path: Path | None, judge: Any = None, **changes: Any) -> HumanEval:
    return HumanEval(
        **{"path": path and str(path), "hub_id": "x", "instruction": "Write it.", "judge": judge} | changes
    )


def mbpp(path: Path | None, judge: Any = None, **changes: Any) -> MBPP:
    given = {"path": path and str(path), "hub_id": "x", "instruction": "", "judge": judge, "with_challenge": False}
    return MBPP(**given | changes)


def written(folder: Path, name: str, *rows: dict[str, Any]) -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def judged(task: Any, split: str, *responses: str, row: int = 0) -> list[Feedback]:
    example = task.examples(split)[row]
    state = State(Problem(example, (), ()))
    return task.verify([Rollout(state, (), (), (), True, response, 0) for response in responses])


def outcomes(*judged: Feedback) -> list[tuple[str, str]]:
    return [(feedback.verdict.value, feedback.evidence["outcome"]) for feedback in judged]


# --- HumanEval --------------------------------------------------------------------------------------------------------


def test_humaneval_asks_for_the_function_and_shows_no_test(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps(EVEN) + "\n")
    (example,) = humaneval(tmp_path).examples("test")
    assert example.question == f"```python\n{EVEN['prompt'].rstrip()}\n```\n\nWrite it."
    assert (example.id, example.level) == ("humaneval/HumanEval/0", "all")
    assert example.reference == f"```python\n{EVEN['prompt']}{EVEN['canonical_solution'].rstrip()}\n```"
    (bare,) = humaneval(tmp_path, instruction="").examples("test")
    assert bare.question == EVEN["prompt"]


def test_a_whole_program_and_a_completion_are_both_judged(tmp_path: Path, judge: AssertVerifier) -> None:
    task = humaneval(written(tmp_path, "h.jsonl", EVEN), judge)
    body = EVEN["canonical_solution"]
    found = judged(
        task, "test",
        body,  # as a base model goes on
        f"Here it is:\n```python\ndef halves(numbers, keep=False):\n{body}```",  # with the prompt's helper and imports
        "```python\nhalves = lambda numbers, keep=None: [n // 2 for n in numbers if n % 2 == 0]\n```",
        "    return [half(n) for n in numbers]\n",
        "```python\ndef halves(numbers, keep=False):\n    return tuple(n // 2 for n in numbers if n % 2 == 0)\n```",
        "```python\ndef halves(numbers):\n    return []\n```",
        "```python\ndef other(numbers):\n    return []\n```",
        "    return numbers[\n",
        "    while True: pass\n",
        "",
    )  # fmt: skip
    assert outcomes(*found) == [
        ("right", "passed"), ("right", "passed"), ("right", "passed"), ("wrong", "wrong_answer"),
        ("wrong", "wrong_answer"),
        ("wrong", "runtime_error"), ("wrong", "wrong_answer"), ("wrong", "compile_error"), ("wrong", "time_out"),
        ("unparseable", "no_program"),
    ]  # fmt: skip


def test_an_error_is_reported_at_its_line_of_the_response(tmp_path: Path, judge: AssertVerifier) -> None:
    task = humaneval(written(tmp_path, "h.jsonl", EVEN), judge)
    whole, rest = judged(
        task, "test", "```python\ndef halves(n, keep=0):\n    x = 1\n    return n / 0\n```", "    x = 1\n    return n\n"
    )  # fmt: skip
    assert [(f.evidence["error"], f.evidence["line"]) for f in (whole, rest)] == [("TypeError", 3), ("NameError", 2)]


CHEATS = [
    "class Same(list):\n    def __eq__(self, other):\n        return True\ndef halves(n, keep=0):\n    return Same()",
    "def halves(n, keep=0):\n    raise SystemExit(0)",
    "import os\ndef halves(n, keep=0):\n    os._exit(0)",
    "import sys\ndef halves(n, keep=0):\n    return sys._getframe(1).f_locals",
    "def halves(n, keep=0):\n    return [1, 2]\nprint('passed')\nraise SystemExit",
    "import builtins\nbuiltins.AssertionError = None\nbuiltins.abs = lambda x: 0\ndef halves(n, keep=0):\n    return 7",
    "import gc\ndef halves(n, keep=0):\n    word = ''.join(reversed('ATADATEM'))\n"
    "    assert not any(word in str(o) for o in gc.get_objects())\n    return [3]",
]


def test_nothing_but_the_right_values_passes(tmp_path: Path, judge: AssertVerifier) -> None:
    task = humaneval(written(tmp_path, "h.jsonl", EVEN), judge)
    found = judged(task, "test", *(f"```python\n{cheat}\n```" for cheat in CHEATS))
    assert {feedback.verdict.value for feedback in found} == {"wrong"}
    assert found[-1].evidence["outcome"] == "wrong_answer"  # the test is not in the program's process


def test_a_reference_that_does_not_pass_is_the_data_sets_error(tmp_path: Path, judge: AssertVerifier) -> None:
    wrong = {**EVEN, "canonical_solution": "    return []\n"}
    mutating = {**EVEN, "test": "def check(candidate):\n    x = [object()]\n    assert candidate(x) == []\n"}
    task = humaneval(written(tmp_path, "h.jsonl", wrong, {**mutating, "task_id": "HumanEval/1"}), judge)
    first, second = (judged(task, "test", "    return []\n", row=row)[0] for row in (0, 1))
    assert (first.verdict.value, first.evidence["message"]) == (
        "error",
        "the reference does not pass: AssertionError: ",
    )
    assert second.verdict.value == "error" and "a object, which is no plain data" in second.evidence["message"]


# --- MBPP -------------------------------------------------------------------------------------------------------------


def test_mbpp_is_split_by_its_numbers_in_both_published_formats(tmp_path: Path) -> None:
    numbers = (1, 10, 11, 510, 511, 600, 601, 974)
    rows = [{**PAIR, "task_id": number} for number in numbers]
    (tmp_path / "sanitized-mbpp.json").write_text(json.dumps(rows))
    task = mbpp(tmp_path)
    assert {split: [e.id for e in task.examples(split)] for split in MBPP.SPLITS} == {
        "test": ["mbpp/11", "mbpp/510"], "train": ["mbpp/601", "mbpp/974"], "validation": ["mbpp/511", "mbpp/600"],
    }  # fmt: skip
    assert [e.id for e in mbpp(written(tmp_path, "mbpp.jsonl", COUNT)).examples("test")] == ["mbpp/11"]


def test_mbpp_shows_its_assertions_but_not_the_challenges(tmp_path: Path, judge: AssertVerifier) -> None:
    file = written(tmp_path, "mbpp.jsonl", COUNT)
    (example,) = mbpp(file).examples("test")
    assert example.question == (
        "Write a function to count letters.\nYour code should pass these tests:\n\n"
        "assert count('aab') == {'a': 2, 'b': 1}\nassert count('') == {}"
    )
    cheat = "```python\ndef count(text):\n    return {'a': 2, 'b': 1} if text else {}\n```"
    assert outcomes(*judged(mbpp(file, judge), "test", cheat, COUNT["code"])) == [("right", "passed")] * 2
    hard = judged(mbpp(file, judge, with_challenge=True), "test", cheat)
    assert outcomes(*hard) == [("wrong", "wrong_answer")]
    assert (hard[0].evidence["passed"], hard[0].evidence["total"]) == (2, 3)


def test_values_keep_their_kinds(tmp_path: Path, judge: AssertVerifier) -> None:
    """Tuples, sets and subclasses of plain types, and what tests import for themselves."""
    task = mbpp(written(tmp_path, "mbpp.jsonl", COUNT, PAIR), judge)
    found = judged(
        task, "test", PAIR["code"], "import math\ndef distance(p, q):\n    return [math.dist(p, q), {p: 1, q: 1}]",
        "def distance(p, q):\n    return 5.0, [p]", row=1,
    )  # fmt: skip
    assert [feedback.verdict.value for feedback in found] == ["right", "right", "wrong"]


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**EVEN, "entry_point": "third"}, "task_id 'HumanEval/0': field 'entry_point': 'third', expected a function"),
        ({key: value for key, value in EVEN.items() if key != "test"}, "field 'test' is missing, expected a string"),
    ],
)
def test_rows_of_humaneval_that_do_not_fit_are_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        humaneval(written(tmp_path, "h.jsonl", row)).examples("test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_list": []}, "task_id 11: expected a field 'text' or 'prompt', and a list 'test_list' of assertions"),
        (
            {"test_list": ["assert counted('') == {}"]},
            r"name none of the functions that 'code' defines \(twice, count\)",
        ),
        ({"test_list": "assert"}, "field 'test_list': expected a list of texts, received 'assert'"),
        ({"code": "def count(:"}, "'code' or a test is no valid Python"),
    ],
)
def test_rows_of_mbpp_that_do_not_fit_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        mbpp(written(tmp_path, "mbpp.jsonl", {**COUNT, **change})).examples("test")


def test_a_split_or_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation.split: HumanEval has no split 'train'; expected test"):
        humaneval(tmp_path).examples("train")
    with pytest.raises(DataError, match=r"HumanEval.jsonl: no such file"):
        humaneval(tmp_path).examples("test")


def test_the_same_program_is_run_once(tmp_path: Path, judge: AssertVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[str | None] = []
    original = judge.sandbox.submit
    monkeypatch.setattr(judge.sandbox, "submit", lambda job: submitted.append(job.function) or original(job))
    again = replace(humaneval(written(tmp_path, "h.jsonl", {**EVEN, "test": EVEN["test"] + "\n#"}), judge))
    body = EVEN["canonical_solution"]
    assert [f.solved for f in judged(again, "test", body, body)] == [True, True]
    assert submitted == ["record", "replay", "perform", "replay"]
    assert [f.solved for f in judged(again, "test", body)] == [True]
    assert submitted[4:] == ["perform", "replay"]


def test_a_test_that_goes_another_way_has_not_passed(tmp_path: Path, judge: AssertVerifier) -> None:
    """As one that only calls again, or only asserts, where the first value lets it."""
    test = "def check(f):\n    if f([2]) == [1]:\n        f([4])\n        assert f([6]) == [3]\n"
    test += "    elif f([4]) == [9]:\n        f([8])"
    task = humaneval(written(tmp_path, "h.jsonl", {**EVEN, "test": test}), judge)
    found = judged(task, "test", EVEN["canonical_solution"], "    return []\n", "    return [9]\n")
    assert outcomes(*found) == [("right", "passed"), ("wrong", "wrong_answer"), ("wrong", "wrong_answer")]
    messages = [feedback.evidence["message"] for feedback in found[1:]]
    assert messages == ["fewer calls than those of the reference", "other calls than those of the reference"]


def test_names_are_pythons_own(tmp_path: Path, judge: AssertVerifier) -> None:
    """Sites import ``Counter`` and ``math`` by default; the published tests do not."""
    (found,) = judged(
        mbpp(written(tmp_path, "mbpp.jsonl", COUNT), judge), "test", "def count(t):\n    return Counter(t)"
    )
    assert (found.evidence["outcome"], found.evidence["error"]) == ("runtime_error", "NameError")
