"""What a program writes in place of its report is believed in nothing but what it could have returned."""

import json
from typing import Any

import pytest

from fixtures.sandbox import LIMITS, reported
from rrl.sandbox.outcome import run_of
from rrl.sandbox.runs import ProgramRun

SEEN = {"code": 0, "cpu": 0.1, "crossed": "", "compiled": True, "seconds": 0.2}
ERROR = {"status": "runtime_error", "error": "ValueError", "line": 3, "message": "bad"}


def judged(report: bytes, **seen: Any) -> ProgramRun:
    return run_of({**SEEN, **seen}, b"42\n", report, LIMITS, prints=False)


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b"[]",
        b"null",
        b"42",
        b'"ended"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"status": "ended", "value": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"status": "ended", "value": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"status": "ended", "value": ' + b"9" * 50_000 + b"}",
        b'{"status": "sandbox_failure", "error": "x", "line": 1, "message": ""}',
        b'{"status": "time_out", "error": "WallTime", "line": 1, "message": ""}',
        b'{"status": "compile_error", "error": "SyntaxError", "line": 1, "message": ""}',
        b'{"status": ["ended"], "value": 42}',
        json.dumps({**ERROR, "error": 5}).encode(),
        json.dumps({**ERROR, "message": ["a"]}).encode(),
        json.dumps({"status": "runtime_error"}).encode(),
    ],
    ids=lambda report: repr(report[:30]),
)
def test_what_is_no_report_counts_for_nothing(report: bytes) -> None:
    assert reported(judged(report)) == ("runtime_error", "NoEvidence")


@pytest.mark.parametrize("line", [0, -5, 10**30, True, 1.5, "3", None, [3]])
def test_a_line_that_is_no_line_is_left_out(line: Any) -> None:
    assert judged(json.dumps({**ERROR, "line": line}).encode()).line is None


def test_words_are_cut_and_can_be_written_anywhere() -> None:
    found = judged(json.dumps({**ERROR, "error": "E" * 500_000, "message": "line " + "9" * 500_000}).encode())
    assert (len(found.error or ""), len(found.message)) == (400, 400)
    found = judged(b'{"status": "runtime_error", "error": "\\ud83d", "line": 3, "message": "\\ud83d bad \\udfff"}')
    assert (found.error, found.message) == ("\\ud83d", "\\ud83d bad \\udfff")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({"code": 1}, ("runtime_error", "NoEvidence")),
        ({"code": -11}, ("runtime_error", "SIGSEGV")),
        ({"code": -9}, ("runtime_error", "Killed")),
        ({"crossed": "WallTime"}, ("time_out", "WallTime")),
        ({"crossed": "OutputLimit"}, ("runtime_error", "OutputLimit")),
        ({"cpu": 99.0}, ("time_out", "CpuTime")),
        ({"compiled": False}, ("compile_error", "NoEvidence")),
    ],
)
def test_what_the_watcher_saw_outranks_every_report(seen: dict[str, Any], expected: tuple[str, str]) -> None:
    found = judged(b'{"status": "ended", "value": 42}', **seen)
    assert (reported(found), found.value) == (expected, None)
