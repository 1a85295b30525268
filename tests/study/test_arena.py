"""rrl-evaluate with a judge, from the command line to the table: two sides, the same problems, both orders."""

import json
import os
import re
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from fixtures.judge_server import KEY, ChatServer, status
from rrl.cli import evaluate
from rrl.config.check import load
from rrl.config.saved import write_config
from rrl.errors import ConfigError, DataError, ServiceError, UsageError
from rrl.parts.engines.hf import HFEngine
from rrl.study import arena
from rrl.training.models import HuggingFace, LoadedModel

TINY = {
    "run.threads": 1, "task.train_per_level": 50, "evaluation.n": 0, "model.hidden_size": 16,
    "model.num_hidden_layers": 1, "data.max_response_length": 12,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run as training leaves it, as far as an evaluation reads it; actor and start are random."""
    folder = tmp_path_factory.mktemp("arena") / "run"
    for name, seed in (("start", 0), ("actor", 1)):
        given = [f"{key}={value}" for key, value in {**TINY, "start_seed": seed}.items()]
        config, parts = load("train", given)
        for part in parts.model.load(parts.task.vocabulary()):
            part.save_pretrained(folder / name)
    write_config(folder, config)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies are kept for a test alone."""
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "replies"))


def asked(server: ChatServer, folder: Path, *given: str) -> list[str]:
    """The command line of a judgement by this server."""
    judge = {
        "base_url": server.url,
        "requests_per_minute": "null",
        "model": "some-judge",
        "backoff": 0.0,
        "retries": 1,
    }
    return ["judge=openai", *(f"judge.{key}={value}" for key, value in judge.items()), *given]


def compared(capsys: pytest.CaptureFixture[str], *given: str) -> dict[str, Any]:
    capsys.readouterr()
    evaluate._evaluate(given)
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def digits(text: str) -> int:
    return int(re.sub(r"\D", "", text) or 0)


def faults(*given: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        evaluate._evaluate(given)
    return list(caught.value.faults)


# --- a comparison -----------------------------------------------------------------------------------------------------


def test_a_run_is_compared_with_its_warm_start_question_by_question(
    run: Path, server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, lines = tmp_path / "result.json", tmp_path / "lines.jsonl"
    given = asked(server, tmp_path, f"from_run={run}", "against=sft", f"output={out}", f"judgements={lines}")
    result = compared(capsys, *given)
    assert json.loads(out.read_text()) == result
    expected = {1: "win", 0: "tie", -1: "lose"}
    for row in (written := rows(lines)):
        a, b = digits(row["ours"]), digits(row["theirs"])
        assert row["outcome"] == expected[(a > b) - (a < b)]
    assert (len(written), result["n"], result["errors"]) == (15, 15, 0)
    assert result["equal"] < 15
    assert len(server.seen) == 2 * sum(row["ours"] != row["theirs"] for row in written)
    counts = [result[end]["count"] for end in ("win", "tie", "lose")]
    assert counts == [sum(row["outcome"] == end for row in written) for end in ("win", "tie", "lose")]
    assert list(result["levels"]) == ["L10", "L3", "L6"]


def test_the_result_says_how_it_came_about_and_people_get_a_table(
    run: Path, server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate._evaluate(asked(server, tmp_path, f"from_run={run}", "against=sft", "judge.price_prompt=1.0",
                             "judge.price_completion=2.0", "evaluation.limit=2"))  # fmt: skip
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["problems"], result["left_out"], result["seed"], result["split"]) == (6, 0, 1, "test")
    assert result["sampling"]["temperature"] == 0.0
    assert result["ours"]["model"]["path"] == str(run / "actor")
    assert (result["against"]["name"], result["against"]["model"]["path"]) == ("sft", str(run / "start"))
    assert result["ours"]["template"] == result["against"]["template"] == "<bos>{question}"
    paid = result["judge"]["paid_now"]
    assert paid["replies"] == len(server.seen)
    assert paid["cost"] == pytest.approx(len(server.seen) * 120e-6)  # 100 tokens at 1 and 10 at 2 a million
    assert "position bias" in printed.err
    assert result["rule"] in printed.err


def test_the_same_command_pays_nothing_again(
    run: Path, server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = asked(server, tmp_path, f"from_run={run}", "against=sft")
    first = compared(capsys, *given)
    paid = len(server.seen)
    again = compared(capsys, *given)
    assert len(server.seen) == paid > 0
    first_judge, second_judge = first.pop("judge"), again.pop("judge")
    assert first == again
    assert second_judge["kept_from_before"] == first_judge["paid_now"]


def test_a_judge_that_follows_the_position_ties_everything(
    run: Path, server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.verdict = lambda first, second: "A"
    result = compared(capsys, *asked(server, tmp_path, f"from_run={run}", "against=sft"))
    assert (result["tie"]["share"], result["win"]["count"], result["lose"]["count"]) == (1.0, 0, 0)
    assert (result["position_bias"]["share"], result["position_bias"]["second"]) == (1.0, 0)


def test_errors_of_the_judge_are_left_out_of_the_shares(
    run: Path, server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = [status(400), *[None] * 3, status(400)]  # one order each of two questions
    result = compared(capsys, *asked(server, tmp_path, f"from_run={run}", "against=sft", "judge.parallel=1"))
    assert (result["n"], result["errors"]) == (13, 2)
    assert result["judge"]["failures"] == {"status 400: {}": 2}


def test_a_run_ties_with_itself_for_both_sides_are_greedy(
    run: Path, server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = compared(capsys, *asked(server, tmp_path, f"from_run={run}", f"against={run}", "evaluation.temperature=2"))
    assert (result["equal"], result["n"], result["tie"]["share"]) == (15, 15, 1.0)
    assert result["position_bias"]["of"] == len(server.seen) == 0
    assert result["sampling"]["temperature"] == 0.0


def test_the_data_sets_answers_are_a_side(
    run: Path, server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "lines.jsonl"
    given = asked(server, tmp_path, f"from_run={run}", "against=reference", f"judgements={lines}")
    result = compared(capsys, *given)
    _, parts = load("evaluate", [], run=str(run))
    references = {example.id: example.reference for example in parts.task.examples("test")}
    assert {row["id"]: row["theirs"] for row in rows(lines)} == references
    assert result["against"] == {"name": "reference", "model": None}


def test_any_model_is_a_side(run: Path, server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start, actor = run / "start", run / "actor"
    one = compared(capsys, *asked(server, tmp_path, f"from_run={run}", f"against={start}"))
    other = compared(capsys, *asked(server, tmp_path, f"from_run={run}", f"model.path={start}", f"against={actor}"))
    assert (one["win"], one["lose"]) == (other["lose"], other["win"])


LARGEST = """
class Largest:
    def start(self):
        pass

    def score(self, pairs):
        return [float("".join(filter(str.isdigit, answer)) or 0) for _, answer in pairs]

    def described(self):
        return {"path": "largest"}
"""


def test_a_run_is_judged_by_a_reward_model_that_it_was_not_trained_with(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "reward_model").mkdir()
    (tmp_path / "reward_model" / "largest.yaml").write_text("_target_: own_largest.Largest\n")
    (tmp_path / "own_largest.py").write_text(LARGEST)
    monkeypatch.setenv("RRL_PARTS", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    lines = tmp_path / "lines.jsonl"
    given = (f"from_run={run}", "against=sft", "judge=reward_model", "reward_model=largest", f"judgements={lines}")
    result = compared(capsys, *given, "judge.tie_margin=1.5")
    for row in rows(lines):
        difference = digits(row["ours"]) - digits(row["theirs"])
        assert row["outcome"] == ("tie" if abs(difference) <= 1.5 else "win" if difference > 0 else "lose")
    assert result["judge"] == {"judge": "reward_model", "reward_model": {"path": "largest"}, "tie_margin": 1.5}
    assert result["position_bias"]["count"] == 0


DATA = Path(os.environ.get("RRL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "hh-rlhf"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"HH-RLHF is absent: no {DATA}; set RRL_DATA to the folder above it")
def test_dialogues_are_judged_on_real_rows_helpful_and_harmless_apart(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.verdict = lambda first, second: "A" if "you" in first else "B" if "you" in second else "tie"
    lines = tmp_path / "lines.jsonl"
    sizes = [f"{key}={value}" for key, value in TINY.items() if key.startswith(("model.", "run.", "evaluation."))]
    data = ["task=hh", f"data.path={DATA}", "task.split_rows=9", "data.max_prompt_length=150", "evaluation.limit=30"]
    short = ["data.max_response_length=2", "warmstart=none", "against=reference", f"judgements={lines}"]
    result = compared(capsys, *asked(server, tmp_path, *sizes, *data, *short))
    # Of the first 30 of every tenth row that fit, counted by a few lines of their own on the files.
    counts = {
        level: (part["n"], part["lose"]["count"], part["win"]["count"]) for level, part in result["levels"].items()
    }
    assert counts == {"harmless": (30, 24, 0), "helpful": (30, 22, 0)}
    assert rows(lines)[0]["id"] == "hh/helpful-base/test/19"
    assert "\n\nHuman:" in server.seen[0]["messages"][0]["content"]


# --- the same problems for both ---------------------------------------------------------------------------------------


def test_only_what_both_sides_can_read_is_asked_and_the_rest_is_counted(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = ["1+1?", "2+2, which is " + "so " * 20 + "easy?", "3+3?", "4+4?"]
    data = [json.dumps({"question": q, "answer": f"It is <<1+1=2>>{i}.\n#### {i}"}) for i, q in enumerate(questions)]
    (tmp_path / "test.jsonl").write_text("\n".join(data))
    sizes = [f"{key}={value}" for key, value in TINY.items() if key.startswith(("model.", "run.threads"))]
    given = ["task=gsm8k", "warmstart=none", f"data.path={tmp_path}", "data.max_response_length=4", *sizes]
    _, parts = load("evaluate", given)
    model, tokenizer = parts.model.load(None)
    model.config.max_position_embeddings = 60
    model.save_pretrained(tmp_path / "short")
    tokenizer.save_pretrained(tmp_path / "short")
    lines = tmp_path / "lines.jsonl"
    ours = asked(server, tmp_path, *given, "evaluation.limit=2", f"judgements={lines}")
    result = compared(capsys, *ours, f"against={tmp_path / 'short'}")
    assert [row["question"] for row in rows(lines)] == ["1+1?", "3+3?"]
    assert (result["problems"], result["left_out"]) == (2, 1)


def test_one_model_is_in_memory_at_a_time(
    run: Path, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, models = HuggingFace.load, list[weakref.ref[Any]]()

    def watched(self: HuggingFace, vocabulary: tuple[str, ...] | None) -> LoadedModel:
        assert not [model for model in models if model() is not None]
        loaded = original(self, vocabulary)
        models.append(weakref.ref(loaded.model))
        return loaded

    monkeypatch.setattr(HuggingFace, "load", watched)
    compared(capsys, *asked(server, tmp_path, f"from_run={run}", "against=sft"))
    assert len(models) == 2


def test_the_text_that_ends_a_response_is_no_part_of_the_answer() -> None:
    assert arena._without_stop(" Yes.\n\nHuman: and", ("\n\nHuman:", "###")) == "Yes."
    assert arena._without_stop("a ### b\n\nHuman:", ("\n\nHuman:", "###")) == "a"
    assert arena._without_stop(" a b ", ()) == "a b"


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_is_in_no_file_and_in_nothing_that_is_printed(
    run: Path, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.faults = [lambda handler: handler.chat(f"{KEY}\nVerdict: A"), status(400, {"error": {"message": KEY}})]
    results = (f"output={tmp_path / 'result.json'}", f"judgements={tmp_path / 'lines.jsonl'}")
    evaluate._evaluate(asked(server, tmp_path, f"from_run={run}", "against=sft", *results))
    assert set(server.keys) == {f"Bearer {KEY}"}
    files = [path for folder in (tmp_path, run.parent) for path in folder.rglob("*") if path.is_file()]
    assert {"result.json", "lines.jsonl", "config.yaml"} <= {path.name for path in files}
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in "".join(capfd.readouterr())


# --- faults -----------------------------------------------------------------------------------------------------------


def test_a_judge_needs_two_sides_and_two_sides_need_a_judge(run: Path, server: ChatServer, tmp_path: Path) -> None:
    assert faults(f"from_run={run}", "against=sft", "judgements=x") == [
        "against: needs a judge, as in judge=openai, and there is none; give one",
        "judgements: needs a judge, as in judge=openai, and there is none; give one",
    ]
    (reported,) = faults(*asked(server, tmp_path, f"from_run={run}"))
    assert reported.startswith("against: missing; a judge compares two sides; expected another run's directory, sft ")


def test_a_warm_start_is_that_of_a_run_that_had_one(run: Path, server: ChatServer, tmp_path: Path) -> None:
    (reported,) = faults(*asked(server, tmp_path, "against=sft"))
    assert reported == "against: sft is the warm start of a run, and no run is given; expected from_run=RUN with it"
    bare = tmp_path / "bare"
    (bare / "actor").mkdir(parents=True)
    (bare / "config.yaml").write_text((run / "config.yaml").read_text())
    (reported,) = faults(*asked(server, tmp_path, f"from_run={bare}", "against=sft"))
    assert reported.startswith(
        f"against: sft, but '{bare}/start' does not exist: the run has no warm start; expected one; "
    )
    (bare / "actor").rmdir()
    (reported,) = faults(*asked(server, tmp_path, f"from_run={run}", f"against={bare}"))
    assert reported == f"against: '{bare}' is a run without actor/; expected a finished run"


def test_a_side_that_is_not_there_is_reported_before_the_other_one_writes(
    run: Path, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HFEngine, "generate", lambda *given: pytest.fail("answers were written"))
    (reported,) = faults(*asked(server, tmp_path, f"from_run={run}", f"against={tmp_path}/nothing"))
    assert reported.startswith(f"against={tmp_path}/nothing: model.path: '{tmp_path}/nothing' is no local folder (")


def test_data_without_answers_are_no_side(run: Path, server: ChatServer, tmp_path: Path) -> None:
    _, parts = load("evaluate", asked(server, tmp_path), run=str(run))
    task = type("Bare", (), {"examples": lambda self, split: [], "vocabulary": lambda self: None})()
    with pytest.raises(DataError, match="no problem in the split"):
        arena._in_common(arena.replace(parts, task=task), arena.Side(name="reference", parts=None))


def test_a_judge_that_is_down_is_reported_before_any_answer_is_written(
    run: Path, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena, "_answers", lambda *_: pytest.fail("an answer was written"))
    given = asked(server, tmp_path, f"from_run={run}", "against=sft")
    server.shutdown()
    server.server_close()
    with pytest.raises(ServiceError, match=r"does not answer \(ConnectError\)"):
        evaluate._evaluate(given)


def test_misspelt_keys_of_a_judge_are_reported_with_the_nearest(run: Path) -> None:
    assert faults(f"from_run={run}", "judge=openay", "judge.modl=x", "judge.retries=-1", "trainer.nn=1") == [
        "judge: no such choice 'openay'; did you mean 'openai'? valid: none, openai, reward_model",
        "judge.modl: no such key; did you mean 'judge.model'?",
        "trainer.nn: no such key; did you mean 'trainer.n'?",
        "judge.retries: expected a number >= 0, got -1",
        "judge.model: missing; give a name that the endpoint knows, as in judge.model=NAME",
    ]
    assert faults(f"from_run={run}", "judge.model=x") == ["judge.model: no such key; it comes with judge=openai"]


def test_training_knows_no_judge() -> None:
    assert "judge" not in load("train", [])[0]
    assert load("train", [])[1].judge is None
    with pytest.raises(ConfigError) as caught:
        load("train", ["judge=openai"])
    assert caught.value.faults == ("judge: no such key; nothing is judged here: judges belong to rrl-evaluate",)
