"""Tasks and whole runs that fail because of a user's part end with its name."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.runs import arguments
from rrl.cli import train
from rrl.cli.shell import guarded
from rrl.config.check import load
from rrl.config.compose import compose_saved
from rrl.contracts import border, judging
from rrl.errors import ConfigError, ContractError, DataError
from rrl.training.models import HuggingFace
from rrl.types import Example, Judgement, Preference

MEND = "; fix this class (docs/adding-a-part.md)"


# --- tasks and what parts say of themselves ---------------------------------------------------------------------------


def returns(**values: Any) -> Any:
    """A task whose methods return these."""
    return type("Own", (), {name: (lambda *_, value=value: value) for name, value in values.items()})()


def test_a_task_without_examples_is_reported_with_its_split() -> None:
    with pytest.raises(DataError) as caught:
        border.examples(returns(examples=[]), "train")
    assert caught.value.faults == (
        "data: no problem in the split 'train' (test_failing_runs.Own.examples('train')); expected at least "
        "one; give another data set or split",
    )


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        ("abc", "'abc' (str)"),
        ((), "() (tuple)"),
        (("a", "a"), "('a', 'a') (tuple)"),
        (("a", ""), "'' (str)"),
        (("a", 3), "3 (int)"),
        ({"a"}, "{'a'} (set)"),
    ],
)
def test_a_vocabulary_is_words_each_once(words: Any, reported: str) -> None:
    with pytest.raises(ContractError) as caught:
        border.vocabulary(returns(vocabulary=words))
    expected = f"vocabulary: returned {reported}; expected a tuple of words, each once, or None"
    assert caught.value.faults == (f"test_failing_runs.Own.{expected}{MEND}",)


@pytest.mark.parametrize("words", [None, ("a", "b"), ["a"]])
def test_a_vocabulary_may_be_a_list_or_none(words: Any) -> None:
    assert border.vocabulary(returns(vocabulary=words)) == (None if words is None else tuple(words))


@pytest.mark.parametrize(
    "turns", ["hello", [1], [{"role": "user"}], [{"role": "robot", "content": "x"}], [{"role": "user", "content": 3}]]
)
def test_turns_are_messages(turns: Any) -> None:
    example = Example("a", "L", "q", "", "x", {}, turns)
    with pytest.raises(ContractError, match=r"examples\('train'\): returned turns = "):
        border.examples(returns(examples=[example]), "train")
    sound = replace(example, turns=({"role": "user", "content": "x"},))
    assert border.examples(returns(examples=[sound]), "train") == [sound]


@pytest.mark.parametrize("said", [Judgement("first", ""), Judgement(Preference.TIE, None), Judgement(None, "")])  # type: ignore[arg-type]
def test_a_judgement_is_a_preference_with_a_reason(said: Any) -> None:
    with pytest.raises(ContractError, match="expected a Preference and a text as reason"):
        judging.judgements(returns(judge=[said]), [None], None)  # type: ignore[list-item,arg-type]


OWN = """
from rrl.parts.rewards.verdict import *
from rrl.interfaces import Reward
from rrl.types import *

class Mine(Reward):
    needs = {needs}
    def __init__(self) -> None: ...
    @property
    def needs_more(self): {more}
    def start(self, tokenizer, decode): {start}
    def __call__(self, judged):
        return [1 / judged.feedback.score] * len(judged.rollout.actions)
    def state_dict(self): return dict()
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the reward ``mine``, whose class is not written yet; what is composed from it is composed once."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "reward").mkdir()
    (folder / "reward" / "mine.yaml").write_text("_target_: own_failing.Mine\n")
    return folder


def own(folder: Path, monkeypatch: pytest.MonkeyPatch, **lines: str) -> Path:
    """The folder, now with the class of its reward."""
    given = {"needs": "frozenset()", "more": "return True", "start": "pass"} | lines
    (folder / "own_failing.py").write_text(OWN.format(**given))
    monkeypatch.setenv("RRL_PARTS", str(folder))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "own_failing", raising=False)
    return folder


@pytest.mark.parametrize(
    ("lines", "reported"),
    [
        ({"needs": "['programs']"}, "needs is ['programs'] (list); expected a set of names; fix this class"),
        ({"needs": "'programs'"}, "needs is 'programs' (str); expected a set of names; fix this class"),
        ({"needs": "{1}"}, "needs is {1} (set); expected a set of names; fix this class"),
        ({"more": "return 'yes'"}, "needs_more is 'yes' (str); expected true or false; fix this class"),
        ({"more": "return {}['a']"}, "needs_more failed ({0}/own_failing.py, line 10: KeyError: 'a')" + MEND),
    ],
)
def test_what_a_part_says_of_itself_can_be_read(
    lines: dict[str, str], reported: str, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own(parts, monkeypatch, **lines)
    with pytest.raises(ConfigError) as caught:
        load("train", ["reward=mine"])
    assert list(caught.value.faults) == ["reward: own_failing.Mine." + reported.replace("{0}", str(folder))]


# --- whole runs -------------------------------------------------------------------------------------------------------


def test_a_run_ends_with_a_line_and_code_2_and_its_log_has_the_traceback(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, run = own(parts, monkeypatch), tmp_path / "run"
    words = [*arguments(run, algo="ppo", evaluation__n=0), "reward=mine"]
    words = [text for text in words if not text.startswith(("sampler.", "selection"))]
    assert guarded(lambda: train._train(words)) == 2
    reported = f"reward: own_failing.Mine.__call__ failed ({folder}/own_failing.py, line 13: ZeroDivisionError: "
    printed = capfd.readouterr().err
    assert f"PartError: a part of your own failed:\n  {reported}" in printed and "Traceback" not in printed
    log = (run / "logs" / "rank-0.log").read_text()
    assert "ZeroDivisionError: " in log and "return [1 / judged.feedback.score] * len(judged.rollout.actions)" in log
    assert json.loads((run / "status.json").read_text())["reason"].startswith(reported)


def test_a_part_that_cannot_start_leaves_no_run(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    own(parts, monkeypatch, start="raise OSError('no table')")
    words = [*arguments(tmp_path / "run", algo="ppo", evaluation__n=0), "reward=mine"]
    words = [text for text in words if not text.startswith(("sampler.", "selection"))]
    assert guarded(lambda: train._train(words)) == 2
    assert "reward: own_failing.Mine.start failed (" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


# --- folders of runs --------------------------------------------------------------------------------------------------


def test_a_runs_folder_as_model_is_reported_with_the_model_in_it(tmp_path: Path) -> None:
    def reported(folder: Path) -> str:
        with pytest.raises(DataError) as caught:
            HuggingFace(path=str(folder), revision=None, attention="sdpa", trust_remote_code=False).load(None)
        return str(caught.value.faults[0]).partition("this machine can reach")[2]

    run = tmp_path / "run"
    for name in ("checkpoints/step-000002", "checkpoints/step-000010"):
        (run / name).mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0\n")
    assert reported(run) == "; it holds a run that has saved no model yet"
    for name in ("checkpoints/step-000002", "checkpoints/step-000010"):
        (run / name / "actor").mkdir()
        (run / name / "actor" / "config.json").write_text("{}")
    last = run / "checkpoints" / "step-000010"
    for folder in (run, run / "checkpoints", last):
        assert reported(folder) == f"; it holds a run's model: give model.path={last}/actor"
    (run / "actor").mkdir()
    (run / "actor" / "config.json").write_text("{}")
    assert reported(run) == f"; it holds a run's model: give model.path={run}/actor"
    assert reported(tmp_path) == ""


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", "cut off or changed (it has no run, prompts, template, policy, "),
        ("seed: 0\nrun: {dir: x}\nprompts: {}\ntemp", "cannot be read ("),
        ("se", "cut off or changed (it has no run, "),
        ("run: {dir: 'x", "cannot be read ("),
        ("\0\0\0\0", "cannot be read ("),
    ],
)
def test_a_torn_configuration_of_a_run_is_reported_as_that(text: str, reported: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{}")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        compose_saved(tmp_path / "config.yaml", [])
    (fault,) = caught.value.faults
    assert fault.startswith(f"{tmp_path}/config.yaml: {reported}")
    assert fault.endswith("bring it back from a copy, or begin a new run")
