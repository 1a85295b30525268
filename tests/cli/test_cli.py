"""Commands: help, exit codes, faults that are found before a model loads, and the demonstration."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.commands import TINY, arguments, failing, refused
from rrl.cli import demo, evaluate, sft, shell, train
from rrl.config.check import load
from rrl.errors import ConfigError, DataError, DivergenceError, UsageError
from rrl.training.models import TinyLlama

pytestmark = pytest.mark.usefixtures("own_messages", "own_cache")

HEAVY = {"torch", "numpy", "transformers", "tokenizers", "deepspeed", "hydra", "omegaconf", "wandb", "datasets"}


# --- help and exit codes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        (train, ["rrl-train trains", "algo=gsi|ppo|", "task=aime|amc|apps|apps_plus|gsm8k|"]),
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


@pytest.mark.parametrize(
    ("error", "code", "reported"),
    [
        (ConfigError("a: b", "c: d"), 2, "ConfigError: config does not fit the code:\n  a: b\n  c: d\n"),
        (DataError("a: b"), 2, "DataError: data does not fit:\n  a: b\n"),
        (UsageError("a: b"), 2, "UsageError: cannot go on:\n  a: b\n"),
        (DivergenceError("step 3: x"), 1, "DivergenceError: training stopped:\n  step 3: x\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a"),
            1,
            "cannot read or write:\n  [Errno 28] No space left on device: 'a'; make room, or write to another disk; "
            "what was written before stays\n",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "aa"),
            2,
            "cannot read or write:\n  [Errno 36] File name too long: 'aa'; expected a name of at most 255 bytes; "
            "give a shorter one\n",
        ),
    ],
)
def test_every_end_has_its_code(
    error: BaseException, code: int, reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.guarded(failing(error)) == code
    assert capsys.readouterr() == ("", reported)


def test_a_bug_is_not_hidden() -> None:
    assert shell.guarded(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        shell.guarded(failing(ZeroDivisionError()))
    with pytest.raises(FileNotFoundError):
        shell.guarded(failing(FileNotFoundError(errno.ENOENT, "No such file", "a")))


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
    (reported,) = refused(tmp_path, run__dir=tmp_path / ("file/x" if key == "run.dir" else "run"))
    assert reported == (
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
    (reported, remedy) = refused(tmp_path, task="gsm8k", data__path=tmp_path / "nothing", **changes)
    assert reported.startswith(f"{tmp_path / 'nothing' / 'train.jsonl'}: no such file")
    assert remedy.startswith("remedy: give data.path=")


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
