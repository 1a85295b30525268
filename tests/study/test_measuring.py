"""rrl-evaluate on several tasks: what each is given, all faults before a model loads, and the model loaded once."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rrl.cli import evaluate
from rrl.config.check import load
from rrl.errors import UsageError
from rrl.study.measuring import by_task
from rrl.training.models import TinyLlama

MODEL = ("model=tiny", "warmstart=none", "model.hidden_size=16", "model.num_hidden_layers=1", "run.threads=1")
SHORT = ("data.max_response_length=4", "evaluation.n=2")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of GSM8K and a file of questions of one's own."""
    written = {"gsm8k/test": [("1+1?", "It is 2.\n#### 2"), ("2+2?", "#### 4")], "own/test": [("Capital?", "Paris")]}
    for name, rows in written.items():
        file = tmp_path / f"{name}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows))
    return tmp_path


def both(data: Path) -> list[str]:
    return ["task=gsm8k,jsonl", f"gsm8k.data.path={data}/gsm8k", f"jsonl.data.path={data}/own", *MODEL, *SHORT]


def measured(capsys: pytest.CaptureFixture[str], *given: str) -> dict[str, Any]:
    capsys.readouterr()
    evaluate._evaluate(given)
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def faults(*given: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        evaluate._evaluate(given)
    return list(caught.value.faults)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the tiny model was loaded for."""
    found: list[Any] = []
    original: Callable[..., Any] = TinyLlama.load

    def load(self: TinyLlama, vocabulary: tuple[str, ...] | None) -> Any:
        found.append(vocabulary)
        return original(self, vocabulary)

    monkeypatch.setattr(TinyLlama, "load", load)
    monkeypatch.setattr(TinyLlama, "outline", original)
    return found


def test_a_key_behind_the_name_of_a_task_is_for_that_task_alone() -> None:
    given = ["task=gsm8k,math", "math.evaluation.split=math500", "seed=1", "gsm8k.data.path=a.b", "model=hf"]
    assert by_task(given) == {
        "gsm8k": ["task=gsm8k", "seed=1", "data.path=a.b", "model=hf"],
        "math": ["task=math", "evaluation.split=math500", "seed=1", "model=hf"],
    }
    assert by_task(["task=gsm8k", "data.path=x"]) == {"gsm8k": ["task=gsm8k", "data.path=x"]}
    assert by_task(["seed=1"]) == {"": ["seed=1"]}


def test_several_tasks_are_measured_as_each_alone_by_a_model_that_is_loaded_once(
    data: Path, loads: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    result = measured(capsys, *both(data), f"responses={data}/r.jsonl", f"output={data}/out.json")
    assert loads == [None]
    assert list(result["tasks"]) == ["gsm8k", "jsonl"]
    alone = measured(capsys, "task=gsm8k", f"data.path={data}/gsm8k", *MODEL, *SHORT)
    assert alone == {"task": "gsm8k", "model": result["model"], **result["tasks"]["gsm8k"]}
    assert json.loads((data / "out.json").read_text()) == result
    rows = [json.loads(line) for line in (data / "r.jsonl").read_text().splitlines()]
    assert [(row["task"], row["mode"]) for row in rows] == [
        *[("gsm8k", "greedy")] * 2, *[("gsm8k", "mean@2")] * 4, ("jsonl", "greedy"), *[("jsonl", "mean@2")] * 2,
    ]  # fmt: skip


def test_all_faults_of_all_tasks_come_before_the_model(data: Path, loads: list[Any]) -> None:
    assert faults("task=gsm8k,mth", *MODEL, "evaluation.nn=2", "mth.x=1", "gsm8k.evaluation.limit=0") == [
        "evaluation.nn: no such key; did you mean 'evaluation.n'?",
        "gsm8k: evaluation.limit: expected at least 1 or null, got 0",
        "mth: task: no such choice 'mth'; did you mean 'math'? valid: " + ", ".join(sorted(TASKS)),
        "mth: x: no such key; --cfg prints all keys",
    ]
    found = faults("task=gsm8k,jsonl", *MODEL, f"gsm8k.data.path={data}/gsmk")
    assert found[0].startswith(f"gsm8k: {data}/gsmk/test.jsonl: no such file; nearest names in {data}: gsm8k")
    assert found[-1] == "jsonl: data.path: missing; expected a .jsonl file, or a folder with train.jsonl"
    assert loads == []


TASKS = [path.stem for path in Path(__file__).parents[2].glob("conf/task/*.yaml")]


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        (
            ["task=gsm8k,,math"],
            ["task=gsm8k,,math: a name is empty; expected names between commas, as in task=gsm8k,math"],
        ),
        (["task=gsm8k,gsm8k"], ["task: 'gsm8k' twice; give it once"]),
        (
            ["task=gsm8k,math", "apps.data.path=x"],
            ["apps.data.path=x: for the task apps, which is not measured here; expected one of gsm8k, math"],
        ),
        (
            ["task=trace,minicode", "minicode.model.hidden_size=32"],
            [
                "warmstart: is trained on the examples of one task; for several tasks give warmstart=none, or "
                "from_run=RUN or model=hf model.path=FOLDER for a model that is there",
                "model: one model is measured on all tasks; give model keys without the name of a task",
                "model: made of the words of a task, and these tasks have different words; give one task",
            ],
        ),
        (
            ["task=gsm8k,math", "judge=openai", "judge.model=x", "warmstart=none"],
            ["judge: compares two models on one task; expected one task, or judge=none"],
        ),
        (
            ["task=trace", "responses=x.json", "output=./x.json"],
            ["output and responses: both 'x.json'; expected a file for each"],
        ),
        (["task=trace", "against=sft"], ["against: needs a judge, as in judge=openai, and there is none; give one"]),
    ],
)  # fmt: skip
def test_tasks_that_do_not_go_together_are_refused(given: list[str], reported: list[str], loads: list[Any]) -> None:
    assert faults(*given) == reported
    assert loads == []


def test_a_runs_actor_on_another_task_keeps_model_engine_and_evaluation_of_the_run(tmp_path: Path) -> None:
    composed, _ = load("train", ["evaluation.n=2", "engine.temperature=0.7", "task.train_per_level=7", "algo=rrl"])
    folder = tmp_path / "run"
    (folder / "actor").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(composed, sort_keys=False))
    other, parts = load("evaluate", ["task=math", "evaluation.split=math500"], run=str(folder))
    assert (other["data"]["name"], parts.engine.sampling.max_new_tokens, parts.warmstart) == ("math", 768, None)
    assert (parts.model.path, parts.engine.temperature, parts.evaluation.n) == (str(folder / "actor"), 0.7, 2)
    assert parts.engine.sampling.stop == ("\nProblem:",)
    own, parts = load("evaluate", ["task=trace"], run=str(folder))
    assert (own["data"]["name"], parts.task.train_per_level) == ("trace", 7)


def test_a_full_disk_takes_nothing_of_what_was_measured(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, rows: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("rrl.records.run_directory.append", refuse)
    with pytest.raises(OSError, match="No space left"):
        evaluate._evaluate([*both(data), f"responses={data / 'r.jsonl'}", f"output={data / 'o.json'}"])
    printed = json.loads(capsys.readouterr().out)
    assert list(printed["tasks"]) == ["gsm8k"]
    assert json.loads((data / "o.json").read_text()) == printed
