"""What a run must find again when it goes on: its configuration, data and model; and what is reported of the rest."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rrl.config.check import load
from rrl.config.saved import write_config
from rrl.errors import ConfigError, DataError
from rrl.runs.manifest import write_manifest
from rrl.runs.resume import refuse_changes, resume

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ABOUT: dict[str, Any] = {
    "command": ["rrl-train"], "started": "2026-01-03T08:00:00+0000", "packages": {"torch": "2"}, "git_commit": None,
    "seed": 3, "parts": {"mine": "d" * 64},
    "data": {"train": {"problems": 2, "sha256": "a" * 64, "prompts_sha256": "e" * 64}},
    "model": {"sha256": "b" * 64}, "tokenizer": {"size": 9, "sha256": "c" * 64},
}  # fmt: skip


def written(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text())


def test_a_manifest_stays_as_the_run_began_and_what_it_goes_on_with_stands_beside_it(tmp_path: Path) -> None:
    write_manifest(tmp_path, ABOUT, NOON)
    assert written(tmp_path) == ABOUT | {"started": "2026-01-02T12:00:00+0000"}
    for command in ("second", "third"):
        write_manifest(tmp_path, ABOUT | {"command": [command], "seed": 4}, datetime.now(UTC))
    again = {key: ABOUT[key] for key in ("started", "packages", "git_commit", "parts")}
    resumed = [again | {"command": ["second"]}, again | {"command": ["third"]}]
    assert written(tmp_path) == ABOUT | {"started": "2026-01-02T12:00:00+0000", "resumed": resumed}


@pytest.mark.parametrize(
    ("name", "now", "reported"),
    [
        ("data", {"train": {"sha256": "f" * 64}}, "(SHA-256 aaaaaaaaaaaa, now ffffffffffff)"),
        ("data", {**ABOUT["data"], "test": {"sha256": "f" * 64}}, "(SHA-256 aaaaaaaaaaaa, now aaaaaaaaaaaa, ffffffff"),
        ("model", {"sha256": "f" * 64}, "(SHA-256 bbbbbbbbbbbb, now ffffffffffff)"),
        ("tokenizer", {"size": 9, "sha256": "f" * 64}, "(SHA-256 cccccccccccc, now ffffffffffff)"),
    ],
)
def test_a_run_does_not_go_on_with_other_data_or_another_model_or_tokenizer(
    name: str, now: Any, reported: str, tmp_path: Path
) -> None:
    write_manifest(tmp_path, ABOUT, NOON)
    before = written(tmp_path)
    with pytest.raises(DataError) as refused:
        write_manifest(tmp_path, ABOUT | {name: now}, NOON)
    (fault,) = refused.value.faults
    assert fault.startswith(f"{name}: not what the run in {str(tmp_path)!r} began with {reported}")
    assert written(tmp_path) == before


def test_a_manifest_of_a_version_that_wrote_no_model_down_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({key: ABOUT[key] for key in ABOUT if key != "model"}))
    write_manifest(tmp_path, ABOUT, NOON)
    assert len(written(tmp_path)["resumed"]) == 1


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ({}, []),
        ({"data": {"train": {**ABOUT["data"]["train"], "prompts_sha256": "f" * 64}}}, ["prompts: of the same data"]),
        ({"parts": {"mine": "f" * 64}}, ["parts of your own: mine has changed"]),
        ({"packages": {"torch": "3"}, "git_commit": "1"}, []),
    ],
)
def test_other_prompts_and_parts_are_reported(
    change: Any, reported: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_manifest(tmp_path, ABOUT, NOON)
    write_manifest(tmp_path, ABOUT | change, NOON)
    assert len(caplog.messages) == len(reported)
    assert all(said.startswith(text) for said, text in zip(caplog.messages, reported, strict=True))


@pytest.mark.parametrize(
    ("before", "after", "reported"),
    [
        ({"trainer": {"n": 1}}, {"trainer": {"n": 2}}, ["trainer.n: 1 in the run 'r', now 2"]),
        ({"trainer": {"n": 1}}, {"trainer": {"n": 1.0}}, ["trainer.n: 1 in the run 'r', now 1.0"]),
        ({"trainer": {"n": 1}}, {"trainer": {"n": True}}, ["trainer.n: 1 in the run 'r', now True"]),
        ({"a": None}, {"a": {"b": 1}}, ["a.b: absent in the run 'r', now 1"]),
        ({"a": {"b": 1}}, {"a": {}}, ["a.b: 1 in the run 'r', now absent"]),
        ({"seed": 1, "run": {"dir": "x"}}, {"seed": 2, "run": {"dir": "y"}}, ["seed: 1 in the run 'r', now 2"]),
        ({"trainer": {"total_tokens": 1}}, {"trainer": {"total_tokens": 2}}, []),
        ({"trainer": {"total_tokens_x": 1}}, {"trainer": {"total_tokens_x": 2}}, ["trainer.total_tokens_x: 1 in the"]),
        ({"runs": 1, "logger": {"a": {"b": 1}}}, {"runs": 2, "logger": None}, ["runs: 1 in the run 'r', now 2"]),
    ],
)  # fmt: skip
def test_a_change_is_refused_unless_it_is_of_a_harmless_key(before: Any, after: Any, reported: list[str]) -> None:
    faults: tuple[str, ...] = ()
    try:
        refuse_changes(before, after, Path("r"))
    except ConfigError as refused:
        faults = refused.faults
    assert len(faults) == len(reported)
    assert all(fault.startswith(text) for fault, text in zip(faults, reported, strict=True))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as far as its configuration shows."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    write_config(folder, load("train", [f"run.dir={folder}", "seed=3"])[0])
    return folder


def test_a_run_stays_in_its_folder(begun: Path) -> None:
    assert resume(begun, [])[0]["run"]["dir"] == str(begun)
    assert resume(begun, [f"run.dir={begun}", "run.keep_last=7"])[0]["run"]["keep_last"] == 7
    for other, reported in ((begun.parent / "other", repr(str(begun.parent / "other"))), ("null", "null")):
        with pytest.raises(ConfigError) as refused:
            resume(begun, [f"run.dir={other}"])
        assert refused.value.faults == (
            f"run.dir: {reported}, but a resumed run stays in its folder {str(begun)!r}; omit run.dir, or "
            "begin a new run without resume",
        )


def test_a_folder_that_was_moved_is_the_run_that_it_was(begun: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(begun, tmp_path / "moved"))
    config, _ = resume(moved, ["trainer.total_tokens=5000", f"run.dir={moved}"])
    assert config["trainer"]["total_tokens"] == 5000
    with pytest.raises(ConfigError, match=r"(?m)^  seed: 3 in the run '.*moved', now 4"):
        resume(moved, ["seed=4"])
