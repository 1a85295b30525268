"""What is written on a command line: quotes and backslashes, whole numbers, texts where numbers belong."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from rrl.config.check import load
from rrl.config.compose import compose
from rrl.errors import ConfigError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def composed(*overrides: str) -> dict[str, Any]:
    found = compose("train", overrides)
    assert found.faults == []
    return found.config


def faults(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load("train", overrides)
    return list(caught.value.faults)


# --- quotes and backslashes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r'["\n\nQ:"]', ["\n\nQ:"]),
        (r'["a\tb", "\r\n"]', ["a\tb", "\r\n"]),
        (r'["\\n"]', ["\\" + "n"]),
        (r'["\\"]', ["\\"]),
        (r'["\\\\"]', ["\\" * 2]),
        (r'["\\\""]', ["\\" + '"']),
        (r'["say \"so\"", "it\'s"]', ['say "so"', "it's"]),
        (r'["\u00e9\xe9\U0001f600"]', [chr(233) * 2 + chr(0x1F600)]),
        (r'["\ud83d\ude00"]', [chr(0x1F600)]),
        (r'["\d+\s", "\boxed{}", "\frac"]', ["\\" + "d+" + "\\" + "s", "\\" + "boxed{}", "\\" + "frac"]),
        (r"['\d+', 'C:\data', '\boxed{}']", ["\\" + "d+", "C:" + "\\" + "data", "\\" + "boxed{}"]),
        (r"[C:\data\Users]", ["C:" + "\\" + "data" + "\\" + "Users"]),
        ('["a\nb"]', ["a\nb"]),
        ("['a\nb']", ["a\nb"]),
        (r'["${data.name}\n"]', ["trace\n"]),
    ],
)
def test_backslashes_in_double_quotes_are_escapes_and_stand_as_they_are_elsewhere(
    written: str, meant: list[str]
) -> None:
    assert composed(f"engine.stop={written}")["engine"]["stop"] == meant


def test_escapes_count_in_every_text_alone_and_in_mappings() -> None:
    config = composed(r'data.plain_template="Question: {question}\nAnswer:\n"', r'data.level_weights={L3: "a\nb"}')
    assert config["data"]["plain_template"] == "Question: {question}\nAnswer:\n"
    assert config["data"]["level_weights"] == {"L3": "a\nb"}
    assert composed(r'+data.notes={x: {y: ["\t"]}}')["data"]["notes"] == {"x": {"y": ["\t"]}}
    assert composed(r'data.plain_template="\boxed{question}"')["data"]["plain_template"] == "\\" + "boxed{question}"


@pytest.mark.parametrize(
    ("written", "sign", "meaning"),
    [
        (r"'\n\nQ:'", "n", "a line's end"),
        (r"['\n\nQ:']", "n", "a line's end"),
        (r"[\n\nQ:]", "n", "a line's end"),
        (r"{x: ['a\tb']}", "t", "a tab"),
        (r"C:\rows", "r", "a carriage return"),
        (r"'caf\u00e9'", "u00e9", "a character"),
        (r"'\\n'", "n", "a line's end"),
    ],
)
def test_what_could_be_an_escape_outside_double_quotes_is_refused_with_both_ways_to_write_it(
    written: str, sign: str, meaning: str
) -> None:
    (reported,) = compose("train", [f"engine.stop={written}"]).faults
    assert reported.startswith("engine.stop: \\")
    assert f'expected "\\{sign}" for {meaning} or "\\\\{sign}" for a backslash and {sign}, in double quotes' in reported


@pytest.mark.parametrize("written", [r'"\ud83d"', r'["\ude00\ud83d"]', r'"\U00110000"'])
def test_half_of_a_character_and_no_character_are_refused(written: str) -> None:
    (reported,) = compose("train", [f"engine.stop={written}"]).faults
    assert "half of a character" in reported or "no character" in reported


def test_the_command_line_that_the_page_prints_means_what_it_says() -> None:
    (line,) = re.findall(r"^rrl-train .*engine\.stop.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    config = composed(*shlex.split(line)[1:-1])
    assert config["data"]["plain_template"] == "Question: {question}\nAnswer:\n"
    assert config["engine"]["stop"] == ["\n\nQ:"]


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["1e5", "100_000", "100000.0", "1E5", "1_0e4", ".1e6", "100000."])
def test_a_whole_number_may_be_written_in_any_way_and_is_recorded_as_one(written: str) -> None:
    config, parts = load("train", [f"trainer.total_tokens={written}"])
    for number in (parts.trainer.total_tokens, config["trainer"]["total_tokens"]):
        assert (number, type(number)) == (100_000, int)


def test_whole_numbers_count_in_lists_literals_and_copies_and_a_float_stays_one() -> None:
    given = ["task.demonstration_lengths=[1e0,2.0]", "policy.zero_stage=2.0", "data.max_response_length=1.6e1"]
    _, parts = load("train", [*given, "objective.gamma=1.0"])
    assert parts.task.demonstration_lengths == (1, 2)
    assert (parts.policy.zero_stage, parts.engine.sampling.max_new_tokens) == (2, 16)
    assert type(parts.engine.sampling.max_new_tokens) is int
    assert type(parts.objective.gamma) is float


@pytest.mark.parametrize(
    ("override", "reported"),
    [
        ("trainer.total_training_steps=1e-1", "expected int or null, got 0.1"),
        ("trainer.n=2.5", "expected int, got 2.5"),
        ("trainer.n=1e400", "expected a finite int, got inf"),
        ("trainer.n='8'", "expected int, got '8'; write 8, without quotes"),
        ("policy.actor_lr='1e-5'", "expected float, got '1e-5'; write 1e-5, without quotes"),
        ("trainer.train_on_truncated=yes", "expected bool, got 'yes'; write true, without quotes"),
        ("trainer.train_on_truncated=Off", "expected bool, got 'Off'; write false, without quotes"),
        ("trainer.train_on_truncated='true'", "expected bool, got 'true'; write true, without quotes"),
        ("run.threads=no", "expected int or null, got 'no'"),
        ("run.threads=1k", "expected int or null, got '1k'"),
    ],
)
def test_what_is_no_whole_number_or_switch_is_refused(override: str, reported: str) -> None:
    assert faults(override) == [f"{override.partition('=')[0]}: {reported}"]
