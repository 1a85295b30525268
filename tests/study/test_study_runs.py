"""What the study runs in each stage, what it leaves alone, and what it keeps of tuning."""

import dataclasses
import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.study import protocol_file, run
from rrl.errors import ConfigError, DataError

STUDY = Path(__file__).parents[2] / "experiments" / "study"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The module, with the protocol ``toy``, and an ``rrl.cli.train`` that only writes down its arguments."""
    monkeypatch.syspath_prepend(STUDY)
    monkeypatch.chdir(tmp_path)
    found = importlib.import_module("study")
    about = {task: found.protocol.read(task, protocol_file(tmp_path)) for task in ("toy", "mixture")}
    monkeypatch.setattr(found.protocol, "read", about.get)
    monkeypatch.setattr(found, "check", lambda waiting: None)  # there is no experiment toy
    train = tmp_path / "rrl" / "cli" / "train.py"
    train.parent.mkdir(parents=True)
    train.write_text(
        "import json, pathlib, sys\n"
        "where = dict(text.split('=', 1) for text in sys.argv[1:] if '=' in text)\n"
        "folder = pathlib.Path(where.get('run.dir') or where['hydra.sweep.dir'])\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "if 'rule=peak' in sys.argv and where['seed'] == '1': sys.exit('no result')\n"
        "name = 'best.json' if '-m' in sys.argv else 'result.json'\n"
        "(folder / name).write_text(json.dumps({'argv': sys.argv[1:]}))\n"
        "if '-m' in sys.argv:\n"
        "    (folder / 'jobs').mkdir(exist_ok=True)\n"
        "    found = (1, 'finished', .2, .9), (2, 'finished', .3, .5), (3, 'failed', .9, .9), (4, 'finished', .3, .5)\n"
        "    for lr, state, one, all in found:\n"
        "        job = json.dumps({'state': state, 'overrides': [f'lr={lr}']})\n"
        "        (folder / 'jobs' / f'{lr}.json').write_text(job)\n"
        "        (folder / str(lr)).mkdir(exist_ok=True)\n"
        "        way = {'accuracy': all, 'levels': {'L': {'accuracy': one}}}\n"
        "        row = {'step': 1, 'tokens_generated': 600, 'greedy': way, 'mean@4': way}\n"
        "        (folder / str(lr) / 'evaluations.jsonl').write_text(json.dumps(row) + '\\n')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return found


def arguments(*parts: str) -> Any:
    return json.loads(Path("runs", "study", "toy", *parts).read_text())["argv"]


def test_every_arm_is_tuned_by_as_many_trials_once(study: Any) -> None:
    study.main("toy", "tuning", "1", "results")
    assert arguments("tuning", "peak", "best.json") == [
        "-m", "search=optuna", "search.pruner=none", "search.n_trials=2", "search.startup_trials=1", "search.seed=3",
        "run.test_freq=null", "resume=auto", "experiment=study/toy", "seed=10", "rule=peak", "trainer.total_tokens=600",
        "hydra.sweep.dir=runs/study/toy/tuning/peak", "lr=choice(1,2)", "fall=choice(3,4)",
    ]  # fmt: skip
    tuned = json.loads(Path("results", "toy", "tuned.json").read_text())
    assert tuned == {arm: ["lr=2"] for arm in ("ppo", "peak", "pivot", "oracle")}  # not peak_redraw
    Path("runs", "study", "toy", "tuning", "peak", "best.json").unlink()
    study.main("toy", "tuning", "1", "results")
    assert not Path("runs", "study", "toy", "tuning", "peak", "best.json").exists()


def test_a_control_runs_with_the_values_of_its_rule(study: Any) -> None:
    study.main("toy", "tuning", "2", "results")
    study.main("toy", "choosing", "2", "results", "peak_redraw")
    assert arguments("choosing", "peak_redraw", "seed-11", "result.json") == [
        "resume=auto", "experiment=study/toy", "seed=11", "sampler=redraw", "trainer.total_tokens=600",
        "run.dir=runs/study/toy/choosing/peak_redraw/seed-11", "lr=2",
    ]  # fmt: skip


def test_reported_runs_have_the_whole_budget_and_are_made_once(study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    study.main("toy", "tuning", "2", "results")
    study.main("toy", "reported", "2", "results", "ppo")
    assert "trainer.total_tokens=1000" in arguments("reported", "ppo", "seed-3", "result.json")
    capsys.readouterr()
    study.main("toy", "reported", "2", "results", "ppo")
    assert capsys.readouterr().out == ""


def test_a_run_that_fails_is_named_and_the_others_go_on(study: Any) -> None:
    study.main("toy", "tuning", "2", "results")
    with pytest.raises(SystemExit, match=r"reported/peak/seed-1: failed; runs/.*seed-1.log says why") as caught:
        study.main("toy", "reported", "1", "results", "peak")
    assert "\n" not in str(caught.value)
    assert Path("runs/study/toy/reported/peak/seed-3/result.json").exists()
    assert "no result" in Path("runs/study/toy/reported/peak/seed-1.log").read_text()


def test_an_arm_that_is_not_tuned_is_refused(study: Any) -> None:
    with pytest.raises(
        SystemExit, match=r"peak: not in tuned.json of toy; expected the stage tuning to be run before choosing"
    ):
        study.main("toy", "choosing", "1", "results", "peak_redraw")


def test_unknown_arms_and_stages_are_named(study: Any) -> None:
    with pytest.raises(
        SystemExit,
        match=r"peek: no such arm; did you mean 'peak'\?\nchosing: no such stage of toy; did you mean 'choosing'",
    ):
        study.main("toy", "chosing", "1", "results", "peek")


def test_a_sweep_has_one_seed(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    about = study.protocol.read("toy")
    two = replace(about, seeds={**about.seeds, "tuning": (10, 12)})  # both would write into tuning/ppo
    monkeypatch.setattr(study.protocol, "read", {"toy": two}.get)
    with pytest.raises(SystemExit, match=r"seeds\.tuning: expected one, got \[10, 12\]: an arm is tuned by one sweep"):
        study.main("toy", "tuning", "1", "results")
    assert not Path("runs").exists()


def test_arms_of_another_task_run_with_the_values_tuned_there_but_for_keys_of_their_own(study: Any) -> None:
    tuned = Path("results", "toy", "tuned.json")
    tuned.parent.mkdir(parents=True)
    tuned.write_text(json.dumps({"ppo": ["lr=2"], "peak": ["lr=2", "fall=3"]}))
    study.main("mixture", "reported", "2", "results", "ppo", "peak_redraw")
    run = json.loads(Path("runs/study/mixture/reported/peak_redraw/seed-1/result.json").read_text())
    assert run["argv"] == [
        "resume=auto", "experiment=study/toy", "seed=1", "sampler=redraw", "weights={L: 1}", "lr=5",
        "trainer.total_tokens=1000", "run.dir=runs/study/mixture/reported/peak_redraw/seed-1", "fall=3",
    ]  # fmt: skip
    with pytest.raises(SystemExit, match="tuning: no such stage of mixture; valid: reported"):
        study.main("mixture", "tuning", "1", "results")


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5"])
def test_runs_at_a_time_are_counted(jobs: str, study: Any) -> None:
    with pytest.raises(SystemExit, match=f"JOBS: expected a whole number from 1 of runs at a time, got '{jobs}'"):
        study.main("toy", "tuning", jobs, "results")


@pytest.mark.parametrize("content", ['{"ppo": ["lr=2"]', '{"ppo": "lr=2"}', '{"ppo": [2]}', "[]"])
def test_what_tuning_found_is_not_overwritten_where_it_cannot_be_read(content: str, study: Any) -> None:
    file = Path("results", "toy", "tuned.json")
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(SystemExit, match=r"tuned.json: .*expected the overrides of each tuned arm; restore it, or"):
        study.main("toy", "tuning", "1", "results")
    assert file.read_text() == content
    assert not Path("runs").exists()


def test_an_arm_is_run_by_one_program_at_a_time(study: Any) -> None:
    with study.alone(Path("runs/study/toy/tuning"), ["peak"]):
        with pytest.raises(SystemExit, match=r"toy/tuning: another study.py is at work on peak; expected one at a"):
            study.main("toy", "tuning", "1", "results", "ppo", "peak")
        study.main("toy", "tuning", "1", "results", "ppo")
    study.main("toy", "tuning", "1", "results", "peak", "peak")
    assert json.loads(Path("results/toy/tuned.json").read_text()) == {"ppo": ["lr=2"], "peak": ["lr=2"]}


def test_what_another_program_has_tuned_meanwhile_is_kept(study: Any) -> None:
    for arm, text in (("ppo", "lr=1"), ("peak", "lr=2"), ("ppo", "lr=3")):
        study.keep(Path("results/toy/tuned.json"), arm, [text])
    assert json.loads(Path("results/toy/tuned.json").read_text()) == {"ppo": ["lr=3"], "peak": ["lr=2"]}


def test_a_search_without_a_usable_trial_is_a_failure_of_its_arm_alone(
    study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = dataclasses.replace(study.protocol.read("toy"), level="L3")
    monkeypatch.setattr(study.protocol, "read", lambda task: about)
    with pytest.raises(SystemExit) as caught:
        study.main("toy", "tuning", "1", "results", "ppo", "peak")
    first, second = str(caught.value).splitlines()
    assert first.startswith("runs/study/toy/tuning/ppo/1: has no level 'L3'; did you mean 'L'?; expected the level of")
    assert second.startswith("runs/study/toy/tuning/peak/1")
    with pytest.raises(DataError, match=r"none: no trial finished; expected one or more; none.log beside it says why"):
        study.best(Path("none"), "L", 600)


def test_trials_are_compared_where_the_arms_are_judged(study: Any) -> None:
    for name, tokens, end in (("1", 800, 0.36), ("2", 600, 0.29)):  # .27 and .29 after 600 tokens
        run(Path("sweep", name), 10, (0.0, end), tokens=tokens)
        Path("sweep", "jobs").mkdir(exist_ok=True)
        Path("sweep", "jobs", f"{name}.json").write_text(json.dumps({"state": "finished", "overrides": [name]}))
    assert study.best(Path("sweep"), "L", 600) == ["2"]
    assert study.best(Path("sweep"), "L", 800) == ["1"]


def test_misspelt_overrides_and_keys_are_refused_before_the_first_run(
    study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    words = ["experiment=study/trace", "resume=auto"]
    search = ["-m", "search=optuna", *words, "hydra.sweep.dir=sweep", "sampler.schedule.shar=choice(0.25,0.5)"]
    jobs = [
        study.Job([*words, "run.dir=a", "seed=1", "selection=confidense"], Path("a"), "confidence"),
        study.Job([*words, "run.dir=b", "seed=2", "selection=confidense"], Path("b"), "confidence"),
        study.Job(search, Path("sweep"), "redraw"),
        study.Job([*words, "run.dir=c", "sampler=problems"], Path("c"), "ppo"),
    ]
    with pytest.raises(ConfigError) as caught:
        study.check(jobs)
    assert [fault.split(";")[0] for fault in sorted(caught.value.faults)] == [
        "arm confidence: selection: no such choice 'confidense'",
        "arm redraw: sampler.schedule.shar: no such key",
    ]


def test_wrong_arguments_show_the_right_ones(
    study: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv, code, text in (
        (["study.py"], "arguments: missing a required argument: 'task'; expected as here:", "study.py TASK STAGE"),
        (["study.py", "toy", "tuning", "--help"], 0, ""),
    ):
        monkeypatch.setattr("sys.argv", argv)
        with pytest.raises(SystemExit) as caught:
            study.protocol.run(study.main, study.__doc__)
        assert str(caught.value.code).startswith(str(code))
        assert text in str(caught.value.code)
    assert "study.py TASK STAGE" in capsys.readouterr().out


def test_ctrl_c_ends_without_a_traceback(study: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.argv", ["study.py"])
    with pytest.raises(SystemExit) as caught:
        study.protocol.run(stop, "")
    assert (caught.value.code, capsys.readouterr().err) == (130, "interrupted\n")
