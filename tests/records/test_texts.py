"""No text that a program or a model wrote ends a run or steers a terminal, wherever it is written."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rrl.processes.logs import open_log
from rrl.records.fingerprints import fingerprint
from rrl.records.run_directory import dump_rollouts, rollout_rows, write_json
from rrl.records.status import read_state, write_state
from rrl.records.texts import as_json, shortened, visible
from rrl.records.tracking import Sink, TensorBoard, Tracker
from rrl.types import Example, Feedback, Judged, Problem, Rollout, State, Verdict
from rrl.verifiers.programs import Outcome, ProgramEvidence, TestResult

TestResult.__test__ = False  # type: ignore[attr-defined]
ODD = "\ud83d bad \x00\x1b[2J\x9b\r\u202e\ufeffé\U0001f600\n\tend"
SHOWN = "\\ud83d bad \\x00\\x1b[2J\\x9b\\r\\u202e\ufeffé\U0001f600\n\tend"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (ODD, SHOWN),
        ("a\tb\nc é \U0001f600 \\x1b", "a\tb\nc é \U0001f600 \\x1b"),
        ("\udfff\x7f\u2028", "\\udfff\\x7f\\u2028"),
    ],
)
def test_what_steers_or_cannot_be_written_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown
    shown.encode()


def test_a_long_text_is_shortened_in_its_middle() -> None:
    assert shortened("abcdefghij", 4) == "ab [... 6 characters ...] ij"
    assert shortened("abcd", 4) == "abcd"


@pytest.mark.parametrize(
    ("content", "written"),
    [
        ({"a": "\ud83d\x00é"}, b'{"a": "\\ud83d\\u0000\xc3\xa9"}'),
        (["\\ud83d"], b'["\\\\ud83d"]'),
        ({"\udfff": (float("nan"), [float("-inf")], 1.5)}, b'{"\\udfff": [null, [null], 1.5]}'),
        ([Path("x")], b'["x"]'),
    ],
)
def test_json_holds_any_text_and_number(content: Any, written: bytes) -> None:
    assert as_json(content) == written
    written.decode()
    json.loads(written)


def judged() -> Judged:
    """A response whose program raised what it liked, and evidence of it."""
    example = Example(id="p", level="l", question="?", reference="", answer="1")
    test = TestResult(Outcome.RUNTIME_ERROR, "Odd\ud83d", 1, ODD)
    evidence = ProgramEvidence(Outcome.RUNTIME_ERROR, ODD, 0, 0, 1, "Odd\ud83d", 1, ODD, (test,))
    rollout = Rollout(State(Problem(example, (), ())), (1,), (float("-inf"),), (0.0,), True, ODD, 0)
    return Judged(rollout, Feedback(0.0, Verdict.WRONG, evidence.as_mapping()))


class Characters:
    def decode(self, tokens: Any) -> str:
        return "\ud83d" * len(tokens)


def test_a_dump_holds_such_texts_and_gives_them_back(tmp_path: Path) -> None:
    dump_rollouts(tmp_path / "step-000001.jsonl", rollout_rows(1, [judged()], Characters()))
    [line] = (tmp_path / "step-000001.jsonl").read_bytes().splitlines()
    row = json.loads(line.decode("utf-8", "strict"))
    assert (row["response"], row["evidence"]["message"], row["logprobs"]) == (ODD, ODD, [None])
    write_json(tmp_path / "result.json", {ODD: ODD})
    assert json.loads((tmp_path / "result.json").read_text("utf-8")) == {ODD: ODD}


class Kept(Sink):
    """Takes what a tracker reports, as long as it can be written."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []

    def start(self, folder: Path, config: Mapping[str, Any], after: int | None) -> None:
        pass

    def samples(self, step: int, rows: Any) -> None:
        json.dumps(rows, ensure_ascii=False).encode()
        self.rows += rows

    def finish(self, complete: bool) -> None:
        pass


def test_trackers_are_shown_escapes_and_no_megabytes(tmp_path: Path) -> None:
    sink = Kept()
    tracker = Tracker(tmp_path, sink, {}, None)
    tracker.samples(1, [{"response": ODD, "program": "x" * 10**7, "score": 0.5, "evidence": {"message": ODD}}])
    tracker.finish()
    [row] = sink.rows
    assert (row["response"], row["score"]) == (SHOWN, 0.5)
    assert len(row["program"]) < 21_000
    assert "\\ud83d bad" in row["evidence"]


def test_tensorboard_takes_such_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("tensorboard")
    tracker = Tracker(tmp_path, TensorBoard(), {"key": ODD}, None)
    tracker.samples(1, [{"response": ODD}])
    tracker.summary({"text": ODD, "number": float("nan")})
    tracker.finish()
    assert not caplog.records
    assert b"\\ud83d bad" in b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())


def test_logs_hold_escapes_of_what_programs_said(tmp_path: Path) -> None:
    with open_log(tmp_path, 0) as file:
        logging.getLogger("rrl.x").warning("said: %s", ODD)
        file.write("traceback: \ud83d\n")
    text = (tmp_path / "logs" / "rank-0.log").read_text("utf-8")
    assert f"said: {SHOWN}" in text
    assert "traceback: \\ud83d" in text


def test_a_status_holds_a_reason_of_any_text_and_length(tmp_path: Path) -> None:
    write_state(tmp_path, "failed", f"ValueError: {ODD}{'x' * 10**6}")
    reason = read_state(tmp_path).reason
    assert reason is not None
    assert reason.startswith(f"ValueError: {SHOWN}x")
    assert len(reason) < 5000


def test_a_hash_is_made_of_any_text() -> None:
    """By sha256sum of the lines."""
    assert fingerprint(["é"]) == "784656ac6cca14999ba38ddbeefd825edaec9e0f6233dccf8daa29880b7c34e5"
    assert fingerprint(["\ud83d"]) == "898bb00a2d0a1530bb0391df69d910e66f0841793c91721c651dab7129e1fefc"
