"""A task of the study that takes the arms of another: what it has of its own, what is refused."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.study import MIXTURE, protocol_file
from rrl.errors import DataError

STUDY = Path(__file__).parents[2] / "experiments" / "study"


@pytest.fixture
def protocol(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(STUDY)
    return importlib.import_module("protocol")


def test_arms_of_another_task_get_overrides_and_seeds_of_their_own(protocol: Any, tmp_path: Path) -> None:
    about = protocol.read("mixture", protocol_file(tmp_path, MIXTURE | {"budget": 500}))
    assert (about.budget, about.level, about.tuned_of, dict(about.seeds)) == (500, "L", "toy", {"reported": (0, 1)})
    assert list(about.arms) == ["ppo", "peak", "peak_redraw"]
    redraw = about.arms["peak_redraw"]
    assert (redraw.tuned, redraw.overrides) == ("peak", ("sampler=redraw", "weights={L: 1}", "lr=5"))
    own = protocol.read("toy", tmp_path / "arms.yml")
    assert (own.tuned_of, own.arms["peak_redraw"].overrides) == ("toy", ("sampler=redraw",))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"arms_of": "toys"}, "mixture.arms_of: no task 'toys' with arms of its own; did you mean 'toy'"),
        ({"arms_of": "mixture"}, "mixture.arms_of: no task 'mixture' with arms of its own"),
        ({"override": []}, "mixture.override: not of a task with arms_of; did you mean 'overrides'?; expected exper"),
        ({"arms": ["ppo", "peek"]}, "mixture.arms: no arm 'peek' of toy; did you mean 'peak'"),
        ({"arms": ["ppo", "peak"]}, "mixture.arms.peak.control: no other arm 'peak_redraw'"),
        ({"arms": ["peak", "peak_redraw"]}, "mixture.arms: expected one of kind baseline, got []"),
        ({"arms": {"ppo": {}}}, "mixture.arms, overrides: expected lists, of arms of toy and of overrides that all"),
        ({"overrides": "lr=5"}, "mixture.arms, overrides: expected lists, of arms of toy and of overrides that all"),
        ({"arms": [["ppo"]]}, "mixture.arms, overrides: expected lists, of arms of toy and of overrides that all"),
        ({"overrides": [5]}, "mixture.arms, overrides: expected lists, of arms of toy and of overrides that all"),
        ({"overrides": ["rule=pivot"]}, "mixture.overrides: 'rule=pivot' and arms.peak of toy, 'rule=peak', set the "),
        ({"seeds": {}}, "mixture.seeds: expected those of reported alone, since arms are tuned and chosen on toy, got"),
        ({"seeds": {"tuning": [1], "reported": [2]}}, "mixture.seeds: expected those of reported alone, since arms"),
        ({"seeds": {"reported": [11, 0]}}, "mixture.seeds: [11] stand in choosing and in reported; expected other"),
        ({"budget": 0}, "mixture.budget: expected generated tokens, a whole number above 0, got 0"),
    ],
)
def test_a_task_that_takes_arms_wrongly_is_refused(
    changes: dict[str, Any], fault: str, protocol: Any, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        protocol.read("mixture", protocol_file(tmp_path, MIXTURE | changes))
    assert any(fault in each for each in caught.value.faults)


def test_faults_of_the_task_that_arms_are_taken_from_are_said_there(protocol: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"toy\.budget: expected generated tokens"):
        protocol.read("mixture", protocol_file(tmp_path, budget=0))


def test_every_task_of_the_study_holds_together(protocol: Any) -> None:
    tasks = protocol.read_yaml(protocol.ARMS)[0]
    mixtures = {task: about for task in tasks if (about := protocol.read(task)).tuned_of != task}
    assert {task: about.tuned_of for task, about in mixtures.items()} == {
        "trace_again": "trace_all", "trace_none": "trace_all", "trace_quarter": "trace_all", "gpu": "trace_all",
        "gpu_tiny": "trace_all", "minicode_again": "minicode", "minicode_more": "minicode",
        "minichat_again": "minichat",
    }  # fmt: skip
    assert mixtures["trace_none"].arms["doubt"].overrides[-1] == "data.level_weights={L10: 1}"


def test_a_list_among_the_overrides_of_an_arm_is_spread(protocol: Any, tmp_path: Path) -> None:
    file = protocol_file(tmp_path)
    tasks = protocol.read_yaml(file)[0]
    tasks["toy"]["arms"]["peak"]["overrides"] = [["a=1", "b=2"], "rule=peak"]
    file.write_text(json.dumps(tasks), encoding="utf-8")
    assert protocol.read("toy", file).arms["peak"].overrides == ("a=1", "b=2", "rule=peak")
    tasks["toy"]["arms"]["peak"]["overrides"] = [[["a=1"]]]
    file.write_text(json.dumps(tasks), encoding="utf-8")
    with pytest.raises(DataError, match=r"toy\.arms\.peak\.overrides: expected a list of overrides, got"):
        protocol.read("toy", file)
