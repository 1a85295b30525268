"""APPS+: one document with a function for every problem."""

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.apps import NO_JUDGE, SETTINGS, judge, only, rollout
from rrl.errors import DataError
from rrl.parts.tasks.apps_plus import APPSPlus
from rrl.types import Verdict
from rrl.verifiers.program_verifier import ProgramVerifier, Suite

__all__ = ["judge"]

pytestmark = pytest.mark.process


def plus(path: Path | None, judge: ProgramVerifier = NO_JUDGE, **changes: Any) -> APPSPlus:
    return APPSPlus(**{**SETTINGS, "path": path and str(path), "judge": judge, **changes})


def plus_row(**changes: Any) -> dict[str, Any]:
    fields = {
        "prompt": "Add.", "canonical_solution": "def solve():\n    print(sum(map(int, input().split())))",
        "starter_code": "def solve():", "inputs": ["1 2\n"], "outputs": ["3\n"], "difficulty": "introductory",
    }  # fmt: skip
    return {**fields, **changes}


def document(folder: Path, *rows: dict[str, Any], place: str = "data.json") -> Path:
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text(json.dumps(rows))
    return folder


@pytest.mark.parametrize("place", ["data.json", "data/v1/data.json", "APPS_PLUS_FINAL.json"])
def test_apps_plus_is_one_document_with_a_function_for_every_problem(
    place: str, judge: ProgramVerifier, tmp_path: Path
) -> None:
    method = {
        "canonical_solution": "class Solution:\n    def add(self, a: int, b: int) -> List[int]:\n        return a + b",
        "starter_code": "class Solution:\n    def add(self, a: int, b: int) -> List[int]:",
        "inputs": [[1, 2]], "outputs": [[3]],
    }  # fmt: skip
    task = plus(document(tmp_path, plus_row(), plus_row(**method), place=place), judge, holdout=0.0)
    script, called = task.examples("train")
    assert (script.id, script.level) == ("apps_plus/0", "introductory")
    assert Suite.of(script.answer) == Suite(function=None, entry="solve", inputs=("1 2\n",), outputs=("3\n",))
    assert Suite.of(called.answer) == Suite(function="add", entry=None, inputs=([1, 2],), outputs=([3],))
    assert [f.verdict for f in task.verify([rollout(e.reference, e) for e in (script, called)])] == [Verdict.RIGHT] * 2


def test_apps_plus_takes_other_likely_names_of_fields(tmp_path: Path) -> None:
    renamed = plus_row(fn_name="main", problem_id=9)
    renamed["question"], renamed["solution"] = renamed.pop("prompt"), renamed.pop("canonical_solution")
    example = only(plus(document(tmp_path, renamed), holdout=0.0))
    assert (example.id, Suite.of(example.answer).entry) == ("apps_plus/9", "main")


def test_a_title_in_the_field_name_is_no_function(tmp_path: Path) -> None:
    example = only(plus(document(tmp_path, plus_row(name="Two Sum")), holdout=0.0))
    assert Suite.of(example.answer).entry != "Two Sum"


def test_one_file_has_no_third_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split 'valid': the data are one file"):
        plus(document(tmp_path, plus_row()), holdout=0.5).examples("valid")


def test_apps_plus_with_unknown_fields_reports_what_was_found_and_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        plus(document(tmp_path, {"text": "Add.", "inputs": [], "starter_code": ""})).examples("train")
    assert "fields ['text', 'inputs', 'starter_code'], expected also one of prompt, question" in caught.value.faults[0]
    assert [fault.rsplit(" ", 1)[1] for fault in caught.value.faults[1:-1]] == ["solution", "outputs"]


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        ("[", "malformed JSON"),
        ("{}", "expected a list of objects"),
        ("[]", "expected a list of objects"),
        ("[1]", "item 0: expected an object"),
    ],
)
def test_apps_plus_that_is_no_list_of_objects_is_refused(content: str, reported: str, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(DataError, match=reported):
        plus(tmp_path).examples("train")


def test_apps_plus_rows_that_cannot_be_read_are_reported(tmp_path: Path) -> None:
    mixed = plus_row(inputs=["1", [2]], outputs=["1", 2])
    unnamed = plus_row(starter_code="", canonical_solution="x = 1", inputs=[[1]], outputs=[1])
    with pytest.raises(DataError) as caught:
        plus(document(tmp_path, mixed, unnamed, plus_row(canonical_solution=7))).examples("train")
    reported = ("expected a list of arguments for each call", "names a function", "expected texts")
    assert all(part in fault for part, fault in zip(reported, caught.value.faults, strict=False))
    with pytest.raises(DataError, match=r"train, row 1: fields .* expected also outputs"):
        lacking = plus_row()
        del lacking["outputs"]
        plus(document(tmp_path, plus_row(), lacking)).examples("train")
    with pytest.raises(DataError, match="APPS\\+ is not on the hub"):
        plus(None).examples("train")
