"""The commands: help, exit codes, faults before anything loads, a run from start to end, warm starts, evaluation."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from rrl.cli import demo, evaluate, sft, shell, train
from rrl.config.check import load
from rrl.errors import ConfigError, DataError, DivergenceError, UsageError
from rrl.runs.assemble import prepare_evaluation
from rrl.training.models import TinyLlama
from rrl.training.warm_start import WarmStart

TINY = {
    "run.threads": 1, "run.test_freq": "null", "run.save_freq": 1, "run.rollout_freq": 2, "algo": "rrl",
    "task.train_per_level": 40, "data.level_weights": "{L3: 1, L10: 1}",
    "model.hidden_size": 16, "model.num_hidden_layers": 1,
    "warmstart.steps": 2, "warmstart.batch_size": 8,
    "trainer.train_batch_size": 8, "trainer.ppo_mini_batch_size": 4, "trainer.critic_warmup": 0, "policy.head_size": 8,
    "trainer.total_tokens": "null", "trainer.total_training_steps": 2, "evaluation.n": 2,
    "objective.entropy_coef": 0.1,
}  # fmt: skip
HEAVY = {"torch", "numpy", "transformers", "tokenizers", "deepspeed", "hydra", "omegaconf", "wandb", "datasets"}


def arguments(folder: Path, **changes: object) -> list[str]:
    """A run of a second or two in ``folder/run``; double underscores stand for dots."""
    keys = {"run.dir": folder / "run", **TINY}
    keys |= {name.replace("__", "."): value for name, value in changes.items()}
    return [f"{key}={value}" for key, value in keys.items() if value is not None]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run."""
    folder = tmp_path_factory.mktemp("cli")
    logging.getLogger("rrl").setLevel(logging.INFO)  # as the commands do
    train._train(arguments(folder))
    return folder / "run"


@pytest.fixture(autouse=True)
def own_messages() -> Iterator[None]:
    """As the commands do: messages of this project from INFO on."""
    logger = logging.getLogger("rrl")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


# --- help and exit codes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        (train, ["rrl-train trains", "algo=gsi|ppo|", "task=apps|apps_plus|gsm8k|"]),
        (sft, ["rrl-sft trains"]),
        (evaluate, ["rrl-evaluate measures"]),
    ],
)
def test_help_says_what_a_command_does_and_its_choices(
    command: Any, texts: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", "--help"])
    with pytest.raises(SystemExit) as end:
        command.main()
    said = capsys.readouterr().out
    assert not end.value.code
    assert [text for text in texts if text not in said] == []


def test_a_fault_ends_the_process_with_code_2_a_message_and_no_traceback(tmp_path: Path) -> None:
    wrong = arguments(tmp_path, seed="abc", trainer__nn=1)
    done = subprocess.run([sys.executable, "-m", "rrl.cli.train", *wrong], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "ConfigError: config does not fit the code:\n"
        "  trainer.nn: no such key; did you mean 'trainer.n'?\n"
        "  seed: expected int, got 'abc'\n"
    )
    assert not (tmp_path / "run").exists()


def failing(error: BaseException) -> Any:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ConfigError("a: b", "c: d"), 2, "ConfigError: config does not fit the code:\n  a: b\n  c: d\n"),
        (DataError("a: b"), 2, "DataError: data does not fit:\n  a: b\n"),
        (UsageError("a: b"), 2, "UsageError: cannot go on:\n  a: b\n"),
        (DivergenceError("step 3: x"), 1, "DivergenceError: training stopped:\n  step 3: x\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_every_end_has_its_code(error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.guarded(failing(error)) == code
    assert capsys.readouterr() == ("", told)


def test_a_bug_is_not_hidden() -> None:
    assert shell.guarded(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        shell.guarded(failing(ZeroDivisionError()))


def test_a_users_own_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    shell.quieten()
    assert (os.environ["TRANSFORMERS_VERBOSITY"], os.environ["TOKENIZERS_PARALLELISM"]) == ("info", "false")


def test_cfg_prints_the_composed_configuration_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train._train([*arguments(tmp_path), "--cfg"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == load("train", arguments(tmp_path))[0]
    assert not any(tmp_path.iterdir())


# --- faults that are found before a model loads -----------------------------------------------------------------------


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test in which a model is loaded."""
    monkeypatch.setattr(TinyLlama, "load", failing(AssertionError("a model was loaded")))


def refused(folder: Path, **changes: object) -> tuple[str, ...]:
    with pytest.raises(UsageError) as caught:
        train._train(arguments(folder, **changes))
    return tuple(caught.value.faults)


@pytest.mark.usefixtures("no_model")
def test_a_directory_that_holds_something_is_refused_with_both_remedies(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes").write_text("mine")
    assert refused(tmp_path) == (
        f"run.dir: '{tmp_path / 'run'}' exists and is not an empty folder; expected a new one; give another run.dir, "
        "or move the old run away",
    )
    assert (tmp_path / "run" / "notes").read_text() == "mine"


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("key", ["run.dir", "RRL_CACHE"])
def test_a_place_where_nothing_can_be_written_is_refused(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / ("file/x" if key == "RRL_CACHE" else "cache")))
    (told,) = refused(tmp_path, run__dir=tmp_path / ("file/x" if key == "run.dir" else "run"))
    assert told == (
        f"{key}: nothing can be written in '{tmp_path}/file/x' (Not a directory: '{tmp_path}/file'); expected a folder "
        f"that this user may create and write to; give another {key}"
    )


@pytest.mark.usefixtures("no_model")
def test_weights_of_levels_that_are_not_there_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, data__level_weights="{L3: 1, L4: 1, hard: 1}") == (
        "data.level_weights: no problems of level L4, hard; expected levels among L10, L3",
    )


@pytest.mark.usefixtures("no_model")
def test_data_that_is_not_there_is_refused(tmp_path: Path) -> None:
    own = [key for key in TINY if key.startswith(("task.", "data."))]
    changes: dict[str, object] = {key.replace(".", "__"): None for key in own}
    (told, remedy) = refused(tmp_path, task="gsm8k", data__path=tmp_path / "nothing", **changes)
    assert told.startswith(f"{tmp_path / 'nothing' / 'train.jsonl'}: no such file")
    assert remedy.startswith("remedy: give data.path=")


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_writes_its_directory(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml", "manifest.json", "metrics.jsonl", "evaluations.jsonl", "rollouts", "result.json",
        "actor", "checkpoints", "logs", "start", "status.json", ".lock",
    }  # fmt: skip
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["step-000001", "step-000002"]
    assert [path.name for path in (finished / "rollouts").iterdir()] == ["step-000002.jsonl"]


def test_the_runs_log_tells_of_its_course_and_ends_with_its_last_words(finished: Path) -> None:
    lines = (finished / "logs" / "rank-0.log").read_text().splitlines()
    told = [re.sub(r"^\S+ INFO |, \d+ s.*", "", line) for line in lines]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} ", line) for line in lines)
    assert told[0] == "rrl: warm start begins"
    assert "plan: 8 starts x 1 = 8 sequences -> 2 mini-batches x 2 epochs = 4 optimiser steps" in told
    for wanted in ("rrl: training begins", "rrl: training testing", "rrl: training step 1: save_checkpoint"):
        assert wanted in told
    assert any(line.startswith("rrl: training 100 %, step 2, ") and "accuracy" in line for line in told)
    assert any(line.startswith("finished after 2 steps, ") for line in told)
    assert f"model: {finished / 'actor'}" in told
    assert told[-1] == f"see all runs: rrl-status {finished.parent}"


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
    (told,) = refused(
        tmp_path, algo="ppo", critic="own", policy__actor_lr=1e30,
        trainer__critic_warmup=1, trainer__ppo_epochs=1, trainer__total_training_steps=3,
    )  # fmt: skip
    assert told.startswith("step 2: mini-batch 2: loss: actor nan, critic ")
    assert "lower policy.actor_lr" in told
    assert [row["step"] for row in rows(tmp_path / "run" / "metrics.jsonl")] == [0, 1]
    saved = tmp_path / "run" / "checkpoints" / "step-000001" / "actor"
    weights = AutoModelForCausalLM.from_pretrained(saved).state_dict().values()
    assert all(bool(tensor.isfinite().all()) for tensor in weights)
    assert not (tmp_path / "run" / "result.json").exists()


def test_weights_that_left_their_range_stop_the_run_at_the_next_text(tmp_path: Path) -> None:
    (told,) = refused(
        tmp_path, algo="ppo", critic="own", policy__actor_lr=1e30, trainer__ppo_epochs=1,
        trainer__ppo_mini_batch_size=8, trainer__total_training_steps=3,
    )  # fmt: skip
    assert told == (
        "step 2: logits: nan; expected numbers; the weights have left their range: lower policy.actor_lr or set "
        "policy.grad_clip"
    )


# --- warm starts ------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[WarmStart]:
    """Every warm start that is really trained."""
    done = []
    original = WarmStart.train

    def train(self: WarmStart, *given: Any, **named: Any) -> None:
        done.append(self)
        original(self, *given, **named)

    monkeypatch.setattr(WarmStart, "train", train)
    return done


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of each test's own."""
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "cache"))


def warm_start(folder: Path, capsys: pytest.CaptureFixture[str], **changes: object) -> Path:
    capsys.readouterr()
    sft._sft(arguments(folder, **{"run__dir": None, **changes}))
    return Path(capsys.readouterr().out.strip())


def test_the_same_warm_start_is_trained_once(
    tmp_path: Path, trained: list[WarmStart], capsys: pytest.CaptureFixture[str]
) -> None:
    first, again = (warm_start(tmp_path, capsys) for _ in range(2))
    assert first == again
    assert first.parent == tmp_path / "cache"
    assert len(trained) == 1
    assert AutoModelForCausalLM.from_pretrained(first).config.hidden_size == 16


def test_a_run_takes_the_cached_warm_start(
    tmp_path: Path, trained: list[WarmStart], capsys: pytest.CaptureFixture[str]
) -> None:
    cached = warm_start(tmp_path, capsys)
    train._train(arguments(tmp_path, trainer__total_training_steps=1, run__save_freq="null", evaluation__n=0))
    assert len(trained) == 1
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["warmstart"] == str(cached)


@pytest.mark.parametrize(
    "change",
    [
        {"warmstart__lr": 0.5},
        {"start_seed": 1},
        {"model__num_hidden_layers": 2},
        {"data__plain_template": "'1 {question}'"},
        {"data__max_prompt_length": 31},
        {"data__max_response_length": 15},
    ],
)
def test_whatever_goes_into_a_warm_start_makes_it_another_one(
    change: dict[str, object], tmp_path: Path, trained: list[WarmStart], capsys: pytest.CaptureFixture[str]
) -> None:
    assert warm_start(tmp_path, capsys) != warm_start(tmp_path, capsys, **change)
    assert len(trained) == 2


def test_what_does_not_go_into_a_warm_start_does_not(
    tmp_path: Path, trained: list[WarmStart], capsys: pytest.CaptureFixture[str]
) -> None:
    assert warm_start(tmp_path, capsys) == warm_start(tmp_path, capsys, seed=5, algo="ppo", trainer__ppo_epochs=3)
    assert len(trained) == 1


def test_a_cached_warm_start_attends_as_it_was_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = warm_start(tmp_path, capsys)
    shape = {"warmstart.steps": 1, "warmstart.batch_size": 2, "task.train_per_level": 2}
    given = {"model": "hf", "model.path": made, "model.attention": "eager", "warmstart": "sft", **shape}
    _, parts = load("train", [f"{key}={value}" for key, value in given.items()])
    for _ in range(2):
        prepared = prepare_evaluation(parts, lambda progress, metrics: None)
        assert prepared.model.config._attn_implementation == "eager"


def test_a_warm_start_is_copied_to_the_directory_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert warm_start(tmp_path, capsys, run__dir=tmp_path / "mine") == tmp_path / "mine"
    assert (tmp_path / "mine" / "model.safetensors").is_file()


def test_a_cached_warm_start_that_is_damaged_is_refused_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cached = warm_start(tmp_path, capsys)
    (cached / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(
        DataError, match=rf"warmstart: '{cached}' cannot be used \(.*delete the folder to have it trained"
    ):
        warm_start(tmp_path, capsys)


def test_a_warm_start_that_diverges_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DivergenceError, match=r"warmstart\.lr: 1e\+30, but the loss of step \d is nan; expected a"):
        warm_start(tmp_path, capsys, warmstart__lr=1e30, warmstart__steps=3)
    assert not list((tmp_path / "cache").iterdir())


def test_sft_brings_a_warm_start_where_the_choices_leave_it_out() -> None:
    assert sft._with_warm_start(["model=hf", "model.path=x", "warmstart.steps=3"])[-1] == "warmstart=sft"
    assert sft._with_warm_start(["warmstart=none"]) == ["warmstart=sft"]
    assert sft._with_warm_start(["warmstart.steps=3"]) == ["warmstart.steps=3"]  # the tiny model has its own
    assert sft._with_warm_start(["model=hf", "warmstart=tiny"]) == ["model=hf", "warmstart=tiny"]


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
    ("given", "told"),
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
def test_evaluation_faults_are_told_before_the_model_loads(
    given: str, told: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rrl.training.models.HuggingFace.load", failing(AssertionError("a model was loaded")))
    with pytest.raises(ConfigError) as caught:
        evaluate._evaluate([f"from_run={finished}", given.format(finished)])
    assert caught.value.faults == (told.format(finished),)


def test_an_evaluation_needs_no_training_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"question": "1+1?", "answer": "It is <<1+1=2>>2.\n#### 2"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    sizes = [f"{key}={value}" for key, value in TINY.items() if key.startswith(("model.", "evaluation."))]
    given = ["task=gsm8k", "warmstart=none", f"data.path={tmp_path}", "data.max_response_length=4", *sizes]
    assert measured(capsys, "run.threads=1", *given)["mean@2"]["n_problems"] == 1


# --- the demonstration ------------------------------------------------------------------------------------------------


def part(accuracy: float, low: float, high: float) -> dict[str, Any]:
    return {"accuracy": accuracy, "interval95": [low, high]}


def test_the_table_of_the_demonstration_has_a_row_for_each_level() -> None:
    before, after = (
        {"mean@4": {"levels": {"L3": part(a, 0.0, 0.25), "L10": part(b, 0.5, 1.0)}}}
        for a, b in ((0.125, 0.5), (0.2, 1))
    )
    results = {
        "ppo": {"before": before, "after": after, "tokens_generated": 1234},
        "rrl": {"before": before, "after": before, "tokens_generated": 56},
    }
    assert [
        line.split("  ") and " ".join(line.split()) for line in demo._accuracy_table(results, "mean@4").splitlines()
    ] == [
        "",
        "Held-out accuracy (mean@4, with 95 % interval over problems)",
        "before ppo after rrl after",
        "L3 0.125 [0.000, 0.250] 0.200 [0.000, 0.250] 0.125 [0.000, 0.250]",
        "L10 0.500 [0.500, 1.000] 1.000 [0.500, 1.000] 0.500 [0.500, 1.000]",
        "tokens 0 1,234 56",
    ]


def test_the_columns_of_the_table_are_aligned() -> None:
    side = {"greedy": {"levels": {"L3": part(0.5, 0.25, 0.75)}}}
    results = {arm: {"before": side, "after": side, "tokens_generated": 10} for arm in ("ppo", "rrl")}
    assert len({len(line) for line in demo._accuracy_table(results, "greedy").splitlines()[2:]}) == 1


def test_a_fault_ends_the_demonstration_before_it_makes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        demo._demo(["evaluation.n=x", "run.thread=1"])
    assert caught.value.faults == (
        "run.thread: no such key; did you mean 'run.threads'?",
        "evaluation.n: expected int, got 'x'",
    )
    assert not any(tmp_path.iterdir())
