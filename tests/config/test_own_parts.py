"""Parts of a user's own, outside this project: folders in RRL_PARTS are searched as conf/ is, and imported from."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fixtures.runs import arguments
from rrl.cli import train
from rrl.config.check import load
from rrl.config.choices import folders, groups, take_own_parts
from rrl.config.compose import compose
from rrl.config.own_parts import changes, own_files
from rrl.errors import ConfigError

SAMPLER = """
_target_: {module}.Mine
level_weights: null
boldness: 3
"""
CODE = """
from dataclasses import dataclass
from rrl.parts.samplers.problems import Problems

@dataclass(kw_only=True)
class Mine(Problems):
    boldness: int

    def __post_init__(self) -> None:
        if self.boldness < 1:
            raise ValueError(f"boldness: expected at least 1, got {self.boldness}")
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sampler ``mine``; its own name has all that could need quoting."""
    return written(tmp_path_factory.mktemp("own") / "it's, [my] own" / "results", "mine")


@pytest.fixture
def parts(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared folder, named by RRL_PARTS: a test may change its modules; with the same YAML it is composed once."""
    for file in shared.glob("*.py"):
        file.unlink()
    (shared / "own_mine.py").write_text(CODE)
    importlib.invalidate_caches()
    return named(shared, "mine", monkeypatch)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Such a folder of this test alone."""
    return named(written(tmp_path / "own", "mine"), "mine", monkeypatch)


def written(folder: Path, name: str) -> Path:
    (folder / "sampler").mkdir(parents=True)
    (folder / "sampler" / f"{name}.yaml").write_text(SAMPLER.format(module=f"own_{name}"))
    (folder / f"own_{name}.py").write_text(CODE)
    return folder


def named(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RRL_PARTS", str(folder))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, f"own_{name}", raising=False)
    return folder


def faults(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load("train", overrides)
    return list(caught.value.faults)


def sampler(*overrides: str) -> Any:
    return load("train", ["algo=ppo", *overrides])[1].sampler


def test_a_choice_that_is_rewritten_is_read_again(own: Path) -> None:
    file = own / "sampler" / "mine.yaml"
    boldness = []
    for number in (3, 4, 50):
        file.write_text(file.read_text().replace("boldness: 3", f"boldness: {number}"))
        boldness.append(compose("train", ["sampler=mine"]).config["sampler"]["boldness"])
        file.write_text(file.read_text().replace(f"boldness: {number}", "boldness: 3"))
    assert boldness == [3, 4, 50]


def test_a_file_that_a_choice_is_made_of_is_read_again(own: Path) -> None:
    (own / "sampler" / "other.yaml").write_text("defaults: [mine]\n")
    assert compose("train", ["sampler=other"]).config["sampler"]["boldness"] == 3
    file = own / "sampler" / "mine.yaml"
    file.write_text(file.read_text().replace("boldness: 3", "boldness: 7"))
    assert compose("train", ["sampler=other"]).config["sampler"]["boldness"] == 7


def test_choices_that_come_and_go_are_noticed(own: Path) -> None:
    said = "sampler: no such choice 'second'"
    assert compose("train", ["sampler=second"]).faults[0].startswith(said)
    second = own / "sampler" / "second.yaml"
    second.write_text((own / "sampler" / "mine.yaml").read_text().replace("3", "5"))
    assert compose("train", ["sampler=second"]).config["sampler"]["boldness"] == 5
    assert compose("train", ["sampler.boldnes=1"]).faults == [
        "sampler.boldnes: no such key; did you mean 'sampler.boldness' (with sampler=mine|second)?"
    ]
    second.unlink()
    assert compose("train", ["sampler=second"]).faults[0].startswith(said)


def test_what_one_changes_in_a_composition_is_not_in_the_next(parts: Path) -> None:
    changed = compose("train", ["sampler=mine", "sampler.boldness=9", "+sampler.new=1", "engine.stop=[a]"])
    changed.config["engine"]["stop"].append("b")
    again = compose("train", ["sampler=mine"])
    assert (again.config["sampler"]["boldness"], again.config["engine"]["stop"]) == (3, [])
    assert "new" not in again.config["sampler"]


@pytest.mark.usefixtures("parts")
def test_one_file_and_one_yaml_outside_the_project_make_a_part() -> None:
    mine = sampler("sampler=mine", "sampler.boldness=5")
    assert (type(mine).__name__, mine.boldness) == ("Mine", 5)


@pytest.mark.usefixtures("parts")
def test_what_is_ours_stays_beside_it() -> None:
    assert type(sampler("sampler=problems")).__name__ == "Problems"
    assert {"mine", "problems", "retrospective"} <= set(groups()["sampler"])


def test_a_folder_is_found_from_the_working_directory_and_several_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        named(written(tmp_path / name, name), name, monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RRL_PARTS", "first:second:first:")
    assert [type(sampler(f"sampler={name}")).__module__ for name in ("first", "second")] == ["own_first", "own_second"]


def test_an_algorithm_of_ones_own_combines_ones_own_parts(own: Path) -> None:
    (own / "algo").mkdir()
    (own / "algo" / "bold.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /sampler: mine\nalgo: bold\nsampler: {boldness: 9}\n"
    )
    config, made = load("train", ["algo=bold"])
    assert (config["algo"], made.sampler.boldness) == ("bold", 9)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("parts")
def test_faults_know_parts_of_ones_own() -> None:
    misspelt, key = faults("algo=ppo", "sampler=mime", "boldness=2")
    assert misspelt.startswith("sampler: no such choice 'mime'; did you mean 'mine'? valid: allocation, ")
    assert key == "boldness: no such key; did you mean 'sampler.boldness'?"
    assert faults("algo=ppo", "sampler.boldness=2") == ["sampler.boldness: no such key; it comes with sampler=mine"]
    assert faults("algo=ppo", "sampler=mine", "sampler.boldness=0") == [
        "sampler.boldness: expected at least 1, got 0"
    ]  # fmt: skip


def test_an_argument_that_the_file_of_a_part_lacks_can_be_added(own: Path) -> None:
    (own / "sampler" / "mine.yaml").write_text("_target_: own_mine.Mine\nlevel_weights: null\n")
    assert faults("algo=ppo", "sampler=mine", "sampler.boldness=2") == [
        "sampler.boldness: not in the file of this part; add it there, or give +sampler.boldness=2",
        "sampler.boldness: missing; Mine needs it",
    ]
    _, made = load("train", ["algo=ppo", "sampler=mine", "+sampler.boldness=2"])
    assert made.sampler.boldness == 2  # type: ignore[attr-defined]


@pytest.mark.usefixtures("parts")
def test_help_lists_parts_of_ones_own() -> None:
    words = [sys.executable, "-m", "rrl.cli.train", "--help"]
    reported = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "sampler=allocation|canonical|group_replay|mine|pass_rate|" in reported


def test_a_folder_without_parts_is_reported_with_all_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRL_PARTS", f"{tmp_path}:{tmp_path / 'nowhere'}")
    monkeypatch.setattr(sys, "path", [*sys.path])
    whys = {tmp_path: "has no choice of any group", tmp_path / "nowhere": "is no folder"}
    reported = [f"RRL_PARTS: '{f}' {why}; expected one with files like sampler/mine.yaml" for f, why in whys.items()]
    assert faults("seed=-1") == [*reported, "seed: expected a number from 0 to below 2**63, got -1"]


def test_a_name_of_ours_is_not_taken(own: Path) -> None:
    (own / "sampler" / "redraw.yaml").write_text(SAMPLER.format(module="own_mine"))
    reported = f"RRL_PARTS: {str(own)!r} has sampler=redraw, which is there already; give it another name"
    assert take_own_parts() == [reported]
    assert compose("train", ["sampler=redraw"]).config["sampler"]["_target_"].startswith("rrl.")


def test_a_module_of_ones_own_hides_no_other(parts: Path) -> None:
    take_own_parts()
    take_own_parts()
    assert sys.path[-1] == str(parts) == str(folders()[1])
    assert sys.path.count(str(parts)) == 1


def test_a_yaml_that_is_no_part_is_reported_when_it_is_chosen_and_harmless_before(own: Path) -> None:
    contents = {"list": "- 1\n", "empty": "", "comment": "# a note\n"}
    for name, content in contents.items():
        (own / "sampler" / f"{name}.yaml").write_text(content)
    assert faults("boldness=1") == ["boldness: no such key; did you mean 'sampler.boldness' (with sampler=mine)?"]
    for name in contents:
        (reported,) = faults("algo=ppo", f"sampler={name}")
        assert reported.startswith("sampler: expected a part with a _target_, got ")


def test_a_yaml_that_cannot_be_read_is_named(own: Path) -> None:
    (own / "sampler" / "broken.yaml").write_text("x: [\n")
    (reported,) = faults("sampler=broken")
    assert "sampler/broken.yaml" in reported


@pytest.mark.usefixtures("parts")
def test_without_the_variable_there_is_nothing_but_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RRL_PARTS")
    assert len(folders()) == 1
    assert "mine" not in groups()["sampler"]


# --- modules that cannot be imported ----------------------------------------------------------------------------------


def failing(parts: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is reported of the sampler ``mine`` when this is its module."""
    (parts / "own_mine.py").write_text(code)
    importlib.invalidate_caches()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "own_mine", raising=False)
    (reported,) = faults("algo=ppo", "sampler=mine")
    return reported


def test_a_module_that_is_not_there_is_reported_with_what_the_variable_is(
    parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (parts / "own_mine.py").unlink()
    importlib.invalidate_caches()
    (reported,) = faults("algo=ppo", "sampler=mine")
    assert reported.startswith("sampler._target_: 'own_mine.Mine' cannot be imported (No module named 'own_mine'); ")
    assert f"RRL_PARTS is {str(parts)!r}" in reported
    monkeypatch.delenv("RRL_PARTS")
    (reported,) = faults("algo=ppo", "sampler={_target_: own_mine.Mine}")
    assert "RRL_PARTS is not set" in reported


@pytest.mark.parametrize(
    ("code", "line", "reported"),
    [
        ("import os\nimport no_such_library\n", 2, "ModuleNotFoundError: No module named 'no_such_library'"),
        ("from os import no_such_name\n", 1, "ImportError: cannot import name 'no_such_name' from 'os'"),
        ("x = 1\ny = x / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("import sys\n\nsys.exit(3)\n", 3, "SystemExit: 3"),
        ("x = 1\nclass Mine(:\n", 2, "SyntaxError: invalid syntax"),
        ("def f():\n    assert False\nf()\n", 2, "AssertionError"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError: Expecting property name"),
        ("{}['a']\n", 1, "KeyError: 'a'"),
    ],
)
def test_a_module_that_fails_is_reported_by_file_line_and_error(
    code: str, line: int, reported: str, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = failing(parts, code, monkeypatch)
    assert f"cannot be imported ({parts}/own_mine.py, line {line}: {reported}" in found
    assert "RRL_PARTS" not in found


def test_the_failing_line_of_a_module_that_it_imports_is_reported(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (parts / "own_helper.py").write_text("\n\nraise RuntimeError('not ready')\n")
    found = failing(parts, "import own_helper\n", monkeypatch)
    assert f"({parts}/own_helper.py, line 3: RuntimeError: not ready)" in found


def test_a_class_that_is_not_in_the_module_is_reported_with_the_nearest_and_the_file(
    parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = failing(parts, CODE.replace("class Mine", "class Mines"), monkeypatch)
    assert f"(module 'own_mine', {parts}/own_mine.py, has no 'Mine')" in found
    assert found.endswith("did you mean 'own_mine.Mines'?")


def test_a_constructor_with_a_type_that_cannot_be_looked_up_is_reported(
    parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "class Mine:\n    def __init__(self, *, level_weights: 'NoSuchType', boldness: int) -> None: ...\n"
    found = failing(parts, code, monkeypatch)
    assert "has a constructor whose arguments cannot be read (name 'NoSuchType' is not defined)" in found


@pytest.mark.parametrize("target", ["nothing", ".mine.Mine", "..Mine", "", "5"])
def test_a_target_without_a_module_is_refused(target: str) -> None:
    (reported,) = faults("algo=ppo", f"sampler._target_='{target}'")
    assert (
        reported
        == f"sampler._target_: {target!r} cannot be imported (Empty module name); expected package.module.Class"
    )


# --- what a result depends on -----------------------------------------------------------------------------------------


def test_the_files_of_ones_own_parts_are_known_by_their_content(own: Path) -> None:
    (own / "own_helper.py").write_text("x = 1\n")
    (own / "own_mine.py").write_text("import own_helper\n" + CODE)
    (own / "notes.yaml").write_text("no: part\n")
    importlib.invalidate_caches()
    for name in ("own_mine", "own_helper"):
        sys.modules.pop(name, None)
    config, _ = load("train", ["algo=ppo", "sampler=mine"])
    found = own_files(config)
    assert set(found) == {"own_helper", "own_mine", "sampler/mine.yaml"}
    assert found["own_helper"] == "9e26bf369911c45c243c684147b23fc9e1dcfcf257d299a1c632016a6fcd33f4"
    (own / "own_helper.py").write_text("x = 2\n")
    assert own_files(config)["own_helper"] != found["own_helper"]
    (own / "own_helper.py").unlink()
    assert "own_helper" not in own_files(config)


def test_a_package_of_ones_own_elsewhere_counts_and_what_is_installed_or_ours_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("")
    (tmp_path / "own_package" / "deep.py").write_text("class X: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("RRL_PARTS", raising=False)
    importlib.import_module("own_package.deep")
    config = {"a": [{"_target_": "own_package.deep.X"}], "b": {"_target_": "rrl.parts.samplers.problems.Problems"}}
    assert set(own_files(config)) == {"own_package", "own_package.deep"}
    assert set(own_files({"a": {"_target_": "json.decoder.JSONDecoder"}})) == {"json.decoder"}
    assert own_files({"a": {"_target_": "rrl.parts.samplers.problems.Problems"}}) == {}


def test_changed_and_removed_files_are_reported_and_new_ones_are_not() -> None:
    assert changes({"mine": "1"}, {"mine": "1", "more": "2"}) == []
    assert changes({}, {"more": "2"}) == []
    (reported,) = changes({"mine": "1", "sampler/mine.yaml": "2", "old": "3"}, {"mine": "9", "sampler/mine.yaml": "2"})
    assert reported.startswith("parts of your own: mine has changed, old is gone since the run began; ")


def test_a_run_that_goes_on_with_another_file_says_so(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    given = {"algo": "ppo", "sampler": "mine", "trainer__total_training_steps": 1, "evaluation__n": 0}
    unused = ("sampler.", "selection")
    train._train([text for text in arguments(run, **given) if not text.startswith(unused)])
    before = json.loads((run / "manifest.json").read_text())["parts"]
    assert set(before) == {"own_mine", "sampler/mine.yaml"}
    (parts / "own_mine.py").write_text(CODE + "# another\n")
    train._train([f"resume={run}", "trainer.total_training_steps=2"])
    manifest = json.loads((run / "manifest.json").read_text())
    assert "parts of your own: own_mine has changed since the run began" in caplog.text
    assert manifest["parts"] == before
    assert manifest["resumed"][0]["parts"]["own_mine"] != before["own_mine"]


BAD = """
from rrl.interfaces import Reward

class Other:
    def __init__(self) -> None: ...

class Raises(Reward):
    def __init__(self) -> None:
        {}["none"]

class Types(Reward):
    def __init__(self) -> None:
        len(5)
"""


@pytest.mark.parametrize(
    ("target", "reported"),
    [
        (
            "own_bad.Other",
            "reward: Other has no __call__, load_state_dict, needs, observe, start, state_dict; expected",
        ),
        (
            "rrl.parts.samplers.problems.Problems, level_weights: null",
            "reward: Problems has no __call__; expected a",
        ),
        ("own_bad.Raises", "line 9: KeyError: 'none'); fix this class"),
        ("own_bad.Types", "line 13: TypeError: object of type 'int' has no len()); fix this class"),
    ],
)
def test_a_class_of_another_kind_or_that_cannot_be_made_is_reported(parts: Path, target: str, reported: str) -> None:
    (parts / "own_bad.py").write_text(BAD)
    found = faults(f"reward={{_target_: {target}}}")
    assert reported in found[0] and len(found) == 1
