"""A resumed run's records are those of a run that was never interrupted; files are whole; secrets are not shown."""

import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rrl.errors import DataError
from rrl.records.files import last_rows, nearest_there, read_object, rewind, step_name, sync, write_whole
from rrl.records.secrecy import redacted

METRICS = [f'{{"step": {step}, "x": {step}.50}}' for step in range(8)]
EVALUATIONS = [f'{{"step": {step}, "greedy": {{}}}}' for step in (0, 3, 6)]
STATES = [f'{{"step": {step}, "event": "stored"}}' for step in (2, 2, 5, 6, 6, 6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that was killed in step 8, while it wrote the row of step 8; its last checkpoint is of step 5."""
    write(tmp_path / "metrics.jsonl", METRICS, torn='{"step": 8, "x": 8.')
    write(tmp_path / "evaluations.jsonl", EVALUATIONS)
    for name, steps in (("rollouts", (2, 5, 6, 8)), ("evaluations", (0, 5, 6))):
        (tmp_path / name).mkdir()
        for step in steps:
            (tmp_path / name / f"step-{step:06d}.jsonl").write_text("{}\n")
    write(tmp_path / "states.jsonl", STATES, torn='{"step": 7, "ev')
    for name in ("result.json", "config.yaml", "rollouts/note.jsonl"):
        (tmp_path / name).write_text("{}")
    return tmp_path


def write(path: Path, lines: Sequence[str], torn: str = "") -> None:
    path.write_text("".join(line + "\n" for line in lines) + torn)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- rewinding --------------------------------------------------------------------------------------------------------


def test_rows_up_to_the_checkpoint_stay_byte_by_byte_and_later_ones_go(folder: Path) -> None:
    rewind(folder, 5)
    assert (folder / "metrics.jsonl").read_text() == "".join(line + "\n" for line in METRICS[:6])
    assert (folder / "evaluations.jsonl").read_text() == "".join(line + "\n" for line in EVALUATIONS[:2])
    assert (folder / "states.jsonl").read_text() == "".join(line + "\n" for line in STATES[:3])
    assert set(files(folder)) == {
        "metrics.jsonl", "evaluations.jsonl", "states.jsonl", "config.yaml",
        "rollouts/step-000002.jsonl", "rollouts/step-000005.jsonl", "rollouts/note.jsonl",
        "evaluations/step-000000.jsonl", "evaluations/step-000005.jsonl",
    }  # fmt: skip


def test_rewinding_twice_is_rewinding_once(folder: Path) -> None:
    rewind(folder, 5)
    once = files(folder)
    rewind(folder, 5)
    assert files(folder) == once


@pytest.mark.parametrize("step", [None, -1])
def test_to_begin_anew_leaves_no_row_and_no_rollouts(step: int | None, folder: Path) -> None:
    rewind(folder, step)
    assert files(folder) == {
        "metrics.jsonl": b"", "evaluations.jsonl": b"", "states.jsonl": b"", "config.yaml": b"{}",
        "rollouts/note.jsonl": b"{}",
    }  # fmt: skip


def test_to_begin_anew_asks_for_no_records(tmp_path: Path) -> None:
    rewind(tmp_path, None)
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    "torn", ["", '{"step": 8', "{", "\0\0\0\0", "8", '"step"', '{"step": true}', "[]", "\xff", "\n\n"]
)
def test_a_torn_end_does_not_matter(torn: str, folder: Path) -> None:
    write(folder / "metrics.jsonl", METRICS, torn)
    rewind(folder, 7)
    assert (folder / "metrics.jsonl").read_text() == "".join(line + "\n" for line in METRICS)


def test_a_last_row_that_lacks_only_its_line_end_is_whole(folder: Path) -> None:
    write(folder / "metrics.jsonl", METRICS[:7], torn=METRICS[7])
    rewind(folder, 7)
    assert (folder / "metrics.jsonl").read_text() == "".join(line + "\n" for line in METRICS)


@pytest.mark.parametrize(
    ("lines", "reported"),
    [
        (METRICS[:3] + METRICS[4:], "metrics.jsonl: no whole row of step 3; expected one for each step from 0 to 5"),
        (METRICS[1:2] + METRICS[4:5], "metrics.jsonl: no whole row of step 0, 2-3, 5; expected"),
        (METRICS[:2], "metrics.jsonl: no whole row of step 2-5; expected"),
        ([], "metrics.jsonl: no whole row of step 0-5; expected"),
        ([*METRICS[:4], METRICS[4][:9], *METRICS[5:]], "metrics.jsonl: no whole row of step 4; expected"),
        (METRICS[:6] + METRICS[1:3], "metrics.jsonl: more than one row of step 1-2; expected one;"),
    ],
)
def test_a_hole_or_a_double_before_the_checkpoint_is_refused_and_nothing_changed(
    lines: Sequence[str], reported: str, folder: Path
) -> None:
    write(folder / "metrics.jsonl", lines)
    before = files(folder)
    with pytest.raises(DataError) as caught:
        rewind(folder, 5)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{folder}/{reported}")
    assert "resume from an earlier checkpoint" in fault
    assert files(folder) == before


def test_what_is_wrong_after_the_checkpoint_does_not_matter(folder: Path) -> None:
    write(folder / "metrics.jsonl", [*METRICS[:6], "torn", METRICS[7], METRICS[7]])
    rewind(folder, 5)
    assert (folder / "metrics.jsonl").read_text() == "".join(line + "\n" for line in METRICS[:6])


def test_all_faults_are_reported_at_once(folder: Path) -> None:
    write(folder / "metrics.jsonl", [*METRICS[1:6], METRICS[5]])
    write(folder / "evaluations.jsonl", [*EVALUATIONS, EVALUATIONS[1]])
    with pytest.raises(DataError) as caught:
        rewind(folder, 5)
    assert [fault.partition(";")[0] for fault in caught.value.faults] == [
        f"{folder}/metrics.jsonl: no whole row of step 0",
        f"{folder}/metrics.jsonl: more than one row of step 5",
        f"{folder}/evaluations.jsonl: more than one row of step 3",
    ]


def test_many_holes_are_reported_in_a_line(folder: Path) -> None:
    write(folder / "metrics.jsonl", [f'{{"step": {step}}}' for step in range(0, 100, 2)])
    with pytest.raises(DataError, match=r"no whole row of step 1, 3, 5, 7, 9, \.\.\.; expected"):
        rewind(folder, 98)


def test_a_run_without_evaluations_can_be_rewound(folder: Path) -> None:
    (folder / "evaluations.jsonl").unlink()
    rewind(folder, 5)
    assert not (folder / "evaluations.jsonl").exists()


@pytest.mark.parametrize("moment", range(12))
def test_a_kill_while_rewinding_loses_nothing(moment: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = folder.parent / f"{folder.name}-clean"
    shutil.copytree(folder, clean)
    rewind(clean, 5)
    calls = iter(range(100))

    def die(*_: object) -> None:
        if next(calls) == moment:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", die)
        rewind(folder, 5)
        raise KeyboardInterrupt  # it was done before that moment
    rewind(folder, 5)
    assert files(folder) == files(clean)


# --- whole and on disk ------------------------------------------------------------------------------------------------


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was brought to disk, in order."""
    names: list[str] = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (names.append(os.readlink(f"/proc/self/fd/{handle}")), real(handle))
    )
    return names


def test_a_file_is_on_disk_before_it_has_its_name_and_its_name_after(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "a").write_bytes(b"old")
    write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    aside, folder = synced
    assert (aside.startswith(f"{tmp_path}/.a."), folder) == (True, str(tmp_path))
    assert set(files(tmp_path)) == {"a"}


def test_a_file_that_need_not_last_is_whole_and_costs_no_wait(tmp_path: Path, synced: list[str]) -> None:
    write_whole(tmp_path / "a", b"new", durable=False)
    assert (files(tmp_path), synced) == ({"a": b"new"}, [])


def test_many_may_write_one_file_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda n: write_whole(tmp_path / "a", bytes([n]) * 2**16), range(64)))
    (content,) = files(tmp_path).values()
    assert content in [bytes([n]) * 2**16 for n in range(64)]


def test_what_cannot_be_renamed_leaves_nothing_aside(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("path", "nearest"), [("there", "there"), ("there/not/yet", "there"), ("not", "."), ("link", "link"), ("a/b", "a")]
)
def test_the_nearest_folder_that_is_there_is_found(tmp_path: Path, path: str, nearest: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "a").write_text("a file, which takes nothing")
    (tmp_path / "link").symlink_to("nowhere")
    assert nearest_there(tmp_path / path) == tmp_path / nearest


def test_a_step_has_six_digits_or_as_many_as_it_takes() -> None:
    assert [step_name(step) for step in (0, 50, 1234567)] == ["step-000000", "step-000050", "step-1234567"]


def test_rows_are_on_disk_after_a_sync(folder: Path, synced: list[str]) -> None:
    sync(folder)
    assert synced == [str(folder / f"{name}.jsonl") for name in ("metrics", "evaluations", "states")] + [str(folder)]


def test_a_run_without_rows_can_be_synced(tmp_path: Path, synced: list[str]) -> None:
    sync(tmp_path)
    assert synced == [str(tmp_path)]


# --- reading ----------------------------------------------------------------------------------------------------------


def test_the_end_of_a_long_file_is_read_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' * 10**6 + b'{"step": 7}\n{"step": 8}\n{"st')
    rows, faults = last_rows(path)
    assert [row["step"] for row in rows[:3]] == [8, 7, 1]
    assert len(rows) < 2000
    assert faults == []


def test_a_row_that_is_longer_than_what_is_read_first_is_found(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, ['{"step": 0}', json.dumps({"step": 1, "x": "y" * 10**6})])
    assert next(row["step"] for row in last_rows(path)[0]) == 1


@pytest.mark.parametrize("content", ["{", "\0\0", "[1]\n", '{"stop": 1}\n'])
def test_a_file_without_a_whole_row_is_a_fault(content: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(content)
    assert last_rows(tmp_path / "metrics.jsonl") == ([], ["metrics.jsonl has no whole row"])


def test_what_is_not_there_or_still_empty_is_no_fault(tmp_path: Path) -> None:
    assert last_rows(tmp_path / "metrics.jsonl") == ([], [])
    (tmp_path / "metrics.jsonl").touch()
    assert last_rows(tmp_path / "metrics.jsonl") == ([], [])
    assert read_object(tmp_path / "status.json") == ({}, [])


def test_what_is_no_file_is_a_fault(tmp_path: Path) -> None:
    assert last_rows(tmp_path) == ([], [f"{tmp_path.name} cannot be read (Is a directory)"])
    assert read_object(tmp_path) == ({}, [f"{tmp_path.name} cannot be read (Is a directory)"])


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET", "DB_PASSWORD", "my_key"])
def test_the_value_of_a_secret_variable_is_not_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "12345678")
    assert redacted("a=12345678&b=12345678,1234567") == f"a=<{name}>&b=<{name}>,1234567"


def test_what_is_short_or_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "1234567")
    monkeypatch.setenv("KEYBOARD", "12345678")
    monkeypatch.setenv("EMPTY_KEY", "")
    assert redacted("1234567 12345678") == "1234567 12345678"


def test_a_secret_that_contains_another_is_hidden_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "12345678")
    monkeypatch.setenv("B_KEY", "12345678-abcdef")
    assert redacted("12345678-abcdef 12345678") == "<B_KEY> <A_KEY>"
