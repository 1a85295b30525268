"""Which run a command means: a folder alone, another command's name for it, a folder that will not do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rrl.cli import evaluate, rescore, reward_model, sft, train
from rrl.cli.shell import with_run
from rrl.errors import ConfigError
from rrl.records.status import finished_run, suggestion, write_state


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs as far as their files show: ``done`` has an actor, ``broken`` only a checkpoint."""
    for name in ("done", "broken"):
        (tmp_path / name / "checkpoints" / "step-000005" / "actor").mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("trainer: {total_training_steps: 9, total_tokens: null}\n")
    (tmp_path / "done" / "actor").mkdir()
    (tmp_path / "done" / "actor" / "config.json").write_text("{}")
    return tmp_path


def faults(command: Callable[[list[str]], None], *words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        command(list(words))
    return list(caught.value.faults)


def test_a_folder_alone_is_the_run_of_commands_that_take_one(runs: Path) -> None:
    folder = str(runs / "done")
    assert with_run([folder, "evaluation.n=2"], "measure") == [f"from_run={folder}", "evaluation.n=2"]
    named = runs / "a=b"
    (runs / "done").rename(named)
    assert with_run([str(named)], "measure") == [f"from_run={named}"]
    assert with_run(["-x", "seed=1"], "measure") == ["-x", "seed=1"]


@pytest.mark.parametrize(("command", "purpose"), [(evaluate._evaluate, "measure"), (rescore._rescore, "judge")])
@pytest.mark.parametrize("key", ["run.dir", "resume", "run", "run_dir"])
def test_another_commands_name_for_a_run_is_refused_with_the_right_one(
    key: str, command: Callable[[list[str]], None], purpose: str
) -> None:
    assert faults(command, f"{key}=runs/x", "evaluation.n=2") == [
        f"{key}: 'runs/x', but this command neither writes nor resumes a run; to {purpose} the run in it give "
        "from_run=runs/x"
    ]


@pytest.mark.parametrize("command", [train._train, sft._sft, reward_model._reward_model])
def test_a_folder_alone_and_from_run_are_refused_by_commands_that_take_none(
    command: Callable[[list[str]], None], runs: Path
) -> None:
    folder = str(runs / "done")
    reported = f"rrl-train resume={folder} goes on with a run, rrl-evaluate {folder} measures it"
    assert faults(command, folder) == [f"{folder}: a folder, expected key=value; {reported}"]
    (named,) = faults(command, f"from_run={folder}")
    assert named.endswith("did you mean resume=RUN (of rrl-train), or from_run=RUN (of rrl-evaluate)?")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("", "it holds runs; give one of them, as in from_run={0}/broken"),
        ("done/actor", "it is inside a run; give from_run={0}/done"),
        ("broken/checkpoints/step-000005", "it is inside a run; give from_run={0}/broken"),
        ("broken/checkpoints/step-000005/actor", "it is inside a run; give from_run={0}/broken"),
        ("dome", "there is no such folder; did you mean from_run={0}/done?; rrl-status lists the runs"),
        ("zzz", "there is no such folder; rrl-status lists the runs"),
        ("done/config.yaml", "it is inside a run; give from_run={0}/done"),
        ("done/actor/config.json", "it is inside a run; give from_run={0}/done"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused_with_what_to_give(name: str, remedy: str, runs: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        finished_run(str(runs / name))
    assert caught.value.faults == (
        f"from_run: {str(runs / name)!r} holds no finished run; expected a folder with config.yaml and actor/; "
        + remedy.format(runs),
    )


def test_a_run_that_has_not_come_to_its_end_is_reported_with_its_state_and_checkpoint(runs: Path) -> None:
    folder = runs / "broken"
    write_state(folder, "interrupted")
    saved = f"measure its last checkpoint: model=hf model.path={folder}/checkpoints/step-000005/actor"
    reported = f"the run in it is interrupted; continue it: rrl-train resume={folder}, or {saved}"
    assert suggestion("from_run", folder) == reported
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": "running"}))
    assert str(suggestion("from_run", folder)).startswith("the run in it is killed; continue it: ")


def test_a_folder_with_a_model_is_reported_as_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert suggestion("from_run", tmp_path) == f"it holds a model, not a run; give model=hf model.path={tmp_path}"


def test_a_run_that_is_resumed_is_named_rightly_and_stays_where_it_is(runs: Path) -> None:
    (reported,) = faults(train._train, f"resume={runs}")
    assert reported.endswith(f"it holds runs; give one of them, as in resume={runs}/broken")
    (reported,) = faults(train._train, f"resume={runs}/done/checkpoints")
    assert reported.endswith(f"it is inside a run; give resume={runs}/done")
    assert faults(train._train, "resume=") == [
        "resume: empty; expected a value, as in resume=...; or omit it"
    ]  # fmt: skip
    (reported,) = faults(train._train, f"run={runs}/done")
    assert reported.endswith(f"; to go on with a run give resume={runs}/done")
    (runs / "done" / "config.yaml").write_text("kind: {}\nrun: {dir: null}\n")
    (reported,) = faults(train._train, f"resume={runs}/done")
    assert reported == f"resume: '{runs}/done' holds no run of rrl-train; expected one; rrl-status lists them"


def test_a_long_value_is_not_taken_for_a_folder() -> None:
    given = f"data.plain_template={'x' * 300}"
    assert with_run([given], "measure") == [given]
