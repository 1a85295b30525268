"""Completion by the shell: choices of groups, keys of what was chosen, paths; in a real bash."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rrl.cli import train
from rrl.cli.completion import WORDS, answer, candidates
from rrl.config.choices import groups
from rrl.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rrl-train sampler=pr", ["sampler=practice", "sampler=problems", "sampler=prompt_replay"]),
        ("rrl-train sam", ["sampler.", "sampler="]),
        ("rrl-train experiment=trace/sh", ["experiment=trace/shared_critic"]),
        ("rrl-train objective=grpo kl=loss kl.", ["kl.coef=", "kl.estimator="]),
        ("rrl-train sampler=problems sampler.", []),
        ("rrl-train trainer.train_on_truncated=f", ["trainer.train_on_truncated=false"]),
        ("rrl-train --cf", ["--cfg"]),
        ("rrl-train res", ["resume="]),
        ("rrl-train dry_run=t", ["dry_run=true"]),
        ("rrl-train sampler", ["sampler.", "sampler="]),
        ("/some/where/bin/rrl-evaluate fr", ["from_run="]),
        ("rrl-sft fr", []),
        ("rrl-train model.path=ru", []),  # a path: the shell's own business
        ("rrl-train resume=ru", []),
        ("rrl-train 'data.plain_template=Q: ", []),
        ("rrl-train no.such", []),
        ("rrl-train sampler=redraw", []),
        ("rrl-train sampler=zzzz nonsense x=1 seed=abc engine.te", ["engine.temperature="]),
        ("rrl-train trainer=3 resume=x engine.batch", ["engine.batch_size="]),
    ],
)  # fmt: skip
def test_the_words_that_may_come_next(line: str, words: list[str]) -> None:
    assert candidates(line) == words


def test_an_empty_word_may_become_any_group_or_key() -> None:
    words = candidates("rrl-train algo=ppo ")
    assert {f"{group}=" for group in groups()} | {"seed=", "run.", "data.", "resume="} <= set(words)
    assert not [word for word in words if word.startswith("-") or "_target_" in word]


def test_keys_end_so_that_typing_can_go_on() -> None:
    assert candidates("rrl-train dat") == ["data."]
    assert {"data.name=", "data.level_weights."} <= set(candidates("rrl-train data."))
    assert {word[-1] for word in candidates("rrl-train trainer.")} == {"="}


def test_a_key_that_was_added_is_known() -> None:
    assert candidates("rrl-train +data.mine=true data.mine=") == ["data.mine=false", "data.mine=true"]


def test_an_answer_loads_no_torch() -> None:
    program = (
        "import sys; sys.argv = ['rrl-train', '--complete', 'rrl-train algo=ppo objective.']\n"
        "from rrl.cli import train\n"
        "try: train.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "objective.gae_lambda=" in done.stdout.splitlines()
    assert done.stdout.endswith("False\n")


def test_a_shell_that_is_not_known_is_reported() -> None:
    with pytest.raises(ConfigError, match="--completion: got 'tcsh'; expected one of bash, zsh, fish"):
        answer("--completion", "tcsh")


def test_the_command_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    train._train(["--completion", "bash"])
    assert capsys.readouterr().out == answer("--completion", "bash")


@pytest.mark.parametrize("check", [["bash", "-n"], ["zsh", "-n"], ["fish", "--no-execute"]], ids=lambda words: words[0])
def test_a_script_is_of_its_shells_language(check: list[str], tmp_path: Path) -> None:
    if shutil.which(check[0]) is None:
        pytest.skip(f"no {check[0]} on this machine")
    (tmp_path / "script").write_text(answer("--completion", check[0]))
    assert subprocess.run([*check, tmp_path / "script"]).returncode == 0


# --- bash -------------------------------------------------------------------------------------------------------------

SESSION = """
source "$1"
COMP_LINE=$2 COMP_POINT=${4:-${#2}} COMP_WORDBREAKS=$3
complete -p "${COMP_LINE%% *}" || exit 3
_rrl "$PWD/${COMP_LINE%% *}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
BREAKS = " \t\n\"'><=;|&(:"
"""What bash takes for the end of a word unless configured otherwise."""


@pytest.fixture
def bash(tmp_path: Path) -> Path:
    """A folder with the script and an rrl-train that is the one under test."""
    (tmp_path / "script").write_text(answer("--completion", "bash"))
    command = tmp_path / "rrl-train"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rrl.cli.train "$@"\n')
    command.chmod(0o755)
    return tmp_path


def completed(folder: Path, line: str, breaks: str = BREAKS, cursor: int | None = None) -> list[str]:
    """COMPREPLY of a bash that completes ``line``, whose words end at ``breaks``."""
    words = ["bash", "--norc", "-c", SESSION, "bash", folder / "script", line, breaks]
    words += [] if cursor is None else [str(cursor)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    registered, *replies = done.stdout.splitlines()
    assert "-o default" in registered  # paths where there is no reply
    return [reply for reply in replies if reply]


def test_bash_gets_what_follows_the_equals_sign(bash: Path) -> None:
    assert completed(bash, "rrl-train sampler=pa") == ["pass_rate", "pass_rate_redraw"]
    assert completed(bash, "rrl-train sampler=pa", breaks=" \t\n") == ["sampler=pass_rate", "sampler=pass_rate_redraw"]


def test_bash_gets_the_keys_of_what_was_chosen(bash: Path) -> None:
    assert completed(bash, "rrl-train objective=grpo kl=loss kl.") == ["kl.coef=", "kl.estimator="]


def test_bash_completes_at_the_cursor(bash: Path) -> None:
    assert completed(bash, "rrl-train sampler=pa algo=ppo", cursor=20) == ["pass_rate", "pass_rate_redraw"]


def test_bash_is_left_to_complete_paths(bash: Path) -> None:
    assert completed(bash, "rrl-train resume=ru") == []


def test_bash_completes_every_command(bash: Path) -> None:
    for command in WORDS:
        assert completed(bash, f"{command} sampler=redr") == ["redraw"], command


def test_bash_completes_parts_of_ones_own(bash: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bash / "parts" / "sampler").mkdir(parents=True)
    (bash / "parts" / "sampler" / "recent.yaml").write_text(json.dumps({"_target_": "x.Y", "own": 1}))
    monkeypatch.setenv("RRL_PARTS", "parts")
    assert completed(bash, "rrl-train sampler=rec") == ["recent"]
    assert completed(bash, "rrl-train algo=ppo sampler=recent sampler.") == ["sampler.own="]
