"""What tuning tried: settings, best first; arms that were given more trials than others are marked."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from fixtures.study import PROTOCOL, protocol_file, run
from rrl.errors import DataError


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "experiments" / "study")
    return importlib.import_module("tuning")


@pytest.fixture
def tried(tuning: Any, tmp_path: Path) -> Any:
    """Runs of (arm, seed, learning rate, accuracy at the end), collected and summed up; two trials were agreed."""

    def made(*runs: tuple[str, int, float, float], tokens: int = 1000, **taken: list[str]) -> Any:
        seeds = {"tuning": [10, 12], "choosing": [11], "reported": [0]}
        about = tuning.protocol.read("toy", protocol_file(tmp_path, seeds=seeds))
        for number, (arm, seed, lr, end) in enumerate(runs):
            folder = tmp_path / "runs" / "toy" / "tuning" / arm / str(number)
            run(folder, seed, (0.0, 0.0, end), lr=lr, started=str(number), tokens=tokens)
        collect = importlib.import_module("collect")
        collect.collect(about, tmp_path / "runs", tmp_path / "results")
        return tuning.tried(about, collect.lines_in(tmp_path / "results" / "toy" / "tuning.jsonl"), taken)

    return made


def test_settings_are_means_over_seeds_best_first(tried: Any, tuning: Any) -> None:
    result = tried(("ppo", 10, 0.1, 0.5), ("ppo", 12, 0.1, 0.3), ("ppo", 10, 0.2, 0.4), ("ppo", 12, 0.2, 0.6))
    # At 60 %: a fifth of the way from 0 at 50 % to the end.
    assert result["arms"]["ppo"] == {
        "trials": 2, "runs": 4,
        "settings": [{"setting": ["lr=0.2"], "taken": None, "seeds": [10, 12], "accuracy": pytest.approx(0.1)},
                     {"setting": ["lr=0.1"], "taken": None, "seeds": [10, 12], "accuracy": pytest.approx(0.08)}],
    }  # fmt: skip
    assert "| ppo | 2 | 4 | 0.080 to 0.100 | lr=0.2 | - |" in tuning.as_table(result).markdown()


def test_an_arm_with_more_trials_is_marked_and_a_setting_tried_again_counts(tried: Any, tuning: Any) -> None:
    result = tried(("ppo", 10, 0.1, 0.5), ("peak", 10, 0.1, 0.5), ("peak", 10, 0.2, 0.4), ("peak", 10, 0.1, 0.5))
    text = tuning.as_table(result).markdown()
    assert "| ppo | 1 (**not as agreed**) | 1 | 0.100 to 0.100 | as it is | - |" in text
    assert "| peak | 3 (**not as agreed**) | 3 | 0.080 to 0.100 | lr=0.1 | - |" in text


@pytest.mark.parametrize(
    ("taken", "said"), [("lr=0.2", "the best"), ("lr=0.1", "0.080: lr=0.1"), ("lr=0.3", "none of these")]
)
def test_a_setting_that_was_taken_and_is_not_the_best_is_named(taken: str, said: str, tried: Any, tuning: Any) -> None:
    result = tried(("ppo", 10, 0.1, 0.4), ("ppo", 10, 0.2, 0.5), ppo=[taken])
    assert f"| lr=0.2 | {said} |" in tuning.as_table(result).markdown()


def test_runs_that_cannot_be_judged_are_refused(tried: Any, tuning: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tuning: ppo/0 ended at 599 tokens; expected 600 or more"):
        tried(("ppo", 10, 0.1, 0.5), tokens=599)
    about = tuning.protocol.read("toy", tmp_path / "arms.yml")
    with pytest.raises(DataError, match="tuning: no run of toy; expected one or more"):
        tuning.tried(about, [], {})


def test_files_are_written_beside_the_lines(
    tried: Any, tuning: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried(("ppo", 10, 0.1, 0.5))
    monkeypatch.setattr(tuning.protocol.read, "__defaults__", (tmp_path / "arms.yml",))
    tuning.main("toy", str(tmp_path / "results"))
    text = (tmp_path / "results" / "toy" / "tuning.md").read_text()
    assert text.startswith("Tuning on toy: 2 trials of each arm")
    # Its own control takes over what the rule's tuning finds.
    assert text.endswith("**Incomplete**: not tuned yet: peak, pivot, oracle.\n")
    assert PROTOCOL["trials"] == 2
