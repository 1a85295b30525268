"""APPS: rows to examples, bad rows, and the real rows judged by the real sandbox."""

import gzip
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.apps import NO_JUDGE, SETTINGS, judge, only, rollout
from rrl.cli import train
from rrl.config.check import load
from rrl.errors import DataError
from rrl.parts.tasks.apps import APPS
from rrl.parts.tasks.apps_plus import APPSPlus
from rrl.types import Verdict
from rrl.verifiers.program_verifier import ProgramVerifier, Suite

__all__ = ["judge"]

CONF = Path(__file__).parents[3] / "conf"


@pytest.fixture(scope="module")
def file() -> Path:
    """The rows that are at hand, from $RRL_DATA or from shared/data beside the repository."""
    root = Path(os.environ.get("RRL_DATA", Path(__file__).parents[4] / "shared" / "data"))
    path = root / "apps/train_subset.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no {path}: set RRL_DATA to a folder that holds apps/train_subset.jsonl.gz")
    return path


@pytest.fixture(scope="module")
def raw(file: Path) -> dict[int, dict[str, Any]]:
    """The same, read without the code under test."""
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).decode().split("\n") if line]
    return {row["problem_id"]: row for row in rows}


def apps(path: Path | None, judge: ProgramVerifier = NO_JUDGE, **changes: Any) -> APPS:
    return APPS(**{**SETTINGS, "path": path and str(path), "hub_id": "codeparrot/apps", "judge": judge, **changes})


def row(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A row as in the hub's data set."""
    fields = {
        "problem_id": number, "question": "Add.", "solutions": json.dumps(["print(sum(map(int, input().split())))"]),
        "input_output": json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]}), "difficulty": "interview", "url": "",
        "starter_code": "",
    }  # fmt: skip
    return {**fields, **changes}


def write(folder: Path, *rows: dict[str, Any], split: str = "train") -> Path:
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return folder


# Rows


def test_a_script_becomes_a_question_a_reference_and_tests(tmp_path: Path) -> None:
    write(tmp_path, row(7, question="  Add.\n"), split="train")
    write(tmp_path, row(8), split="test")
    example = only(apps(tmp_path))
    assert (example.id, example.level, example.strata) == ("apps/train/7", "interview", {"kind": "script"})
    assert example.question == "Add.\n\nRead and print."
    assert example.reference == "```python\nprint(sum(map(int, input().split())))\n```"
    assert Suite.of(example.answer) == Suite(function=None, entry=None, inputs=("1 2\n",), outputs=("3\n",))
    assert only(apps(tmp_path), "test").id == "apps/test/8"


def test_a_called_function_brings_its_starter_code(tmp_path: Path) -> None:
    tests = {"fn_name": "add", "inputs": [[1, [2]]], "outputs": [[3]]}
    write(tmp_path, row(starter_code="def add(a, b):\n\t", input_output=json.dumps(tests)), row(1))
    example = apps(tmp_path, holdout=0.0).examples("train")[0]
    assert example.question == "Add.\n\nStarter code:\n```python\ndef add(a, b):\n\t\n```\n\nReturn."
    assert example.strata == {"kind": "call"}
    assert Suite.of(example.answer) == Suite(function="add", entry=None, inputs=([1, [2]],), outputs=([3],))


def test_the_reference_is_the_first_solution_that_compiles(tmp_path: Path) -> None:
    solutions = ["print 1", "return 1", "x = '\\0'\r\ny = 1\n", "z = 1"]
    write(tmp_path, row(solutions=json.dumps(solutions)))
    assert only(apps(tmp_path, holdout=0.0)).reference == "```python\nx = '\\0'\ny = 1\n```"


def test_lines_of_texts_are_joined_and_ids_of_the_hubs_files_are_taken(tmp_path: Path) -> None:
    tests = {"inputs": [["1", "2"]], "outputs": [["3"]]}
    hub = row(input_output=json.dumps(tests))
    hub["id"] = hub.pop("problem_id") + 5
    example = only(apps(write(tmp_path, hub), holdout=0.0))
    assert (example.id, Suite.of(example.answer).inputs) == ("apps/train/5", ("1\n2",))


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"max_tests": 2}, [0, 1]),
        ({"max_test_bytes": 40}, [0, 2, 3]),  # [["0"], ...]: 10 bytes each, the second 60
        ({"max_test_bytes": 20}, [0, 2]),
        ({"max_test_bytes": 19, "max_tests": 1}, [0]),
    ],
)
def test_the_first_tests_that_fit_are_kept(
    changes: dict[str, int], kept: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = ["0", "1" * 51, "2", "3"]
    tests = {"inputs": inputs, "outputs": ["a", "b", "c", "d"]}
    example = only(apps(write(tmp_path, row(input_output=json.dumps(tests))), holdout=0.0, **changes))
    assert Suite.of(example.answer).inputs == tuple(inputs[i] for i in kept)
    assert ("train: 1 x shorten: tests beyond max_tests" in caplog.text) == bool(changes)


def test_integers_that_python_cannot_read_cost_their_test_alone(tmp_path: Path) -> None:
    tests = '{"fn_name": "f", "inputs": [[1], [%s], [3]], "outputs": [1, 2, 3]}' % ("9" * 5000)
    example = only(apps(write(tmp_path, row(input_output=tests)), holdout=0.0))
    assert Suite.of(example.answer).outputs == (1, 3)


# Rows without something


@pytest.mark.parametrize("tests", ["", " \n", "{}", '{"inputs": [], "outputs": []}'])
def test_rows_without_tests_are_dropped_and_counted_or_refused(
    tests: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, row(0, input_output=tests), row(1), row(2, input_output=tests))
    assert only(apps(tmp_path, holdout=0.0)).id == "apps/train/1"
    assert "train: 2 x drop: no tests" in caplog.text
    with pytest.raises(DataError) as caught:
        apps(tmp_path, holdout=0.0, without_tests="refuse").examples("train")
    assert list(caught.value.faults[:-1]) == ["train, apps/train/0: no tests", "train, apps/train/2: no tests"]


@pytest.mark.parametrize("solutions", ["", "[]", '["return 1", "print 2"]'])
def test_rows_without_a_reference_are_kept_dropped_or_refused(
    solutions: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, row(0, solutions=solutions), row(1))
    kept, other = apps(tmp_path, holdout=0.0).examples("train")
    assert (kept.reference, other.reference != "") == ("", True)
    assert "train: 1 x keep: no solution that compiles" in caplog.text
    assert only(apps(tmp_path, holdout=0.0, without_reference="drop")).id == "apps/train/1"
    with pytest.raises(DataError, match="train, apps/train/0: no solution that compiles"):
        apps(tmp_path, holdout=0.0, without_reference="refuse").examples("train")
    assert {e.id for e in apps(tmp_path, holdout=0.0).demonstrations(5, seed=0)} == {"apps/train/1"}


MALFORMED = [
    ({"input_output": "{"}, "field 'input_output': malformed JSON, Expecting property name"),
    ({"input_output": "[1]"}, "field 'input_output': expected a JSON object, received list"),
    ({"input_output": '{"inputs": ["1"], "outputs": []}'}, "1 inputs and 0 outputs, expected as many"),
    ({"input_output": '{"inputs": "1", "outputs": "2"}'}, "expected lists 'inputs' and 'outputs'"),
    ({"input_output": '{"inputs": [1], "outputs": ["2"]}'}, "expected a text for a script, received 1"),
    ({"input_output": '{"fn_name": "f", "inputs": ["1"], "outputs": [1]}'}, "expected a list of arguments for each"),
    ({"input_output": '{"fn_name": "f g", "inputs": [[1]], "outputs": [1]}'}, "function 'f g', expected a name"),
    ({"solutions": "print(1)"}, "field 'solutions': malformed JSON"),
    ({"solutions": '{"a": 1}'}, "field 'solutions': expected a JSON list of programs"),
    ({"solutions": "[1]"}, "field 'solutions': expected a JSON list of programs"),
    ({"problem_id": "x"}, "field 'problem_id': expected an integer, received 'x'"),
]


@pytest.mark.parametrize(("changes", "reported"), MALFORMED)
def test_rows_that_cannot_be_read_are_reported_or_dropped(
    changes: dict[str, Any], reported: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, row(0), row(1, **changes), row(2, **{"problem_id": 2, **changes}))
    with pytest.raises(DataError) as caught:
        apps(tmp_path, holdout=0.0).examples("train")
    assert [fault.split(":")[0] for fault in caught.value.faults[:-1]] == ["train, row 1", "train, row 2"]
    assert reported in caught.value.faults[0]
    assert "task.malformed" in caught.value.faults[-1]
    assert only(apps(tmp_path, holdout=0.0, malformed="drop")).id == "apps/train/0"
    assert "train: 2 x drop: cannot be read" in caplog.text


def test_names_that_occur_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train, row 2: apps/train/4 occurs twice"):
        apps(write(tmp_path, row(4), row(5), row(4)), holdout=0.0).examples("train")


def test_missing_fields_are_reported_by_line(tmp_path: Path) -> None:
    short = row()
    del short["input_output"]
    with pytest.raises(DataError, match="line 2: field 'input_output' is missing, expected a string"):
        apps(write(tmp_path, row(), short)).examples("train")


# Where rows come from


def test_without_a_test_file_rows_are_held_out_for_good(tmp_path: Path) -> None:
    write(tmp_path, *(row(number) for number in range(200)))
    parts = {split: [e.id for e in apps(tmp_path).examples(split)] for split in ("train", "test")}
    assert not set(parts["train"]) & set(parts["test"])
    assert len(parts["train"]) + len(parts["test"]) == 200
    assert 25 <= len(parts["test"]) <= 55
    write(tmp_path, *(row(number) for number in reversed(range(250))))
    assert set(parts["test"]) <= {e.id for e in apps(tmp_path).examples("test")}
    assert not {e.id for e in apps(tmp_path).examples("train")} & set(parts["test"])


def test_a_single_file_serves_as_well_and_nothing_held_out_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path, row(0), row(1), split="some")
    assert len(apps(tmp_path / "some.jsonl", holdout=0.0).examples("train")) == 2
    with pytest.raises(DataError, match=r"task\.holdout: 0, and there is no file of test rows"):
        apps(tmp_path / "some.jsonl", holdout=0.0).examples("test")
    with pytest.raises(DataError, match="no such file"):
        apps(tmp_path).examples("train")


def test_the_hubs_files_are_read_and_not_its_loading_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[Any, ...]] = []

    class Rows:
        def to_list(self) -> list[dict[str, Any]]:
            return [row(3)]

    def load_dataset(source: str, **arguments: Any) -> Rows:
        asked.append((source, arguments["split"], arguments["data_files"]))
        return Rows()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert only(apps(None), "test").id == "apps/test/3"
    assert asked == [("json", "test", {"test": "hf://datasets/codeparrot/apps/test.jsonl"})]


def test_a_folder_in_the_hubs_layout_gives_the_same_rows(tmp_path: Path) -> None:
    rows = [row(0), row(1)]
    for split in ("train", "test"):
        write(tmp_path, *rows, split=split)
    assert apps(None, hub_id=str(tmp_path)).examples("train") == apps(tmp_path).examples("train")


# The real rows


def test_the_real_rows_become_examples(file: Path, raw: dict[int, dict[str, Any]]) -> None:
    examples = {e.id: e for split in ("train", "test") for e in apps(file).examples(split)}
    assert len(examples) == len(raw) == 153
    assert Counter(e.level for e in examples.values()) == {"introductory": 51, "interview": 51, "competition": 51}
    assert Counter(e.strata["kind"] for e in examples.values()) == {"script": 140, "call": 13}
    assert [e.id for e in examples.values() if not e.reference] == ["apps/train/2036"]
    for number, given in raw.items():
        tests = json.loads(given["input_output"])
        suite = Suite.of(examples[f"apps/train/{number}"].answer)
        assert [list(suite.inputs), list(suite.outputs)] == [tests["inputs"], tests["outputs"]]


PASSING = (0, 1, 111, 2000, 2001, 2287, 2401, 2402, 2404, 2405, 2412, 4184)
"""Scripts of each difficulty; methods, with quotes in their strings; and a plain function with wrapped outputs."""


def test_real_references_pass_and_those_of_other_problems_do_not(
    file: Path, raw: dict[int, dict[str, Any]], judge: ProgramVerifier
) -> None:
    task = apps(file, judge)
    found = {int(e.id.split("/")[2]): e for split in ("train", "test") for e in task.examples(split)}
    chosen = [found[number] for number in PASSING if number in found]
    own = task.verify([rollout(e.reference, e) for e in chosen])
    assert len(chosen) >= 8
    assert [f.verdict for f in own] == [Verdict.RIGHT] * len(chosen)
    others = task.verify([rollout(chosen[i - 1].reference, e) for i, e in enumerate(chosen)])
    assert [f.verdict for f in others] == [Verdict.WRONG] * len(chosen)


@pytest.mark.slow
def test_as_many_references_pass_as_the_data_are_said_to_have(
    file: Path, raw: dict[int, dict[str, Any]], judge: ProgramVerifier
) -> None:
    task = apps(file, judge)
    examples = [e for split in ("train", "test") for e in task.examples(split)]
    passed: Counter[str] = Counter()
    tried = [(e, s) for e in examples for s in json.loads(raw[int(e.id.split("/")[2])]["solutions"])[:3]]
    feedback = task.verify([rollout(f"```python\n{solution}\n```", e) for e, solution in tried])
    firsts = {e.id: f.solved for (e, _), f in reversed(list(zip(tried, feedback, strict=True)))}
    passed.update(e.id for (e, _), f in zip(tried, feedback, strict=True) if f.solved)
    assert sum(firsts.values()) >= 142
    assert len(passed) >= 149


# The whole


def test_the_yamls_state_every_field() -> None:
    for name, kind in (("apps", APPS), ("apps_plus", APPSPlus)):
        stated = yaml.safe_load((CONF / f"task/{name}.yaml").read_text(encoding="utf-8"))["task"]
        assert stated.pop("_target_") == f"{kind.__module__}.{kind.__name__}"
        assert {*stated, "path"} == kind.__dataclass_fields__.keys()  # the path is data.path


def test_checking_a_configuration_starts_no_sandbox(tmp_path: Path) -> None:
    _, parts = load("train", ["task=apps", f"data.path={tmp_path}", "sandbox.workers=3", "sandbox.limits.file_mb=7"])
    assert isinstance(parts.task, APPS)
    assert (parts.task.judge.sandbox.workers, parts.task.judge.sandbox.limits.file_mb) == (3, 7)
    assert not parts.task.judge.sandbox._pool.workers


def test_settings_out_of_range_are_refused() -> None:
    for key, reported in (
        ("holdout", "a number from 0 to 1"),
        ("max_tests", "at least 1"),
        ("max_test_bytes", "at least"),
    ):
        with pytest.raises(ValueError, match=f"{key}: expected {reported}"):
            replace(apps(None), **{key: -1})


TINY = {
    "task": "apps", "model.hidden_size": 32, 
    "model.num_hidden_layers": 1, "warmstart": "none", "data.max_prompt_length": 900, "data.max_response_length": 16,
    "trainer.train_batch_size": 4, "trainer.ppo_mini_batch_size": 4, "trainer.total_training_steps": 1,
    "trainer.critic_warmup": 0, "evaluation.limit": 1, "evaluation.n": 0, "run.threads": 1, "run.rollout_freq": 1,
    "sandbox.workers": 2,
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Trains with the tiny model and returns the run's directory."""

    def train_it(**changes: Any) -> Path:
        places = {"run.dir": tmp_path / "run"}
        train._train([f"{key}={value}" for key, value in {**TINY, **places, **changes}.items()])
        return tmp_path / "run"

    return train_it


def test_a_step_of_training_on_real_rows(file: Path, run: Callable[..., Path]) -> None:
    folder = run(**{"data.path": file, "algo": "ppo"})
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    outcomes = {name: value for row in metrics for name, value in row.items() if name.startswith("outcome/")}
    assert sum(outcomes.values()) == 1
    assert outcomes.keys() <= {f"outcome/{name}" for name in ("compile_error", "runtime_error", "wrong_answer")}
    (dump,) = (folder / "rollouts").iterdir()
    evidence = json.loads(dump.read_text().split("\n")[0])["evidence"]
    assert evidence["total"] >= 1
