"""A run from the command line to its result, and its evaluation."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from fixtures.commands import TINY, arguments, failing, refused
from rrl.cli import evaluate, train
from rrl.config.check import load
from rrl.errors import ConfigError

pytestmark = pytest.mark.usefixtures("own_messages", "own_cache")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run."""
    folder = tmp_path_factory.mktemp("cli")
    logging.getLogger("rrl").setLevel(logging.INFO)  # as the commands do
    train._train(arguments(folder))
    return folder / "run"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_writes_its_directory(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml", "manifest.json", "metrics.jsonl", "evaluations.jsonl", "evaluations", "rollouts", "result.json",
        "actor", "checkpoints", "logs", "start", "status.json", ".lock",
    }  # fmt: skip
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["step-000001", "step-000002"]
    assert [path.name for path in (finished / "rollouts").iterdir()] == ["step-000002.jsonl"]


def test_the_runs_log_reports_its_course_and_ends_with_its_closing_lines(finished: Path) -> None:
    lines = (finished / "logs" / "rank-0.log").read_text().splitlines()
    reported = [re.sub(r"^\S+ INFO |, \d+ s.*", "", line) for line in lines]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} ", line) for line in lines)
    assert reported[0] == "rrl: warm start begins"
    assert "plan: 8 starts x 1 = 8 sequences -> 2 mini-batches x 2 epochs = 4 optimiser steps" in reported
    for wanted in ("rrl: training begins", "rrl: training testing", "rrl: training step 1: save_checkpoint"):
        assert wanted in reported
    assert any(line.startswith("rrl: training 100 %, step 2, ") and "accuracy" in line for line in reported)
    assert any(line.startswith("finished after 2 steps, ") for line in reported)
    assert f"model: {finished / 'actor'}" in reported
    assert reported[-1] == f"see all runs: rrl-status {finished.parent}"


def test_the_saved_configuration_is_the_one_that_was_used(finished: Path) -> None:
    config, _ = load("train", arguments(finished.parent))
    assert yaml.safe_load((finished / "config.yaml").read_text()) == config


def test_the_actor_is_a_model_of_transformers_that_moved_since_the_first_step(finished: Path) -> None:
    first, last, final = (
        AutoModelForCausalLM.from_pretrained(finished / name).state_dict()
        for name in ("checkpoints/step-000001/actor", "checkpoints/step-000002/actor", "actor")
    )
    tokenizer = AutoTokenizer.from_pretrained(finished / "actor")
    assert tokenizer("3 add1 =").input_ids[0] == tokenizer.bos_token_id
    assert not torch.equal(first["lm_head.weight"], last["lm_head.weight"])
    torch.testing.assert_close(last, final, rtol=0, atol=0)


def test_the_result_has_the_first_and_the_last_evaluation_and_the_budget(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    evaluations = rows(finished / "evaluations.jsonl")
    assert (result["before"], result["after"]) == (evaluations[0], evaluations[-1])
    assert (result["steps"], [e["step"] for e in evaluations]) == (2, [0, 2])
    assert result["tokens_generated"] == evaluations[-1]["tokens_generated"] > 0


def test_a_run_without_a_directory_makes_one_up_and_never_the_same_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, parts = load("train", ["seed=7"])
    first = parts.run.choose("trace-rrl")
    first.mkdir(parents=True)
    second = parts.run.choose("trace-rrl")
    assert str(first).startswith("runs/trace-rrl-s7-")
    assert second != first


def test_numbers_that_are_not_finite_stop_the_run_at_their_batch_and_keep_what_was_saved(tmp_path: Path) -> None:
    (reported,) = refused(
        tmp_path, algo="ppo", critic="own", policy__actor_lr=1e30,
        trainer__critic_warmup=1, trainer__ppo_epochs=1, trainer__total_training_steps=3,
    )  # fmt: skip
    assert reported.startswith("step 2: mini-batch 2: loss: actor nan, critic ")
    assert "lower policy.actor_lr" in reported
    assert [row["step"] for row in rows(tmp_path / "run" / "metrics.jsonl")] == [0, 1]
    saved = tmp_path / "run" / "checkpoints" / "step-000001" / "actor"
    weights = AutoModelForCausalLM.from_pretrained(saved).state_dict().values()
    assert all(bool(tensor.isfinite().all()) for tensor in weights)
    assert not (tmp_path / "run" / "result.json").exists()


def test_weights_that_left_their_range_stop_the_run_at_the_next_text(tmp_path: Path) -> None:
    (reported,) = refused(
        tmp_path, algo="ppo", critic="own", policy__actor_lr=1e30, trainer__ppo_epochs=1,
        trainer__ppo_mini_batch_size=8, trainer__total_training_steps=3,
    )  # fmt: skip
    assert reported == (
        "step 2: logits: nan; expected numbers; the weights have left their range: lower policy.actor_lr or set "
        "policy.grad_clip"
    )


# --- evaluation -------------------------------------------------------------------------------------------------------


def measured(capsys: pytest.CaptureFixture[str], *given: str) -> dict[str, Any]:
    capsys.readouterr()
    evaluate._evaluate(given)
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_the_command_reproduces_the_runs_own_last_evaluation(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = measured(capsys, str(finished))
    last = rows(finished / "evaluations.jsonl")[-1]
    assert {key: result[key] for key in last if key in result} == {
        key: value for key, value in last.items() if key not in ("step", "tokens_generated")
    }
    assert result["model"]["path"] == str(finished / "actor")


def test_every_response_of_an_evaluation_is_written_with_its_verdict(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "responses.jsonl"
    result = measured(capsys, str(finished), f"responses={file}")
    written, own = rows(file), rows(finished / "evaluations" / "step-000002.jsonl")
    assert [path.name for path in sorted((finished / "evaluations").iterdir())] == [
        "step-000000.jsonl",
        "step-000002.jsonl",
    ]
    assert [{**row, "step": 2} for row in written] == [{"task": "trace", **row, "version": 0} for row in own]
    for mode in ("greedy", "mean@2"):
        mine = [row for row in own if row["mode"] == mode]
        assert len(mine) == result["problems"] * (1 if mode == "greedy" else 2)
        assert sum(row["verdict"] == "right" for row in mine) == result[mode]["verdicts"]["right"]
        assert sum(not row["finished"] for row in mine) == round(result[mode]["truncated"] * len(mine))


def test_a_result_says_how_it_came_about(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "result.json"
    given = ("evaluation.n=3", "evaluation.seed=9", "evaluation.temperature=0.5", "evaluation.limit=2", f"output={out}")
    result = measured(capsys, f"from_run={finished}", *given)
    part = result["mean@3"]
    assert (part["n_samples"], part["n_problems"], result["problems"], result["seed"]) == (3, 6, 6, 9)
    assert part["interval95"][0] <= part["accuracy"] <= part["interval95"][1]
    assert part["sampling"] == {"temperature": 0.5, "top_p": 1.0, "top_k": 0, "max_new_tokens": 16, "stop": []}
    assert result["greedy"]["sampling"]["temperature"] == 0.0
    assert (result["template"], result["task"], result["split"]) == ("<bos>{question}", "trace", "test")
    assert json.loads(out.read_text()) == result


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        (
            "output={0}/config.yaml",
            "output: '{0}/config.yaml' exists; expected a new file; give another name or move it away",
        ),
        (
            "output={0}/config.yaml/x",
            "output: nothing can be written in '{0}/config.yaml' (Not a directory: '{0}/config.yaml'); expected a "
            "folder that this user may create and write to; give another output",
        ),
        ("from_run=elsewhere", "from_run: given twice, as '{0}' and 'elsewhere'; keep one"),
        ("evaluation.n=x", "evaluation.n: expected int, got 'x'"),
    ],
)
def test_evaluation_faults_are_reported_before_the_model_loads(
    given: str, reported: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rrl.training.models.HuggingFace.load", failing(AssertionError("a model was loaded")))
    with pytest.raises(ConfigError) as caught:
        evaluate._evaluate([f"from_run={finished}", given.format(finished)])
    assert caught.value.faults == (reported.format(finished),)


def test_an_evaluation_needs_no_training_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"question": "1+1?", "answer": "It is <<1+1=2>>2.\n#### 2"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    sizes = [f"{key}={value}" for key, value in TINY.items() if key.startswith(("model.", "evaluation."))]
    given = ["task=gsm8k", "warmstart=none", f"data.path={tmp_path}", "data.max_response_length=4", *sizes]
    assert measured(capsys, "run.threads=1", *given)["mean@2"]["n_problems"] == 1
