"""A run of the study that is made again is compared with its kept line."""

import dataclasses
import importlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.study import protocol_file, run
from rrl.errors import DataError

STUDY = Path(__file__).parents[2] / "experiments" / "study"


@pytest.fixture
def repeat(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The module, with the protocol ``toy`` and a kept line of ppo with seed 2; rrl-train writes ``accuracies``."""
    monkeypatch.syspath_prepend(STUDY)
    monkeypatch.chdir(tmp_path)
    found = importlib.import_module("repeat")
    about = found.protocol.read("toy", protocol_file(tmp_path))
    monkeypatch.setattr(found.protocol, "read", lambda task: about)
    line = found.line_of(run(tmp_path / "kept" / "ppo" / "0", 2, (0.0, 0.3, 0.5)), tmp_path / "kept" / "ppo")
    (tmp_path / "results" / "toy").mkdir(parents=True)
    (tmp_path / "results" / "toy" / "reported.jsonl").write_text(json.dumps(line) + "\n")
    made = SimpleNamespace(accuracies=(0.0, 0.3, 0.5), commands=[], fails=0)

    def trained(command: Sequence[str], **_: Any) -> SimpleNamespace:
        made.commands.append(command[1:])
        folder = next(Path(text.removeprefix("run.dir=")) for text in command if text.startswith("run.dir="))
        if not made.fails:
            run(folder, 2, made.accuracies, started="tuesday", pace=3.0)
            (folder / "result.json").write_text("{}")
        return SimpleNamespace(returncode=made.fails)

    monkeypatch.setattr(found, "subprocess", SimpleNamespace(run=trained, DEVNULL=None))
    found.made = made
    return found


def test_the_same_run_is_the_same_whatever_its_seconds(repeat: Any, capsys: Any) -> None:
    repeat.main("toy", "ppo", "2", results="results")
    assert capsys.readouterr().out == "toy ppo seed 2: the same at every evaluation\n"
    where = "run.dir=runs/repeat/toy/reported/ppo/seed-2"
    assert repeat.made.commands == [["-m", "rrl.cli.train", "resume=auto", "seed=2", where, "lr=0.1"]]


def test_what_was_a_default_when_the_line_was_made_is_set_as_the_arm_has_it_today(repeat: Any) -> None:
    arm = dataclasses.replace(repeat.protocol.read("toy").arms["peak"], overrides=("lr=0.3", "bound=2"))
    repeat.repeated(repeat.kept(Path("results/toy/reported.jsonl"), "ppo", "2"), arm, Path("runs", "ppo"))
    assert repeat.made.commands[0][-2:] == ["lr=0.1", "bound=2"]


def test_an_arm_that_has_a_line_and_has_left_the_protocol_is_refused_by_name(repeat: Any) -> None:
    repeat.protocol.read("toy").arms.pop("ppo")
    with pytest.raises(DataError, match=r"toy: no arm 'ppo' any more.*; expected one of arms.yml, or the version "):
        repeat.main("toy", "ppo", "2", results="results")


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        (
            (0.0, 0.4, 0.5),
            "differs from step 2 on: accuracy/mean@4/all 0.3 in the line, 0.4 here; accuracy/mean@4/L 0.3 in the line, "
            "0.4 here; accuracy/greedy/all 0.15 in the line, 0.2 here",
        ),
        ((0.0, 0.5), "differs from step 2 on: tokens 500 in the line, 1000 here"),
    ],
)
def test_the_first_evaluation_that_differs_is_told(
    repeat: Any, capsys: Any, accuracies: tuple[float, ...], expected: str
) -> None:
    repeat.made.accuracies = accuracies
    with pytest.raises(SystemExit) as ended:
        repeat.main("toy", "ppo", "2", results="results")
    said = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1 and said[0].startswith(f"toy ppo seed 2: {expected}")
    assert said[1].startswith("made on ") and " by c0de; here " in said[1]


def test_an_evaluation_that_only_one_of_them_has_is_a_difference(repeat: Any) -> None:
    line = repeat.kept(Path("results/toy/reported.jsonl"), "ppo", "2")
    cut = {**line, "step": line["step"][:2]}
    assert repeat.difference(line, line) is None
    assert repeat.difference(cut, line) == "has 2 evaluations in the line, 3 here"
    assert repeat.difference({**line, "replay": None}, line) is None  # was not recorded then
    assert repeat.difference(line, {**line, "replay": None}).endswith(": replay 0.5 in the line, None here")


def test_what_cannot_be_repeated_is_refused(repeat: Any) -> None:
    def refused(*words: str) -> str:
        with pytest.raises(DataError) as caught:
            repeat.main("toy", *words, results="results")
        return caught.value.faults[0]

    path = "results/toy/reported.jsonl"
    assert refused("ppo", "3") == f"{path}: no line of arm 'ppo' with seed 3; expected one of 2"
    assert refused("pppo", "2") == f"{path}: no line of arm 'pppo'; did you mean 'ppo'?; expected one of ppo"
    assert refused("ppo", "2", "tuning") == "STAGE: expected reported or choosing, got 'tuning'"
    repeat.main("toy", "ppo", "2", results="results")
    assert refused("ppo", "2") == (
        "runs/repeat/toy/reported/ppo/seed-2: a run that has ended; expected none, or one that was interrupted; remove "
        "the folder"
    )
    shutil.rmtree("runs")
    repeat.made.fails = 2
    assert refused("ppo", "2").endswith("seed-2: rrl-train ended with 2; expected a whole run; see above")
