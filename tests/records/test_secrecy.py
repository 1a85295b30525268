"""Secrets: their values are in no file, log or message of a run, and a run goes on where the environment has them."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from fixtures.runs import arguments
from rrl.cli import shell, train
from rrl.config.check import load
from rrl.config.compose import compose_saved
from rrl.config.saved import as_yaml, read_config, write_config
from rrl.errors import ConfigError
from rrl.processes.logs import Redacting
from rrl.records.run_directory import write_json
from rrl.records.secrecy import hidden, redacted, referenced
from rrl.records.sidecar import Sidecar
from rrl.records.tracking import Tracker, WandB
from rrl.study.sweep_files import Sweep, read_sweep, write_sweep
from rrl.study.sweep_jobs import hide_secrets

VALUE = "sekrit/0123 'x'"
"""It is written in another way in an address, and within quotes."""
FORMS = (VALUE, "sekrit%2F0123%20%27x%27", "sekrit/0123")


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_API_KEY", VALUE)


@pytest.mark.parametrize(
    "name",
    ["X_KEY", "X_KEYS", "x_token", "TOKENS", "X_KEY_2", "X_KEY2", "PGPASSWD", "SSH_PASSPHRASE", "MY_CREDENTIALS"],
)
def test_names_of_secrets_in_their_usual_forms_are_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "98765432-zyx")
    assert redacted("a98765432-zyxb") == f"a<{name}>b"


@pytest.mark.parametrize("name", ["MONKEYS_HOME", "KEYBOARD", "TOKENIZERS_PARALLELISM", "PASSWORD_STORE_DIR"])
def test_other_variables_are_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "98765432-zyx")
    assert redacted("98765432-zyx") == "98765432-zyx"


@pytest.mark.parametrize("text", [VALUE, "https://u:sekrit%2F0123%20%27x%27@h", f"got {VALUE!r}"])
def test_a_secret_is_found_however_a_text_writes_it(text: str) -> None:
    assert "sekrit" not in redacted(text)
    assert "<SERVICE_API_KEY>" in redacted(text)


def test_plain_data_is_searched_at_every_depth() -> None:
    assert hidden({"a": [VALUE, {VALUE: (1, None, 0.5)}]}) == {
        "a": ["<SERVICE_API_KEY>", {"<SERVICE_API_KEY>": [1, None, 0.5]}]
    }
    assert referenced({"a": f"x-{VALUE}"}) == {"a": "x-${oc.env:SERVICE_API_KEY}"}


def test_a_configuration_is_written_with_a_reference_and_read_with_the_value(tmp_path: Path) -> None:
    config = {"run": {"note": f"<{VALUE}>", "list": [VALUE], "n": 3}}
    write_config(tmp_path, config)
    assert "sekrit" not in (tmp_path / "config.yaml").read_text() + as_yaml(config)
    assert read_config(tmp_path) == config


def test_without_the_variable_a_saved_configuration_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(tmp_path, {"logger": {"project": VALUE}})
    monkeypatch.delenv("SERVICE_API_KEY")
    with pytest.raises(ConfigError) as caught:
        compose_saved(tmp_path / "config.yaml", [])
    assert caught.value.faults == (
        "logger.project: SERVICE_API_KEY is not in the environment, and its value belongs here; "
        "export SERVICE_API_KEY=...",
    )


def test_records_logs_and_messages_show_the_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "x.json", {"command": [f"a={VALUE}"]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"command": ["a=<SERVICE_API_KEY>"]}
    (tmp_path / "multirun.yaml").write_text(f"- {VALUE}\n")
    hide_secrets(tmp_path / "multirun.yaml")
    assert (tmp_path / "multirun.yaml").read_text() == "- <SERVICE_API_KEY>\n"
    record = logging.LogRecord("rrl", logging.INFO, "", 0, "at %s", (VALUE,), None)
    assert Redacting("%(message)s").format(record) == "at <SERVICE_API_KEY>"

    def refuse() -> None:
        load("train", [f'seed="{VALUE}"'])

    assert shell.guarded(refuse) == 2
    shell._print_traceback(ValueError, ValueError(VALUE), None)
    said = capsys.readouterr().err
    assert "seed: expected int, got '<SERVICE_API_KEY>'" in said.replace('"', "'")
    assert "ValueError: <SERVICE_API_KEY>" in said
    assert "sekrit" not in said


def test_a_sweep_is_recorded_so_that_it_can_go_on(tmp_path: Path) -> None:
    sweep = Sweep(
        folder=str(tmp_path),
        command=[f"logger.group={VALUE}", "seed=1,2"],
        program=(),
        fixed=(),
        devices=None,
        search=None,
    )
    write_sweep(sweep)
    assert "sekrit" not in (tmp_path / "sweep.json").read_text()
    assert read_sweep(tmp_path).command == ["logger.group=${oc.env:SERVICE_API_KEY}", "seed=1,2"]


def test_loggers_get_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(Sidecar, "__init__", lambda *given: None)
    monkeypatch.setattr(Sidecar, "send", lambda sidecar, message: sent.append(message) or [])
    sink = WandB(project="p", entity=None, group="sekrit", tags=(VALUE,), patience=1.0)
    tracker = Tracker(tmp_path, sink, {"data": {"note": VALUE}}, None)
    tracker.samples(0, [{"text": VALUE}])
    assert [message.get("call", "start") for message in sent] == ["start", "samples"]
    assert "sekrit/" not in json.dumps(sent)
    assert sent[0]["config"] == {"data": {"note": "<SERVICE_API_KEY>"}}


@pytest.mark.parametrize(
    "override",
    [
        "+data.api_key=abc", "+data.hf_token=abc", "+data.x={password: abc}", "+data.Authorization='Bearer abc'",
        "+data.token=abc", "+data.client_secret=abc", "+data.u='https://me:abc@host/v1'",
        "+data.u='https://host/v1?api_key=abc'", "+data.service.credentials=abc",
    ],
)  # fmt: skip
def test_a_secret_that_is_typed_is_refused_and_not_repeated(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("train", [override])
    (reported,) = caught.value.faults
    assert reported.startswith("data.")
    assert "export NAME_KEY=..." in reported
    assert "abc" not in reported


@pytest.mark.parametrize(
    "override",
    [
        "+data.api_key='${oc.env:SERVICE_API_KEY}'", "+data.x='Bearer ${oc.env:SERVICE_API_KEY}'",
        "+data.u='https://me:${oc.env:SERVICE_API_KEY}@host/v1'", "+data.stop_token='<end>'", "+data.api_key_env=X_KEY",
        "+data.monkey=abc", "+data.api_key=null", "+data.max_tokens=5", "+data.u='http://host:8000/v1'",
        "+data.u='see http://host/a:b and x@y'",
    ],
)  # fmt: skip
def test_a_secret_by_reference_and_what_is_none_are_taken(override: str) -> None:
    key = override.partition("=")[0].removeprefix("+data.")
    assert key in load("train", [override])[0]["data"]


def test_no_file_of_a_run_holds_a_secret_and_the_run_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"trainer__total_training_steps": 1, "logger": "tensorboard", "evaluation__n": 0, "evaluation__limit": 1}
    words = arguments(tmp_path / "run", **changes)
    note = "+data.note='https://me:${oc.env:SERVICE_API_KEY}@host'"
    monkeypatch.setattr("sys.argv", ["rrl-train", *words, f"+data.note={VALUE}"])
    train._train([*words, note])
    contents = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert not [str(path) for path, content in contents.items() if any(form.encode() in content for form in FORMS)]
    again = [f"resume={tmp_path / 'run'}", "trainer.total_training_steps=2"]
    monkeypatch.delenv("SERVICE_API_KEY")
    with pytest.raises(ConfigError, match="SERVICE_API_KEY is not in the environment"):
        train._train(again)
    monkeypatch.setenv("SERVICE_API_KEY", VALUE)
    train._train(again)
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 3
