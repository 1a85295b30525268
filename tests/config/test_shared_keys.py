"""What parts share stands in one place: taken by name, reported by its own key, left out where nothing takes it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from rrl.config.binding import Binder, Source
from rrl.config.check import check, load
from rrl.config.saved import read_config, write_config
from rrl.errors import ConfigError
from rrl.parts.rewards.verdict import OutcomeReward

HF = ["task=gsm8k", "model=hf", "model.path=somewhere", "algo=rrl"]


def values(node: Mapping[str, Any]) -> Iterator[Any]:
    """Every value of a configuration, a list as one."""
    for key, item in node.items():
        if isinstance(item, Mapping):
            yield from values(item)
        elif key != "_target_":
            yield item


class Cutting:
    """Takes two shared values."""

    def __init__(self, *, cut_points: str, seed: int, own: int) -> None:
        self.given = (cut_points, seed, own)
        if seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {seed}")


def made(own: Mapping[str, Any], faults: list[str], **changes: Any) -> tuple[Any, Binder]:
    config = {"seed": 3, "data": {"cut_points": "line"}, **changes}
    shared = {"seed": Source("", "seed", config), "cut_points": Source("data.", "cut_points", config["data"])}
    binder = Binder(faults, shared)
    return binder.make({"_target_": f"{__name__}.Cutting", **own}, "sampler"), binder


@pytest.mark.parametrize(("overrides", "most"), [(HF, 76), ([], 80)])
def test_a_run_has_few_keys(overrides: list[str], most: int) -> None:
    assert 50 < len(list(values(load("train", overrides)[0]))) <= most


def test_an_argument_that_a_part_does_not_give_is_taken_by_its_name_and_its_own_wins() -> None:
    part, binder = made({"own": 1}, [])
    assert part.given == ("line", 3, 1) and binder.taken == {"seed", "data.cut_points"}
    part, binder = made({"own": 1, "seed": 5}, [])
    assert part.given == ("line", 5, 1) and binder.taken == {"data.cut_points"}


def test_faults_of_what_is_taken_name_the_place_where_it_stands() -> None:
    faults: list[str] = []
    made({"own": 1}, faults, seed=-1)
    made({"own": 1}, faults, seed="x")
    made({"own": "y"}, faults, data={"cut_points": 7})
    assert faults == [
        "seed: expected 0 or more, got -1",
        "seed: expected int, got 'x'",
        "sampler.own: expected int, got 'y'",
        "data.cut_points: expected str, got 7",
    ]


def test_whole_numbers_are_whole_where_they_stand_too() -> None:
    config, parts = load("train", ["data.max_response_length=1.6e1"])
    assert (config["data"]["max_response_length"], parts.engine.max_response_length) == (16, 16)
    assert type(config["data"]["max_response_length"]) is int


@pytest.mark.parametrize(
    ("overrides", "there", "absent"),
    [
        ([], {"selection", "critic", "kl", "template"},
         {"sandbox", "guidance", "lora", "compile", "old_log_prob", "logger", "search"}),
        (["algo=gsi"], {"guidance", "template"}, {"critic", "kl", "selection", "sandbox"}),
        (["task=minicode", "algo=ppo"], {"sandbox", "kl"}, {"selection", "guidance"}),
        (["logger=tensorboard", "lora=default"], {"logger", "lora"}, {"sandbox"}),
    ],
)  # fmt: skip
def test_what_no_part_takes_is_not_in_the_configuration(
    overrides: list[str], there: set[str], absent: set[str]
) -> None:
    keys = set(load("train", overrides)[0])
    assert there <= keys and not absent & keys


def test_setting_what_no_part_takes_says_so(caplog: pytest.LogCaptureFixture) -> None:
    load("train", ["sandbox.workers=4"])
    (reported,) = [record.getMessage() for record in caplog.records]
    assert reported == (
        "sandbox.workers: without effect; nothing in use reads it; "
        "task=apps, task=apps_plus, task=humaneval, task=mbpp, task=minicode would"
    )


def test_a_run_reads_its_own_configuration_again_without_what_was_left_out(tmp_path: Path) -> None:
    config, parts = load("train", ["algo=gsi", "guidance=none"])
    write_config(tmp_path, config)
    assert "guidance" not in yaml.safe_load((tmp_path / "config.yaml").read_text())
    again = check(read_config(tmp_path))
    assert (again.trainer, again.task, again.model) == (parts.trainer, parts.task, parts.model)


@dataclass(frozen=True, kw_only=True)
class Limited(OutcomeReward):
    """Takes a key of a user's own from the top level."""

    limit: int | None


def test_a_null_of_a_users_own_that_a_part_takes_is_read_again(tmp_path: Path) -> None:
    config, parts = load("train", ["+limit=null", f"+reward._target_={__name__}.Limited"])
    write_config(tmp_path, config)
    assert parts.reward.limit is None and check(read_config(tmp_path)).reward == parts.reward


def test_a_part_lacks_what_stands_nowhere() -> None:
    with pytest.raises(ConfigError) as caught:
        load("train", ["sampler={_target_: rrl.parts.samplers.hf.X}", f"+reward.more={{_target_: {__name__}.Cutting}}"])
    assert "reward.more.own: missing; Cutting needs it" in caught.value.faults
