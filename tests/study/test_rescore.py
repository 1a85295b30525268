"""rrl-rescore: what changed between the verifier of a dump and the present one, for any task and any version's dump."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.training import TASK, problem, tokenizer
from rrl.cli import rescore as command
from rrl.cli import shell, train
from rrl.config.check import load
from rrl.errors import ConfigError, DataError
from rrl.parts.tasks.trace import Trace
from rrl.records.run_directory import dump_rollouts, rollout_rows
from rrl.study.rescore import as_table, rescore
from rrl.types import Example, Feedback, Judged, Rollout, State, Verdict

RIGHT, WRONG = Feedback(1.0, Verdict.RIGHT), Feedback(0.0, Verdict.WRONG)


def judged(response: str, feedback: Feedback, *, name: str = "p", finished: bool = True) -> Judged:
    """A response to a trace problem whose answer is 1 2."""
    made = problem((1, 20, 31), name=name)
    state = State(
        replace(
            made,
            example=Example(
                name, "L3", "0 add1 add1 =", "1 2", "1 2", {"kind": "easy"}, ({"role": "user", "content": "?"},)
            ),
        ),
        (5,),
    )
    return Judged(Rollout(state, (6, 7), (-1.0, -2.0), (0.0, 0.0), finished, response, 3), feedback)


def dump(path: Path, *rows: Judged) -> Path:
    dump_rollouts(path, rollout_rows(1, rows, tokenizer()))
    return path


@pytest.fixture
def dumped(tmp_path: Path) -> Path:
    """Five rollouts of the trace task, three of them judged otherwise than the task would."""
    return dump(
        tmp_path / "rollouts" / "step-000001.jsonl",
        judged("1 2", RIGHT, name="a"),
        judged("1 2", WRONG, name="b"),
        judged("1 3", WRONG, name="c"),
        judged("1 2", RIGHT, name="d", finished=False),
        judged("1 1", RIGHT, name="e"),
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- what is found ----------------------------------------------------------------------------------------------------


def test_verdicts_that_are_others_now_are_counted_and_listed(dumped: Path) -> None:
    reported = rescore(TASK, [dumped]).as_mapping()
    assert reported["transitions"]["right"] == {"right": 1, "wrong": 2, "unparseable": 0, "error": 0}
    assert reported["transitions"]["wrong"] == {"right": 1, "wrong": 1, "unparseable": 0, "error": 0}
    assert sum(sum(row.values()) for row in reported["transitions"].values()) == reported["rollouts"] == 5
    assert [(row["id"], row["old"], row["new"]) for row in reported["changed"]] == [
        ("b", "wrong", "right"),
        ("d", "right", "wrong"),
        ("e", "right", "wrong"),
    ]
    assert (reported["score"], reported["unreadable"]) == ({"old": 0.6, "new": 0.4}, [])


def test_a_changed_row_shows_where_it_stands_and_what_was_written(dumped: Path) -> None:
    row = rescore(TASK, [dumped]).as_mapping()["changed"][0]
    assert row == {
        "place": f"{dumped}, line 2", "id": "b", "old": "wrong", "new": "right", "old_score": 0.0, "new_score": 1.0,
        "expected": "1 2", "response_tail": "1 2",
        "evidence": {"error_free": 3, "right_steps": 2, "steps": 2, "parsed": "1 2"},
    }  # fmt: skip


def test_the_same_verifier_changes_nothing(tmp_path: Path) -> None:
    rows = [judged("1 2", RIGHT), judged("1 3", WRONG), judged("x", Feedback(0.0, Verdict.UNPARSEABLE))]
    result = rescore(TASK, [dump(tmp_path / "d.jsonl", *rows)])
    assert result.changed == []
    assert [result.transitions()[v][v] for v in ("right", "wrong", "unparseable", "error")] == [1, 1, 1, 0]


@dataclass(frozen=True, kw_only=True)
class Seen(Trace):
    """A verifier that gives half a point, and reports what it was shown."""

    def begin(self, rollouts: Any) -> None:
        self.__dict__["begun"] = list(rollouts)

    def verify(self, rollouts: Any) -> list[Feedback]:
        self.__dict__["shown"] = list(rollouts)
        return [Feedback(0.5, Verdict.WRONG) for _ in rollouts]


def seen() -> Seen:
    return Seen(**vars(TASK))


def test_another_score_is_a_change_even_under_the_same_verdict(tmp_path: Path) -> None:
    result = rescore(seen(), [dump(tmp_path / "d.jsonl", judged("1 3", WRONG))])
    assert [(row.score, new.score) for row, new in result.changed] == [(0.0, 0.5)]
    assert result.transitions()["wrong"]["wrong"] == 1


def test_the_verifier_is_shown_what_the_dump_holds(tmp_path: Path) -> None:
    task = seen()
    original, path = judged("1 2", RIGHT, finished=False).rollout, tmp_path / "d.jsonl"
    rescore(task, [dump(path, Judged(original, RIGHT))])
    shown = task.__dict__["shown"][0]
    assert shown.state.problem.example == original.state.problem.example
    assert (shown.response, shown.finished, shown.version) == ("1 2", False, 3)
    assert (shown.state.prefix, len(shown.actions)) == ((5,), 2)
    assert task.__dict__["begun"] == task.__dict__["shown"]


# --- dumps of other versions, damaged dumps ---------------------------------------------------------------------------


def test_a_dump_of_another_version_is_read(dumped: Path) -> None:
    rows = lines(dumped)
    for row in rows:
        del row["problem"]["strata"], row["version"], row["prefix_tokens"], row["tokens"], row["logprobs"]
        row["problem"]["difficulty"] = 3
        row["engine"] = "other"
    dumped.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = rescore(TASK, [dumped])
    assert (len(result.rows), len(result.changed), result.unreadable) == (5, 3, [])
    assert result.rows[0].rollout.state.problem.example.strata == {}


def test_lines_that_cannot_be_read_are_reported_and_left_out(dumped: Path) -> None:
    good = lines(dumped)[0]
    bad = [
        "{torn",
        "[1]",
        json.dumps({k: v for k, v in good.items() if k != "response"}),
        json.dumps(good | {"response": None}),
        json.dumps(good | {"verdict": "perhaps"}),
        json.dumps(good | {"problem": {"id": "x"}}),
        "",
        json.dumps(good | {"score": "high"}),
    ]
    dumped.write_text("\n".join([json.dumps(good), *bad]) + "\n")
    result = rescore(TASK, [dumped])
    assert len(result.rows) == 1
    reported = [fault.removeprefix(f"{dumped}, line ") for fault in result.unreadable]
    assert [fault.split(":")[0] for fault in reported] == ["2", "3", "4", "5", "6", "7", "9"]
    assert reported[0] == "2: no JSON (Expecting property name enclosed in double quotes at column 2)"
    assert reported[1] == "3: expected an object, got list"
    assert reported[2] == "4: no 'response' in it"
    assert reported[3] == "5: 'response': expected a string, got NoneType"
    assert "'perhaps' is not a valid Verdict" in reported[4]
    assert f"unreadable: {dumped}, line 2" in as_table(result, 20)


def test_a_dump_without_a_readable_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("x\n")
    with pytest.raises(DataError, match=r"a.jsonl, line 1: no JSON"):
        rescore(TASK, [tmp_path / "a.jsonl"])
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"a.jsonl: empty"):
        rescore(TASK, [tmp_path / "a.jsonl"])


def test_the_table_begins_with_the_greatest_changes(tmp_path: Path) -> None:
    rows = [judged("1 2", Feedback(score, Verdict.WRONG), name=str(score)) for score in (0.75, 0.25, 0.5)]
    table = as_table(rescore(TASK, [dump(tmp_path / "d.jsonl", *rows)]), 2).splitlines()
    assert [line.split(":")[0] for line in table[-3:]] == ["0.25", "0.5", "... and 1 more"]


def test_the_table_has_counts_scores_and_the_first_changes(dumped: Path) -> None:
    assert as_table(rescore(TASK, [dumped]), 1).splitlines() == [
        "was \\ is           right        wrong  unparseable        error",
        "right                  1            2            0            0",
        "wrong                  1            1            0            0",
        "unparseable            0            0            0            0",
        "error                  0            0            0            0",
        "",
        "5 rollouts; mean score 0.6000 -> 0.4000; 3 changed",
        "b: wrong 0 -> right 1: ...'1 2'",
        "... and 2 more",
    ]


# --- the command ------------------------------------------------------------------------------------------------------

RUN = {
    "run.threads": 1, "run.test_freq": "null", "run.rollout_freq": 1, "algo": "ppo", "policy.head_size": 8,
    "task.train_per_level": 20, "model.hidden_size": 16, 
    "model.num_hidden_layers": 1, "warmstart": "none", "trainer.train_batch_size": 8, "trainer.ppo_mini_batch_size": 8,
    "trainer.critic_warmup": 0, "trainer.total_tokens": "null", "trainer.total_training_steps": 2, "evaluation.n": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps with a dump of each."""
    folder = tmp_path_factory.mktemp("rescore")
    places = {"run.dir": folder / "run"}
    train._train([f"{key}={value}" for key, value in {**RUN, **places}.items()])
    return folder / "run"


def test_a_runs_dumps_are_judged_as_they_were_by_its_own_configuration(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    capsys.readouterr()
    command._rescore([f"from_run={run}", "json=true", f"output={tmp_path / 'r.json'}"])
    reported = json.loads(capsys.readouterr().out)
    assert (reported["rollouts"], reported["changed"], reported["unreadable"]) == (16, [], [])
    assert json.loads((tmp_path / "r.json").read_text()) == reported


def test_one_dump_can_be_chosen_with_a_run_or_with_a_task(
    run: Path, dumped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command._rescore([f"from_run={run}", f"dump={run}/rollouts/step-000002.jsonl"])
    assert "8 rollouts; mean score" in capsys.readouterr().out
    for place in (dumped, dumped.parent, f"{dumped.parent}/step-*.jsonl"):
        command._rescore(["task=trace", f"dump={place}", "shown=1"])
        out = capsys.readouterr().out
        assert "5 rollouts; mean score 0.6000 -> 0.4000; 3 changed" in out
        assert "... and 2 more" in out


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        ([], "dump: missing; expected a file, a folder or a pattern, or from_run=RUN"),
        (["dump=nowhere*.jsonl"], "dump: no dump of rollouts in 'nowhere*.jsonl'; give another dump"),
        (["from_run={run}", "dump={run}", "shown=x"], "dump: no dump of rollouts"),
        (["dump={dump}", "shown=-1"], "shown: expected a whole number, got '-1'"),
        (["dump={dump}", "json=1"], "json: expected true or false, got '1'"),
        (["dump={dump}", "output={dump}"], "expected a new file"),
        (["dump={dump}", "dump=x"], "dump: given twice"),
        (["dump={dump}", "task=gsm9k"], "task: no such choice"),
    ],
)
def test_faults_are_reported_before_anything_is_judged(
    arguments: list[str], reported: str, run: Path, dumped: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        command._rescore([text.format(run=run / "logs", dump=dumped) for text in arguments])
    assert reported.split(";")[0] in str(caught.value)


def test_a_run_without_dumps_is_reported_with_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"from_run: no dump of rollouts in .*run.rollout_freq"):
        command._rescore([f"from_run={tmp_path}"])


def test_it_ends_with_0_whatever_changed(dumped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["rrl-rescore", "task=trace", f"dump={dumped}"])
    assert shell.run_command(command._rescore, command.HELP) == 0
    monkeypatch.setattr("sys.argv", ["rrl-rescore", "task=trace"])
    assert shell.run_command(command._rescore, command.HELP) == 2


@pytest.mark.parametrize(
    "damage",
    [
        {"problem": "What is 2 + 2?"}, {"problem": None}, {"problem": {"id": "a"}}, {"tokens": 10**18}, {"tokens": -1},
        {"score": 10**400}, {"score": float("nan")}, {"version": float("inf")},
    ],
)  # fmt: skip
def test_a_damaged_row_is_reported_and_costs_no_other(dumped: Path, damage: dict[str, Any]) -> None:
    kept = dumped.read_text().splitlines()
    dumped.write_text("\n".join([json.dumps({**json.loads(kept[0]), **damage}), "[" * 100_000, *kept]))
    result = rescore(TASK, [dumped])
    assert len(result.rows) == len(kept)
    assert len(result.unreadable) == 2


def test_a_dump_of_another_task_is_reported(dumped: Path) -> None:
    _, parts = load("train", ["task=minicode"])
    with pytest.raises(DataError, match="the dumps are not of the task MiniCode"):
        rescore(parts.task, [dumped])
