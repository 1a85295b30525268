"""What is kept of the study's runs: one line each, one run of an arm and seed, over several sittings."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fixtures.study import protocol_file, run
from rrl.errors import DataError

STUDY = Path(__file__).parents[2] / "experiments" / "study"


@pytest.fixture
def collect(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(STUDY)
    return importlib.import_module("collect")


@pytest.fixture
def sitting(collect: Any, tmp_path: Path) -> Any:
    """Collects runs/ of a folder into results/, and returns the lines of a stage and what was said."""
    about = collect.protocol.read("toy", protocol_file(tmp_path))

    def collected(stage: str = "reported") -> tuple[list[dict[str, Any]], list[str]]:
        texts = collect.collect(about, tmp_path / "runs", tmp_path / "results")
        path = tmp_path / "results" / "toy" / f"{stage}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()], texts

    return collected


def place(tmp_path: Path, arm: str, job: str, stage: str = "reported") -> Path:
    return tmp_path / "runs" / "toy" / stage / arm / job


def test_a_run_is_one_line(sitting: Any, tmp_path: Path) -> None:
    run(place(tmp_path, "peak", "0"), 2, (0.0, 0.3, 0.5), replays=True)
    (line,), texts = sitting()
    assert {name: line.pop(name) for name in ("config", "processor")}["config"].isalnum()
    assert line == {
        "arm": "peak", "seed": 2, "run": "peak/0", "overrides": ["lr=0.1"], "started": "monday", "code": "c0de",
        "questions": "9 of 5a", "tokens": [0, 500, 1000], "step": [0, 2, 4],
        "seconds": [0.0, 4.0, 8.0],  # without evaluations, 9 s each
        "first_solves": [0.0, 3.0, 10.0],  # 1 + 2, + 3 + 4
        "entropy": [None, 0.75, 0.291667],  # (1 + 1/2) / 2, (1/3 + 1/4) / 2
        "replay": [None, 0.5, 0.5], "unsolved": [None, 0.8, 0.6],
        "accuracy": {"mean@4": {"all": [0.0, 0.3, 0.5], "L": [0.0, 0.3, 0.5]},
                     "greedy": {"all": [0.0, 0.15, 0.25], "L": [0.0, 0.15, 0.25]}},
        "k": 4, "pass": {"all": [0.1, 0.4, 0.6], "L": [0.2, 0.5, 0.7]},
    }  # fmt: skip
    assert texts[0].endswith("reported.jsonl: 1 new, 0 as before, 0 of another configuration than before, 0 kept")


def test_a_path_below_the_working_directory_is_the_same_configuration_elsewhere(
    collect: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashed(place: str, start: Path) -> str:
        (tmp_path / place).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / place)
        (tmp_path / place / "config.yaml").write_text(f"model: {{path: {start}}}\nseed: 1\n")
        return str(collect.configuration(tmp_path / place))

    here = hashed("here", tmp_path / "here" / "start")
    assert hashed("there", tmp_path / "there" / "start") == here
    assert hashed("there", tmp_path / "there" / "other") != here != hashed("there", tmp_path / "here" / "start")


def test_the_processor_is_that_of_this_machine_with_its_kind(
    collect: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 106\nmodel name\t: Intel(R) Xeon(R): 2.80GHz\n"
    (tmp_path / "cpuinfo").write_text(f"{core}\n{core.replace('106', '107')}")
    monkeypatch.setattr(collect, "Path", lambda _: tmp_path / "cpuinfo")
    monkeypatch.setattr(collect.socket, "gethostname", lambda: "here")
    for host, expected in (("here", "Intel(R) Xeon(R): 2.80GHz (cpu family 6, model 106)"), ("there", None)):
        (tmp_path / "status.json").write_text(json.dumps({"host": host}))
        assert collect.processor(tmp_path) == expected


def test_what_a_run_does_not_record_is_none(sitting: Any, tmp_path: Path) -> None:
    run(place(tmp_path, "ppo", "0"), 0, (0.0, 0.5))
    assert sitting()[0][0]["first_solves"] is None


def test_the_file_grows_over_sittings(sitting: Any, tmp_path: Path) -> None:
    run(place(tmp_path, "ppo", "0"), 1, (0.0, 0.5))
    run(place(tmp_path, "ppo", "1"), 0, (0.0, 0.4))
    sitting()
    shutil.rmtree(tmp_path / "runs")
    run(place(tmp_path, "peak", "0"), 0, (0.0, 0.6))
    lines, texts = sitting()
    assert [(line["arm"], line["seed"]) for line in lines] == [("peak", 0), ("ppo", 0), ("ppo", 1)]
    assert texts[0].endswith("1 new, 0 as before, 0 of another configuration than before, 2 kept")
    before = (tmp_path / "results" / "toy" / "reported.jsonl").read_bytes()
    assert sitting()[1][0].endswith("0 new, 1 as before, 0 of another configuration than before, 2 kept")
    assert (tmp_path / "results" / "toy" / "reported.jsonl").read_bytes() == before


def test_a_run_of_another_configuration_takes_the_place_of_the_old_line(sitting: Any, tmp_path: Path) -> None:
    run(place(tmp_path, "ppo", "0"), 0, (0.0, 0.5))
    sitting()
    shutil.rmtree(tmp_path / "runs")
    run(place(tmp_path, "ppo", "0"), 0, (0.0, 0.7), lr=0.2)
    (line,), texts = sitting()
    assert line["accuracy"]["mean@4"]["L"] == [0.0, 0.7] and "1 of another configuration than before" in texts[0]


def test_another_run_of_what_is_there_is_refused_and_the_file_stays(sitting: Any, tmp_path: Path) -> None:
    run(place(tmp_path, "ppo", "0"), 0, (0.0, 0.5))
    sitting()
    shutil.rmtree(tmp_path / "runs")
    run(place(tmp_path, "ppo", "5"), 0, (0.0, 0.7), started="friday")
    with pytest.raises(DataError, match="'ppo' with seed 0 from ppo/0, started monday; ppo/5, started friday, is anot"):
        sitting()
    assert '"started":"monday"' in (tmp_path / "results" / "toy" / "reported.jsonl").read_text()


@pytest.mark.parametrize(("lr", "how"), [(0.1, "the same configuration"), (0.2, "different configurations")])
def test_two_runs_of_an_arm_and_seed_are_refused_by_name(lr: float, how: str, sitting: Any, tmp_path: Path) -> None:
    one = run(place(tmp_path, "ppo", "0"), 0, (0.0, 0.5))
    other = run(place(tmp_path, "ppo", "1"), 0, (0.0, 0.5), lr=lr, started="friday")
    with pytest.raises(DataError) as caught:
        sitting()
    (fault,) = caught.value.faults
    assert fault.startswith(f"{one} and {other}: both are arm 'ppo' with seed 0, of {how}; expected one run of an arm")
    assert not (tmp_path / "results").exists()


def test_in_tuning_each_run_is_a_trial(sitting: Any, tmp_path: Path) -> None:
    for job, lr in (("0", 0.1), ("1", 0.2), ("2", 0.1)):
        run(place(tmp_path, "ppo", job, "tuning"), 10, (0.0, 0.5), lr=lr, started=job)
    assert [line["overrides"] for line in sitting("tuning")[0]] == [["lr=0.1"], ["lr=0.2"], ["lr=0.1"]]


def test_unfinished_runs_are_left_out_by_name(sitting: Any, tmp_path: Path) -> None:
    run(place(tmp_path, "ppo", "0"), 0, (0.0, 0.5))
    failed = run(place(tmp_path, "ppo", "1"), 1, (0.0, 0.5), state="failed")
    lines, texts = sitting()
    assert len(lines) == 1 and texts[0] == f"left out: {failed} (failed)"


def test_arms_and_seeds_that_the_protocol_does_not_have_are_refused_together(sitting: Any, tmp_path: Path) -> None:
    strange, early = place(tmp_path, "peek", "0"), place(tmp_path, "ppo", "0", "tuning")
    run(strange, 0, (0.0, 0.5))
    run(early, 3, (0.0, 0.5))
    with pytest.raises(DataError) as caught:
        sitting()
    assert list(caught.value.faults) == [
        f"{early}: seed 3 is none of tuning; expected one of 10",
        f"{strange.parent}: arms.yml has no arm 'peek' of toy; did you mean 'peak'?",
    ]


@pytest.mark.parametrize("text", ["{", '{"arm":"ppo"}', "[]", "3"])
def test_a_line_that_is_none_of_the_study_is_refused(text: str, collect: Any, tmp_path: Path) -> None:
    path = tmp_path / "reported.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(DataError, match=r"reported.jsonl:1: no line of this study .*; expected what collect.py writes"):
        collect.lines_in(path)
