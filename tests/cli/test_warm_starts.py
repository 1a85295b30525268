"""Warm starts are trained once and cached, whole or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from fixtures.commands import arguments
from rrl.cli import sft, train
from rrl.config.check import load
from rrl.errors import DataError, DivergenceError
from rrl.runs.assemble import prepare_evaluation
from rrl.training.warm_start import WarmStart

pytestmark = pytest.mark.usefixtures("own_messages", "own_cache")


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


def warm_start(folder: Path, capsys: pytest.CaptureFixture[str], **changes: object) -> Path:
    capsys.readouterr()
    sft._sft(arguments(folder, **{"run__dir": None, **changes}))
    return Path(capsys.readouterr().out.strip())


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the warm start without changes."""
    folder = tmp_path_factory.mktemp("usual")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RRL_CACHE", str(folder / "cache"))
        sft._sft(arguments(folder, run__dir=None))
    (made,) = (folder / "cache").glob("sft-*")
    return made.name


def test_the_same_warm_start_is_trained_once(
    usual: str, tmp_path: Path, trained: list[WarmStart], capsys: pytest.CaptureFixture[str]
) -> None:
    first, again = (warm_start(tmp_path, capsys) for _ in range(2))
    assert first.name == usual
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
    change: dict[str, object], usual: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert warm_start(tmp_path, capsys, **change).name != usual


def test_what_does_not_go_into_a_warm_start_does_not(
    usual: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert warm_start(tmp_path, capsys, seed=5, algo="ppo", trainer__ppo_epochs=3).name == usual


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
