"""MATH: the real data, files and splits, and training."""

import gzip
import json
import os
import random
import re
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import rrl.parts.tasks.math
from fixtures.math_task import HERE, LIMITS, judge, make_task, rollout
from rrl.cli import train
from rrl.config.check import load
from rrl.errors import ConfigError, DataError
from rrl.parts.tasks.math import MATH
from rrl.types import Example, Feedback, Verdict
from rrl.verifiers.math_verifier import MathVerifier

__all__ = ["judge"]


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


def test_a_problem_with_an_empty_box_is_left_out_and_reported(
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


def test_a_wrong_split_is_reported_with_the_known_ones(judge: MathVerifier) -> None:
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
    ("key", "reported"),
    [
        ("task.answer_format=loose", "task.answer_format: expected 'boxed' | 'flexible', got 'loose'"),
        ("task.judge.workers=0", "task.judge.workers: expected at least 1 or null, got 0"),
        ("task.judge.seconds=0", "task.judge.seconds, patience: expected 0 < seconds <= patience, got 0"),
        ("task.judge.max_characters=0", "task.judge.max_characters: expected at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_key(key: str, reported: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("train", ["task=math", key])
    assert reported in str(caught.value)


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
    reported = re.findall(r"^\| `(task\.[\w.]+)` \|.*\| `([^`]+)` \|$", text, re.MULTILINE)
    expected = {key: value for key, value in leaves.items() if not key.endswith("_target_")}
    assert {key: yaml.safe_load(value) for key, value in reported} == expected


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
