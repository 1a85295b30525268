"""rrl-audit: on a task whose truth is known; on the checkpoints of real runs, which it leaves as they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fixtures.knowing import known_run, off
from fixtures.runs import arguments
from fixtures.training import problems
from rrl.cli import audit as command
from rrl.cli import train
from rrl.errors import ConfigError, DataError
from rrl.runs.resume import resume
from rrl.study.audit import AuditSettings, of_states
from rrl.study.audited_run import AuditedRun, assembled
from rrl.types import Problem, State

SETTINGS = AuditSettings(continuations=40, states=99, prefixes=9, bins=2, seed=0, steps=None)

# --- where the truth is known -----------------------------------------------------------------------------------------


def right(problem: Problem, cut: int) -> State:
    return State(problem, problem.reference[:cut], replayed_from=f"{problem.id}@{cut}")


def wrong(problem: Problem, cut: int) -> State:
    """The same with its last value off."""
    prefix = problem.reference[:cut]
    return State(problem, (*prefix[:-1], off(prefix[-1])), replayed_from=f"{problem.id}@-{cut}")


@pytest.fixture(scope="module")
def both() -> list[State]:
    """States after one and two of three values, with and without an error, of six problems."""
    easy = [problem for problem in problems() if problem.level == "L3"][:6]
    return [state(problem, cut) for problem in easy for state in (right, wrong) for cut in (1, 2)]


def test_a_state_with_an_error_is_never_solved_and_one_without_the_more_often_the_less_is_left(
    both: list[State],
) -> None:
    """Right in the end: 0.8 to the power of what is left, three values from the prompt."""
    found = of_states(known_run(1), both, SETTINGS)
    success = {(row["key"].rpartition("@")[2], row["problem"]): row["success"] for row in found["states"]}
    means = {cut: sum(v for (name, _), v in success.items() if name == cut) / 6 for cut in ("1", "2", "-1", "-2")}
    assert means == {"1": pytest.approx(0.64, abs=0.06), "2": pytest.approx(0.8, abs=0.06), "-1": 0.0, "-2": 0.0}
    assert found["success_from_prompt"]["value"] == pytest.approx(0.512, abs=0.06)
    assert found["success"]["value"] == pytest.approx((0.64 + 0.8) / 4, abs=0.04)
    assert found["gain"]["value"] == pytest.approx(0.36 - 0.512, abs=0.08)
    assert (found["solvable"]["value"], found["solvable_from_prompt"]["value"]) == (0.5, 1.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_correlation_has_the_sign_of_the_critics_judgement(sign: int, both: list[State]) -> None:
    """Ranks of 12 zeros, 6 and 6: with success in that order it is 1, up to six continuations that differ by chance."""
    found = of_states(known_run(sign), both, SETTINGS)["rank_correlation"]
    assert sign * found["value"] > 0.9
    low, high = found["interval95"]
    assert low <= found["value"] <= high and sign * low > 0.8


def test_the_calibration_sets_values_beside_successes(both: list[State]) -> None:
    low, high = of_states(known_run(1), both, SETTINGS)["calibration"]
    assert (low["count"], low["foretold"], low["found"]) == (12, 0.5, 0.0)
    assert (high["foretold"], high["found"]) == (pytest.approx(0.65), pytest.approx(0.72, abs=0.05))


def test_without_a_critic_nothing_is_said_of_one(both: list[State]) -> None:
    found = of_states(known_run(1, critic=None), both, SETTINGS)
    assert "rank_correlation" not in found and "calibration" not in found and found["success"]["value"] > 0


def test_tokens_are_counted(both: list[State]) -> None:
    """Of each problem 40 times: 3 and 2 tokens from the states, right or wrong, and 4 from the prompt; scored are 4."""
    run = known_run(1)
    of_states(run, both, SETTINGS)
    assert run.generated == 6 * 40 * (2 * (3 + 2) + 4)
    assert run.scored == sum(len(state.problem.prompt) + len(state.prefix) for state in both)


# --- checkpoints of runs ----------------------------------------------------------------------------------------------

STEPS = {"trainer__ppo_epochs": 1, "trainer__total_training_steps": 3, "run__keep_last": 9, "run__test_freq": "null"}
LEARNS = {"objective__entropy_coef": 0.1, "policy__actor_lr": 0.01}  # nothing is right by chance, to learn from


def trained(folder: Path, algo: str, **changes: Any) -> None:
    """Three steps of the quick run."""
    words = arguments(folder, **STEPS, **LEARNS, algo=algo, **changes)
    train._train([word for word in words if algo == "rrl" or not word.startswith(("sampler.", "selection="))])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of replay and of PPO."""
    folder = tmp_path_factory.mktemp("runs")
    for algo in ("rrl", "ppo"):
        trained(folder / algo, algo)
    return folder


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_runs_are_set_beside_each_other_on_the_same_early_states_and_stay_as_they_are(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, out = content(runs), tmp_path / "audit.json"
    command._audit([str(runs / "ppo"), str(runs / "rrl"), "continuations=2", "states=5", f"out={out}"])
    assert content(runs) == before
    result = json.loads(out.read_text())
    ppo, rrl = result["runs"]
    assert [row["step"] for row in rrl["checkpoints"]] == [row["step"] for row in ppo["checkpoints"]] == [1, 2, 3]
    assert [len(row["states"]) for row in rrl["checkpoints"]] == [5, 5, 5]
    assert [(row["held"], row["states"]) for row in ppo["checkpoints"]] == [(0, [])] * 3
    assert result["prefixes"]["of"] == str(runs / "rrl")
    for run in (ppo, rrl):
        first, _, last = run["checkpoints"]
        changes = [b - a for a, b in zip(first["logprobs"], last["logprobs"], strict=True)]
        assert last["change"]["value"] == pytest.approx(sum(changes) / len(changes)) != 0
        assert first["change"]["value"] == 0
    printed = capsys.readouterr()
    assert f"| {runs / 'rrl'} | 3 | 100% | 5 of " in printed.out
    assert f"{result['tokens']['generated']:,} tokens generated" in printed.out
    # 3 checkpoints * 2 * 5 states * 2 continuations * 16 tokens; (5 + 64) and 64 rows of at most 32 + 16
    forecast = printed.err.splitlines()[0]
    assert forecast.startswith("6 checkpoints: at most 960 tokens are generated")
    assert result["tokens"]["generated"] <= 960


def test_prefixes_of_another_run_serve_a_run_without_states(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command._audit([str(runs / "ppo"), f"states_of={runs / 'rrl'}", "steps=3", "prefixes=4"])
    printed = capsys.readouterr().out
    assert f"of the first 4 states of {runs / 'rrl'}" in printed
    assert printed.count("\n| ") == 3 and f"| {runs / 'ppo'} | 3 | " in printed
    assert "\n0 tokens generated" in printed


def test_equal_seeds_give_equal_results(runs: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abc"]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        command._audit([str(runs / "rrl"), "steps=3", "states=5", f"seed={seed}", f"out={file}"])
    first, again, other = (json.loads(file.read_text())["runs"] for file in files)
    assert first == again != other


def test_an_audit_that_is_interrupted_keeps_what_it_has_found_and_names_the_rest(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole = tmp_path / "audit.json", AuditedRun.scores
    asked = iter(range(99))

    def scores(run: AuditedRun, states: list[State]) -> Any:
        if next(asked) == 3:  # two at each checkpoint: of its states and of the early ones
            raise KeyboardInterrupt
        return whole(run, states)

    monkeypatch.setattr(AuditedRun, "scores", scores)
    arguments = [str(runs / "rrl"), str(runs / "ppo"), "continuations=1", "states=2", f"out={out}"]
    monkeypatch.setattr("sys.argv", ["rrl-audit", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    printed = capsys.readouterr()
    assert ended.value.code == 130
    assert f"| {runs / 'rrl'} | 1 | " in printed.out and f"| {runs / 'rrl'} | 2 | " not in printed.out
    assert printed.err.endswith(f"interrupted; not audited: {runs / 'rrl'} steps=2,3; {runs / 'ppo'} steps=1,2,3\n")
    result = json.loads(out.read_text())
    assert [len(run["checkpoints"]) for run in result["runs"]] == [1, 0]
    assert result["left"] == {str(runs / "rrl"): [2, 3], str(runs / "ppo"): [1, 2, 3]}
    assert result["tokens"]["generated"] > 0


def test_an_audit_that_is_interrupted_before_its_first_result_has_none(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AuditedRun, "scores", interrupted)
    monkeypatch.setattr("sys.argv", ["rrl-audit", str(runs / "rrl"), "continuations=1", "states=1"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 130 and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["{ppo}"], r"Problems remembers no states\s.*states_of=RUN"),
        (["{rrl}", "steps=2,7"], "no checkpoint of step 7; .* those of 1, 2, 3; .*run.keep_last"),
        (["{rrl}", "states=0"], "states: expected at least 1, got 0"),
        (["{rrl}", "bins=x"], "bins: expected a whole number, got 'x'"),
        (["{rrl}/checkpoints"], "holds no run; .* inside a run; give .*/rrl"),
        ([], "RUN: missing; expected one run or more"),
        (["{rrl}", "trainer.n=2"], "trainer.n: 1 in the run"),
        (["{rrl}", "out={rrl}/config.yaml"], "out: .* exists; expected a new file"),
    ],
)
def test_bad_input_is_named_with_the_remedy(words: list[str], reported: str, runs: Path) -> None:
    with pytest.raises((ConfigError, DataError), match=reported):
        command._audit([word.format(rrl=runs / "rrl", ppo=runs / "ppo") for word in words])


def test_a_damaged_checkpoint_is_named_and_left(runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "rrl", tmp_path / "run"))
    state = run / "checkpoints" / "step-000002" / "state.pt"
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"step-000002: state.pt has \d+ bytes of \d+; .* name other steps"):
        command._audit([str(run), "states=1", "continuations=1"])
    assert state.is_file()


def test_runs_on_other_problems_are_not_compared(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path / "other", "ppo", start_seed=5)
    monkeypatch.setattr(AuditedRun, "go_to", None)  # it is said before anything is spent
    with pytest.raises(DataError, match=r"/other: other training prompts than .*/rrl .*\s.*same data and prompts"):
        command._audit([str(runs / "rrl"), str(tmp_path / "other"), "steps=3", "states=1", "continuations=1"])


def test_the_number_of_processes_of_the_run_is_named_with_the_command_that_starts_them(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rrl.runs.checkpoint.world_size", lambda: 2)
    with pytest.raises(ConfigError, match=r"trained by 1 processes, now there are 2(.|\n)*torchrun --nproc-per-node"):
        command._audit([str(runs / "rrl"), "steps=3", "states=1", "continuations=1"])


@pytest.mark.slow
def test_a_trained_model_solves_states_without_an_error_and_no_others(tmp_path: Path) -> None:
    """The whole trace is judged, so that nothing makes up for an error in the prefix."""
    short = {"trainer.total_tokens": "null", "trainer.total_training_steps": 2, "run.test_freq": "null"}
    given = {**short, "run.threads": 1, "selection": "random_cut", "evaluation.limit": 2, "evaluation.n": 0}
    train._train([f"{key}={value}" for key, value in {**given, "run.dir": tmp_path / "run"}.items()])
    run = assembled(tmp_path / "run", *resume(tmp_path / "run", []))
    run.go_to(2)
    states = run.remembered()[:150]
    faultless = {state.replayed_from: state.prefix == state.problem.reference[: len(state.prefix)] for state in states}
    rows = of_states(run, states, SETTINGS)["states"]
    success = {good: [row["success"] for row in rows if faultless[row["key"]] is good] for good in (True, False)}
    assert min(map(len, success.values())) > 20
    assert max(success[False]) == 0.0
    assert sum(success[True]) / len(success[True]) > 0.01, "of long programs, after a short warm start"
