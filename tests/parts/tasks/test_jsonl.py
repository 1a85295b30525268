"""Questions of a user's own in JSON lines: fields by key, four ways of being right, faults, training."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from rrl.cli import train
from rrl.config.check import load
from rrl.errors import ConfigError, DataError
from rrl.parts.tasks import jsonl
from rrl.parts.tasks.jsonl import JSONLines
from rrl.types import Example, Feedback, Problem, Rollout, State, Verdict

ROWS = [{"q": f"What is {n} + 1?", "a": n + 1, "kind": "odd" if n % 2 else "even", "name": f"n{n}"} for n in range(40)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def task(**keys: Any) -> JSONLines:
    given = {"task.question": "q", "task.answer": "a"} | keys
    _, parts = load("train", ["task=jsonl", *(f"{key}={value}" for key, value in given.items())])
    assert isinstance(parts.task, JSONLines)
    return parts.task


def judged(match: str, answer: str, *responses: str) -> list[Feedback]:
    example = Example("1", "all", "?", "", answer)
    state = State(Problem(example, (), ()))
    rollouts = [Rollout(state, (), (), (), True, response, 0) for response in responses]
    judge = task(**{"task.match": match})
    judge.begin(rollouts)
    return judge.verify(rollouts)


def verdicts(match: str, answer: str, *responses: str) -> list[str]:
    return [feedback.verdict.value for feedback in judged(match, answer, *responses)]


# --- rows -------------------------------------------------------------------------------------------------------------


def test_fields_are_found_by_the_names_that_are_given(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", ROWS)
    example = task(**{"data.path": path, "task.level": "kind", "task.id": "name"}).examples("train")[0]
    assert example == Example("mine/n0", "even", "What is 0 + 1?", "1", "1")


def test_a_share_of_one_file_is_held_out_for_good(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", ROWS)
    made = task(**{"data.path": path, "task.holdout": 0.2})
    learnt, held = ({e.question for e in made.examples(split)} for split in ("train", "test"))
    assert learnt | held == {row["q"] for row in ROWS}
    assert not learnt & held
    assert 3 <= len(held) <= 14
    more = task(**{"data.path": write(tmp_path / "more.jsonl", ROWS[::-1]), "task.holdout": 0.2})
    assert {e.question for e in more.examples("test")} == held


def test_one_file_that_is_named_for_both_splits_is_divided(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", ROWS)
    made = task(**{"data.path": path, "task.test_path": path, "task.holdout": 0.2})
    learnt, held = ({e.question for e in made.examples(split)} for split in ("train", "test"))
    assert learnt and held and not learnt & held


def test_test_problems_come_from_their_own_file_where_there_is_one(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS[:3])
    write(tmp_path / "test.jsonl", ROWS[3:5])
    other = write(tmp_path / "other.jsonl", ROWS[5:9])
    folder = task(**{"data.path": tmp_path})
    named = task(**{"data.path": tmp_path / "train.jsonl", "task.test_path": other})
    assert [len(folder.examples(split)) for split in ("train", "test")] == [3, 2]
    assert [len(named.examples(split)) for split in ("train", "test")] == [3, 4]
    assert [e.id for e in named.examples("test")] == ["other/0", "other/1", "other/2", "other/3"]


def test_references_are_the_answers_unless_a_field_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [row | {"work": f"It is {row['a']}."} for row in ROWS])
    assert {e.reference == e.answer for e in task(**{"data.path": path}).demonstrations(5, 0)} == {True}
    named = task(**{"data.path": path, "task.reference": "work"}).demonstrations(5, 0)
    assert [e.reference for e in named] == [f"It is {e.answer}." for e in named]
    with pytest.raises(DataError, match=r"task.reference: null"):
        task(**{"data.path": path, "task.match": "regex"}).demonstrations(5, 0)


FAULTS: list[tuple[dict[str, Any], list[dict[str, Any]], str]] = [
    ({}, [{"q": "1?", "a": 1}, {"q": "2?", "answer": 2}], r"mine.jsonl, line 2: field 'a' is missing, expected a string"
     r" or a number; there are \['q', 'answer'\](.|\n)*or name other fields by task.question and its like"),
    ({}, [{"a": 1}], r"line 1: field 'q' is missing, expected a string; there are \['a'\]"),
    ({}, [{"q": "1?", "a": [1]}], r"line 1: field 'a': expected a string or a number, received \[1\]"),
    ({"task.level": "kind"}, [{"q": "1?", "a": 1}], "line 1: field 'kind' is missing"),
    ({"task.match": "number"}, [{"q": "1?", "a": "one"}], "row 1 .*field 'a': expected a number for task.match=number"),
    ({"task.match": "regex"}, [{"q": "1?", "a": "(1"}], "row 1 .*expected a regular expression"),
    ({}, [{"q": "1?", "a": 1}], "task.holdout: 0.1 of the 1 rows of .*mine.jsonl leaves none for test"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "rows", "reported"), FAULTS)
def test_faults_name_file_line_and_what_is_there(
    keys: dict[str, Any], rows: list[dict[str, Any]], reported: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=reported):
        made = task(**{"data.path": write(tmp_path / "mine.jsonl", rows)}, **keys)
        made.examples("train"), made.examples("test")


def test_what_is_not_given_or_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.path: missing; expected a .jsonl file"):
        task().examples("train")
    write(tmp_path / "other.jsonl", ROWS)
    with pytest.raises(DataError, match=r"mine.jsonl: no such file; nearest .*other.jsonl\n.*working directory$"):
        task(**{"data.path": tmp_path / "mine.jsonl"}).examples("train")
    with pytest.raises(ConfigError, match=r"evaluation.split: JSONLines has no split 'dev'"):
        task(**{"data.path": tmp_path}).examples("dev")
    with pytest.raises(ConfigError, match=r"holdout: expected a share above 0 and up to 1, got 0"):
        task(**{"task.holdout": 0.0})


@pytest.mark.parametrize(
    ("name", "row", "right"),
    [
        # The fields of HuggingFaceH4/aime_2024 and of AI-MO/aimo-validation-amc, whose answers are floats.
        (
            "aime",
            {"id": 60, "problem": "1+1?", "solution": "...", "answer": "033", "url": "", "year": "2024"},
            r"\boxed{33}",
        ),
        ("amc", {"id": 0, "problem": "1+1?", "answer": 142.0, "url": ""}, "So it is $142$."),
    ],
)
def test_all_rows_of_a_competition_are_test_problems(
    name: str, row: dict[str, Any], right: str, tmp_path: Path
) -> None:
    path = write(tmp_path / f"{name}.jsonl", [row])
    _, parts = load("evaluate", [f"task={name}", f"data.path={path}"])
    (example,) = parts.task.examples("test")
    assert (example.question, example.answer) == ("1+1?", str(row["answer"]))
    state = State(Problem(example, (), ()))
    found = parts.task.verify([Rollout(state, (), (), (), True, text, 0) for text in (right, "7", "none")])
    assert [feedback.verdict.value for feedback in found] == ["right", "wrong", "unparseable"]
    with pytest.raises(DataError, match=r"1.0 of the 1 rows of .* leaves none for train"):
        parts.task.examples("train")


# --- what is right ----------------------------------------------------------------------------------------------------


def test_exact_is_the_same_text_of_the_most_explicit_place() -> None:
    right = [
        "Paris",
        " Paris.\n",
        "**Paris**",
        "The answer is Paris.",
        "Answer: Paris",
        "The answer is Paris. It is large.",
    ]
    right += [
        "<think>London</think>Paris",
        "<answer>Paris</answer> or so",
        r"\boxed{Paris}",
        "Paris\nQuestion: and Rome?",
    ]
    wrong = [
        "paris",
        "London",
        "It is Paris",
        "Paris or London",
        "The answer is Paris or London",
        "<answer>London</answer>Paris",
    ]
    assert verdicts("exact", "Paris", *right, *wrong) == ["right"] * 10 + ["wrong"] * 6
    assert verdicts("exact", "Paris", "", "<think>Paris", "<answer></answer>Paris") == ["unparseable"] * 3


def test_number_is_read_as_in_gsm8k() -> None:
    found = verdicts(
        "number", "1,234", "#### 1234", r"\boxed{1234.0}", "The answer is $1,234.", "1,235", "none", "1234 or 5"
    )
    assert found == ["right", "right", "right", "wrong", "unparseable", "unparseable"]


def test_mathematics_is_judged_as_in_math() -> None:
    found = judged("mathematics", r"\frac{1}{2}", r"\boxed{0.5}", "The answer is $1/2$.", r"\boxed{2}", "")
    assert [feedback.verdict.value for feedback in found] == ["right", "right", "wrong", "unparseable"]
    assert found[0].evidence["outcome"] == "equal"


def test_a_regular_expression_is_searched_in_the_conclusion() -> None:
    found = verdicts("regex", r"^(yes|ja)\b", "yes, it is", "ja", "no: yes", "<think>no</think>yes", "yesterday")
    assert found == ["right", "right", "wrong", "right", "wrong"]


def test_what_a_regular_expression_matched_is_no_answer_to_vote_on() -> None:
    """Only right responses have it, so that any of them would win."""
    found = judged("regex", "yes", "yes, it is", "no")
    assert [feedback.evidence for feedback in found] == [
        {"found": "yes", "expected": "yes"},
        {"found": None, "expected": "yes"},
    ]


def test_a_response_that_a_search_does_not_end_in_is_unparseable(monkeypatch: pytest.MonkeyPatch) -> None:
    """To its end a search in 24 letters takes some hundredths of a second, and one in 200 more than anybody has."""
    assert verdicts("regex", r"^(a|aa)+$", "a" * 24, "a" * 24 + "!") == ["right", "wrong"]
    monkeypatch.setattr(jsonl, "PATIENCE", 0.001)
    (found,) = judged("regex", r"^(a|aa)+$", "a" * 24 + "!")
    assert (found.verdict, found.score) == (Verdict.UNPARSEABLE, 0.0)


def test_a_search_that_would_not_end_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jsonl.PATIENCE <= 1
    monkeypatch.setattr(jsonl, "PATIENCE", 0.1)
    begin = time.perf_counter()
    (found,) = judged("regex", r"^(a|aa)+$", "a" * 200 + "!")
    assert (found.verdict, found.score) == (Verdict.UNPARSEABLE, 0.0)
    assert time.perf_counter() - begin < 20


# --- training ---------------------------------------------------------------------------------------------------------

RUN = {
    "task": "jsonl", "model": "tiny", "algo": "ppo", "warmstart": "none", "run.threads": 1, "task.question": "q",
    "task.answer": "a", "task.match": "number", "task.level": "kind", "data.max_response_length": 6,
    "data.max_prompt_length": 64, "data.level_weights": "null", "policy.head_size": 8, "model.hidden_size": 16,
    "model.num_hidden_layers": 1, "trainer.train_batch_size": 8,
    "trainer.ppo_mini_batch_size": 8, "trainer.critic_warmup": 0, "trainer.total_tokens": "null",
    "trainer.total_training_steps": 2, "evaluation.limit": 2, "evaluation.n": 0,
}  # fmt: skip


def test_a_tiny_model_trains_for_two_steps_on_a_file(tmp_path: Path) -> None:
    places = {"data.path": write(tmp_path / "mine.jsonl", ROWS), "run.dir": tmp_path / "run"}
    train._train([f"{key}={value}" for key, value in {**RUN, **places}.items()])
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in metrics) == 2
    assert any("val/jsonl/odd/acc/greedy" in row for row in metrics)
