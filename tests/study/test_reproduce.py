"""Reproductions: what is done after what, what is left alone, what is refused, and the table beside the paper's."""

import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rrl.cli import reproduce
from rrl.config.check import load
from rrl.config.saved import write_config
from rrl.errors import ConfigError
from rrl.records.run_directory import write_json
from rrl.records.status import RunLock, write_state
from rrl.study.reproduce import ARMS, Target, scales, steps, undone
from rrl.study.reproduce_slurm import submit
from rrl.study.reproduce_steps import Command, Measurement, RewardModelFit, Step, Training
from rrl.study.reproduce_table import table, write_table
from rrl.study.reproduce_work import work_here

pytestmark = [pytest.mark.process, pytest.mark.composing]
ROOT = Path(__file__).resolve().parents[2]


def target(
    folder: Path, task: str = "gsm8k", scale: str = "rehearsal", seeds: Sequence[int] = (0,), **more: Any
) -> Target:
    given = {"data": None, "limit": None, "overrides": [], **more}
    return Target(task=task, scale=scale, seeds=seeds, folder=folder, **given)


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_every_step_of_the_dialogue_comes_after_what_it_needs(tmp_path: Path) -> None:
    found = {step.name: list(step.needs) for step in steps(target(tmp_path, "dialogue", seeds=[3]))}
    assert found == {
        "reward_model": [], "judge": [],
        "sft": ["reward_model"], "evaluate-sft": ["sft", "judge"],
        **{f"{arm}-s3": ["reward_model", "sft"] for arm in ("ppo", "rrl", "redraw", "random_cut")},
        **{f"evaluate-{arm}-s3": [f"{arm}-s3", "judge", "sft"] for arm in ("ppo", "rrl", "redraw", "random_cut")},
    }  # fmt: skip


def test_arms_begin_with_the_fine_tuned_model_and_guided_self_improvement_with_the_base(tmp_path: Path) -> None:
    found = {step.name: step for step in steps(target(tmp_path, overrides=["model.path=base", "policy.actor_lr=1"]))}
    assert (found["ppo-s0"].needs, found["gsi-s0"].needs) == (["sft"], [])
    assert list(found["ppo-s0"].arguments) == [
        "experiment=[reproduce/gsm8k/rehearsal,reproduce/ppo]", "seed=0", "model=hf",
        f"model.path='{tmp_path}/sft/actor'", "policy.actor_lr=1",
    ]  # fmt: skip
    assert list(found["gsi-s0"].arguments) == [
        "experiment=[reproduce/gsm8k/rehearsal,reproduce/rehearsal/gsi]", "seed=0", "model.path=base",
        "policy.actor_lr=1",
    ]  # fmt: skip


def test_another_judge_takes_the_place_of_the_reward_model(tmp_path: Path) -> None:
    found = {step.name: step for step in steps(target(tmp_path, "dialogue", limit=4, overrides=["judge=openai"]))}
    assert "judge" not in found
    assert list(found["evaluate-ppo-s0"].arguments) == [
        f"from_run={tmp_path}/ppo-s0", "evaluation.limit=4", f"against={tmp_path}/sft", "judge=openai",
    ]  # fmt: skip


TRIED = (("gsm8k", "small"), ("math", "paper"), ("code", "small"), ("dialogue", "rehearsal"))
EVERY = [(task, scale) for task in ARMS for scale in ("small", "paper", "rehearsal")]


@pytest.mark.parametrize(
    ("task", "scale"),
    [pytest.param(*pair, marks=() if pair in TRIED else pytest.mark.slow) for pair in EVERY],
)
def test_every_cell_of_every_table_has_a_valid_configuration(task: str, scale: str, tmp_path: Path) -> None:
    assert scale in scales(task)
    every = steps(target(tmp_path, task, scale))
    assert undone(every) == every


def test_the_controls_differ_from_replay_in_what_they_are_named_after_alone() -> None:
    rrl, redraw, cut, ppo = (
        load("train", [f"experiment=[reproduce/math/small,reproduce/{arm}]"])[0]
        for arm in ("rrl", "redraw", "random_cut", "ppo")
    )
    assert {key for key in rrl if rrl[key] != redraw[key]} == {"sampler"}
    assert redraw["sampler"] == {**rrl["sampler"], "_target_": "rrl.parts.samplers.controls.Redraw"}
    assert cut["sampler"].items() >= {key: rrl["sampler"][key] for key in ("sources", "schedule", "buffer")}.items()
    assert {key for key in rrl if rrl[key] != ppo.get(key)} <= {"algo", "sampler", "selection"}


# --- what is there ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A finished step on the built-in task, as far as files go."""
    folder = tmp_path_factory.mktemp("trained")
    step = Training("ppo-s0", folder, ["sft"], ["algo=ppo", "seed=0"])
    write_json(folder / "sft" / "result.json", {"steps": 1})
    step.work(lambda module, arguments: _finish(step.made, "algo=ppo", "seed=0"))
    return step


def _finish(folder: Path, *overrides: str) -> int:
    write_config(folder, load("train", overrides)[0])
    write_state(folder, "finished")
    return 0


def test_a_finished_run_of_the_same_configuration_is_left_alone(trained: Training) -> None:
    assert trained.done()


def test_a_run_of_another_length_goes_on(trained: Training) -> None:
    longer = Training(trained.name, trained.folder, trained.needs, [*trained.arguments, "trainer.total_tokens=9"])
    assert not longer.done()


def test_a_run_of_another_configuration_is_refused_and_stays(trained: Training) -> None:
    other = Training(trained.name, trained.folder, trained.needs, ["algo=ppo", "seed=1"])
    with pytest.raises(ConfigError, match=r"seed: 0 in the run .*, now 1; .* or give another out="):
        other.done()
    assert trained.done()


def test_a_run_that_began_with_another_result_is_refused(trained: Training) -> None:
    before = (trained.folder / "sft" / "result.json").read_bytes()
    write_json(trained.folder / "sft" / "result.json", {"steps": 2})
    with pytest.raises(ConfigError, match=r"ppo-s0: made from another sft than the present one; .* move it away"):
        trained.done()
    (trained.folder / "sft" / "result.json").write_bytes(before)


def test_a_run_that_another_process_still_trains_is_busy(tmp_path: Path) -> None:
    step = Training("ppo-s0", tmp_path, (), ())
    with RunLock(step.made):
        write_state(step.made, "running")
        assert step.busy()
    assert not step.busy()


def test_faults_of_all_steps_are_reported_together(trained: Training) -> None:
    others = [Training("ppo-s0", trained.folder, (), [f"seed={seed}", "algo=ppo"]) for seed in (1, 2)]
    with pytest.raises(ConfigError) as caught:
        undone([trained, *others])
    assert [fault.partition(";")[0][-5:] for fault in caught.value.faults] == ["now 1", "now 2"]


def test_a_measurement_is_made_once_and_refused_when_its_run_or_its_arguments_are_others(tmp_path: Path) -> None:
    step = Measurement("evaluate-ppo-s0", tmp_path, ["ppo-s0"], ["from_run=x"])
    write_json(tmp_path / "ppo-s0" / "result.json", {"steps": 1})
    assert step.work(_evaluating({"greedy": {"accuracy": 0.5}})) == 0
    assert json.loads(step.made.read_text())["greedy"] == {"accuracy": 0.5}
    assert step.work(lambda module, arguments: pytest.fail("it is there")) == 0
    with pytest.raises(ConfigError, match="expected the result of rrl-evaluate from_run=y; move it away"):
        Measurement(step.name, tmp_path, step.needs, ["from_run=y"]).done()
    write_json(tmp_path / "ppo-s0" / "result.json", {"steps": 2})
    with pytest.raises(ConfigError, match="made from another ppo-s0"):
        step.done()
    assert [path.name for path in tmp_path.glob(".*")] == []


def _evaluating(result: dict[str, Any]) -> Command:
    def evaluate(module: str, arguments: Sequence[str]) -> int:
        assert module == "evaluate"
        output, responses = (Path(text.partition("=")[2]) for text in arguments[-2:])
        write_json(output, result)
        responses.touch()
        return 0

    return evaluate


def test_a_reward_model_that_was_interrupted_begins_anew(tmp_path: Path) -> None:
    step = RewardModelFit("judge", tmp_path, (), ["experiment=reproduce/rehearsal/judge"])

    def fit(module: str, arguments: Sequence[str], code: int) -> int:
        folder = Path(arguments[-1].removeprefix("run.dir='").removesuffix("'"))
        assert not folder.exists()
        write_config(folder, load("train_reward_model", step.arguments, starting=())[0])
        write_json(folder / "result.json", {})
        return code

    assert step.work(lambda module, arguments: fit(module, arguments, 130)) == 130
    assert not step.done()
    assert step.work(lambda module, arguments: fit(module, arguments, 0)) == 0
    assert step.done()


# --- the work ---------------------------------------------------------------------------------------------------------


class Noted(Step):
    """Is done once; fails where its name says so."""

    def done(self) -> bool:
        return self.made.exists()

    def work(self, command: Command) -> int:
        assert all((self.folder / name).exists() for name in self.needs)
        self.made.touch()
        return 3 if "bad" in self.name else 0


def test_steps_are_done_in_order_and_a_failed_one_stops_only_those_that_need_it(tmp_path: Path) -> None:
    said: list[str] = []
    every = [
        Noted(name, tmp_path, needs, ())
        for name, needs in {"c": ["b"], "b": ["a"], "a": [], "bad": ["a"], "z": ["bad", "c"]}.items()
    ]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "bad.log").write_text("why\n")
    assert work_here(every, tmp_path / "logs", 2, said.append) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", "bad", "logs"}
    assert said[-1] == "z: waits for bad"
    assert "bad: not done, 0 s: its process ended with 3: why" in said


def test_nothing_to_do_is_done(tmp_path: Path) -> None:
    assert work_here([], tmp_path, 1, print) == 0


# --- SLURM ------------------------------------------------------------------------------------------------------------

SBATCH = """#!/bin/bash
echo "$*" >> {folder}/calls
n=$(wc -l < {folder}/calls)
echo $((100 + n))
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with sbatch, which records its arguments and numbers jobs, and squeue, which knows those in a file."""
    for name, text in (("sbatch", SBATCH), ("squeue", 'grep -sx "RUNNING ${{3#--jobs=}}" {folder}/alive')):
        (tmp_path / name).write_text(("" if name == "sbatch" else "#!/bin/bash\n") + text.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_jobs_wait_for_those_that_they_need_and_the_table_for_the_end_of_all(cluster: Path) -> None:
    every = [Noted("sft", cluster, (), ()), Noted("ppo-s0", cluster, ["sft", "judge"], ())]
    said: list[str] = []
    submit(every, ["task=gsm8k"], cluster, ["--partition=gpu"], said.append)
    first, second, third = (cluster / "calls").read_text().splitlines()
    assert "--partition=gpu" in first and "--dependency" not in first
    assert "--dependency=afterok:101 " in second
    assert "--dependency=afterany:101:102 " in third
    assert said == ["sft: job 101", "ppo-s0: job 102, waits for sft", "table: job 103, waits for sft, ppo-s0"]
    script = (cluster / "logs" / "ppo-s0.sh").read_text()
    assert "-m rrl.cli.reproduce task=gsm8k only=ppo-s0\n" in script


def test_a_job_does_its_step_alone_or_says_what_it_waits_for(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["task=gsm8k", "scale=rehearsal", "seeds=0", f"out={cluster / 'out'}"]
    reproduce._reproduce([*given, "launcher=slurm", "slurm=-p gpu", "jobs=2"])
    script = (cluster / "out" / "logs" / "evaluate-gsi-s0.sh").read_text()
    (words,) = [shlex.split(line) for line in script.splitlines() if line.startswith("srun")]
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        reproduce._reproduce(words[words.index("rrl.cli.reproduce") + 1 :])
    assert ended.value.code == 1
    assert capsys.readouterr().out == "gsi-s0: to do\nevaluate-gsi-s0: waits for gsi-s0\n"


def test_a_job_is_given_each_option_once(cluster: Path) -> None:
    out = cluster / "all"
    reproduce._reproduce(["task=gsm8k", "scale=rehearsal", f"out={out}", "only=sft", "launcher=slurm", "slurm=-n1"])
    (command,) = [line for line in (out / "logs" / "sft.sh").read_text().splitlines() if "rrl.cli.reproduce" in line]
    assert command.endswith(f" -m rrl.cli.reproduce task=gsm8k scale=rehearsal out={out} only=sft")


def test_a_job_that_still_waits_or_runs_is_not_submitted_again(cluster: Path) -> None:
    every = [Noted("sft", cluster, (), ()), Noted("ppo-s0", cluster, ["sft"], ())]
    submit(every, [], cluster, [], print)
    (cluster / "alive").write_text("RUNNING 101\n")
    said: list[str] = []
    submit(every, [], cluster, [], said.append)
    assert said == [
        "sft: is there as job 101",
        "ppo-s0: job 104, waits for sft",
        "table: job 105, waits for sft, ppo-s0",
    ]
    assert "afterok:101 " in (cluster / "calls").read_text().splitlines()[3]


def test_a_machine_without_slurm_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no sbatch here; .* or use launcher=local"):
        submit([Noted("sft", tmp_path, (), ())], [], tmp_path, [], print)


# --- the table --------------------------------------------------------------------------------------------------------


def _measure(folder: Path, run: str, accuracy: float, tokens: int) -> None:
    greedy = {"accuracy": accuracy, "interval95": [0.1, 0.3], "n_problems": 1319}
    write_json(folder / f"evaluate-{run}.json", {"greedy": greedy})
    write_json(folder / run / "result.json", {"tokens_generated": tokens})


def test_the_table_has_means_intervals_and_paired_differences_beside_the_published_figures(tmp_path: Path) -> None:
    _measure(tmp_path, "sft", 0.2, 0)
    for seed, (ppo, rrl) in enumerate([(0.1, 0.4), (0.2, 0.4), (0.3, 0.7)]):
        _measure(tmp_path, f"ppo-s{seed}", ppo, 1000 + seed)
        _measure(tmp_path, f"rrl-s{seed}", rrl, 2000)
    text = write_table(target(tmp_path, scale="small", seeds=[0, 1, 2]))
    # Student's t of 2 degrees of freedom is 4.3027. Of 10, 20, 30: 4.3027 * 10 / sqrt(3) = 24.84, as of the differences
    # 30, 20, 40; of 40, 40, 70: 4.3027 * 17.32 / sqrt(3) = 43.03.
    assert text.splitlines()[4:8] == [
        "| SFT | [?] | 20.0 [10.0, 30.0] | - | - | 1,319 | 0 |",
        "| PPO | 68.8 [S] | 20.0 ± 24.8 (3 seeds) | - | - | 1,319 | 1,001 |",
        "| GSI | 70.1 [D] | - | - | - | - | - |",
        "| RRL | 70.7 [S] | 50.0 ± 43.0 (3 seeds) | +30.0 ± 24.8 (3 seeds) | - | 1,319 | 2,000 |",
    ]
    assert "one run as far as known" in text
    assert (tmp_path / "table.md").read_text() == text
    assert json.loads((tmp_path / "table.json").read_text())["arms"]["rrl"]["ours"]["values"] == [40.0, 40.0, 70.0]


def test_arms_with_different_seeds_are_not_paired(tmp_path: Path) -> None:
    for run in ("ppo-s0", "ppo-s1", "rrl-s0"):
        _measure(tmp_path, run, 0.5, 1)
    content = table(target(tmp_path, seeds=[0, 1]))
    assert content["arms"]["rrl"]["minus"]["ppo"] is None


def test_supervised_fine_tuning_is_paired_with_no_arm(tmp_path: Path) -> None:
    """Also where there is one seed, as it has one model."""
    for run in ("sft", "ppo-s0"):
        _measure(tmp_path, run, 0.5, 1)
    assert table(target(tmp_path))["arms"]["sft"]["minus"] == {"ppo": None, "redraw": None}


def test_a_dialogues_table_counts_wins_and_shows_ties_and_losses(tmp_path: Path) -> None:
    shares = {"win": 0.5, "tie": 0.3, "lose": 0.2}
    sides = {name: {"share": share, "interval95": [0.0, 1.0]} for name, share in shares.items()}
    levels = {"helpful": {"win": {"share": 0.75}}, "harmless": {"win": {"share": 0.25}}}
    write_json(tmp_path / "evaluate-rrl-s0.json", {"n": 40, **sides, "levels": levels})
    write_json(tmp_path / "rrl-s0" / "result.json", {"tokens_generated": 7})
    text = write_table(target(tmp_path, "dialogue"))
    assert "| RRL | 74.2 [S] | 50.0 (1 seed) | 30.0 | 20.0 | 75.0 | 25.0 | - | - | 40 | 7 |" in text


def test_the_published_figures_are_those_of_the_page_about_replay() -> None:
    published = json.loads((ROOT / "experiments" / "reproduce" / "published.json").read_text())
    page = (ROOT / "docs" / "rrl.md").read_text()
    rows = {"APPS+ pass@1": "code", "GSM8K accuracy": "gsm8k", "MATH accuracy": "math", "HH dialogue": "dialogue"}
    arms = ("sft", "ppo", "ppocoder", "rltf", "gsi", "rrl")
    for heading, task in rows.items():
        (row,) = re.findall(rf"^\| {re.escape(heading)}[^|]*\|(.*)\|$", page, re.MULTILINE)
        cells = {arm: cell.strip() for arm, cell in zip(arms, row.split("|"), strict=True) if cell.strip() != "-"}
        found = published[task]["cells"].items()
        assert {arm: f"{value or ''} [{tag}]".strip() for arm, (value, tag) in found} == cells


# --- the command ------------------------------------------------------------------------------------------------------


def test_faults_of_the_options_are_reported_together(tmp_path: Path) -> None:
    given = ["task=mth", "seeds=1,x", "launcher=slrm", f"data={tmp_path / 'none'}", "seed=1", "run.dir=x"]
    with pytest.raises(ConfigError) as caught:
        reproduce._reproduce(given)
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "task", "seeds", "launcher", "data", "seed", "run.dir",
    ]  # fmt: skip


def test_a_dry_run_lists_the_steps_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce._reproduce(["task=gsm8k", "seeds=0", f"out={tmp_path / 'new'}", "only=evaluate-gsi-s0", "dry_run=true"])
    assert capsys.readouterr().out == "gsi-s0: to do\nevaluate-gsi-s0: waits for gsi-s0\n"
    assert not (tmp_path / "new").exists()


def test_a_place_or_options_that_cannot_be_are_refused_before_anything_is_listed(tmp_path, capsys):
    (tmp_path / "file").touch()
    for given, said in {
        f"out={tmp_path}/file": "out: nothing can be written in",
        f"out={tmp_path}/file/x": "out: nothing can be written in",
        "dry_run=ja": "dry_run: expected true or false, got 'ja'",
        "slurm=-p '": r"slurm: \"-p '\" cannot be divided",
    }.items():
        with pytest.raises(ConfigError, match=said):
            reproduce._reproduce(["task=gsm8k", *([] if "out=" in given else [f"out={tmp_path / 'new'}"]), given])
    assert capsys.readouterr().out == ""
