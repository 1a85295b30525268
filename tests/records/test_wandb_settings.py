"""Weights & Biases: keys that are shown nowhere, settings in range, and the same id only for a resume."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fixtures.tracking import CONFIG, KEY, Received, histories, service, wandb, warnings
from fixtures.wandb_files import offline_runs
from rrl.records.tracking import Tracker


def test_a_key_is_in_no_file_no_message_and_no_process_list(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing answers there
    assert wandb().check() == []
    tracker = Tracker(folder, wandb(patience=6.0), CONFIG, None)
    tracker.log(0, {"x": 1.5})
    service(tracker)
    listed = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    tracker.finish()
    (reported,) = warnings(caplog)
    assert "127.0.0.1:9" in reported
    assert "this part of the run is kept offline" in reported
    assert histories(offline_runs(folder)[0])[0]["x"] == 1.5
    assert "rrl.records.wandb_process" in listed
    assert KEY not in listed + reported
    written = [path for top in (folder, home) for path in top.rglob("*") if path.is_file()]
    assert {"metrics.jsonl", "debug.log", "debug-internal.log"} <= {path.name for path in written}
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("key", ["a" * 40, "local-" + "b" * 40, "wandb_v1_" + "c" * 77, "h-e.a_d.er", None])
def test_keys_of_the_right_shape_pass(key: str | None, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    assert wandb().check() == []


@pytest.mark.parametrize("key", ["short", "a" * 39, "a" * 40 + " ", "a" * 20 + "!" + "b" * 20])
def test_a_key_of_another_shape_is_reported_before_anything_begins_and_not_shown(
    key: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    (reported,) = wandb().check()
    assert reported.startswith(
        f"logger: WANDB_API_KEY in the environment is no key of Weights & Biases ({len(key)} char"
    )
    assert key not in reported


@pytest.mark.parametrize(
    ("settings", "reported"),
    [
        ({"project": "a/b"}, "project: expected 1 to 128 characters without / \\ # ? % :, got 'a/b'"),
        ({"project": ""}, "project: expected 1 to 128"),
        ({"patience": 0.5}, "patience: expected 1 to 86400 seconds, got 0.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], reported: str) -> None:
    with pytest.raises(ValueError) as caught:
        wandb(**settings)
    assert str(caught.value).startswith(reported)


@pytest.fixture
def reported(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What W&B's process, which is not started, is reported."""
    messages: list[dict[str, Any]] = []
    monkeypatch.setattr("rrl.records.tracking.Sidecar", Received(messages))
    return messages


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": KEY}, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "online"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_online_takes_a_key_and_no_word_against_it(
    environment: dict[str, str],
    mode: str,
    reported: list[dict[str, Any]],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    wandb().start(folder, CONFIG, None)
    assert [message["mode"] for message in reported] == [mode]
    assert KEY not in json.dumps(reported)


def test_only_a_resume_goes_on_with_the_same_id(reported: list[dict[str, Any]], folder: Path) -> None:
    for after in (None, 3, None):
        wandb().start(folder, CONFIG, after)
    first, resumed, anew = (message["id"] for message in reported)
    assert first == resumed != anew
