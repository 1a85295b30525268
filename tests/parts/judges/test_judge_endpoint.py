"""A judge behind a chat endpoint, under every fault that a network has: faults are counted and reported."""

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from fixtures.judge_server import KEY, ChatServer, drip, hang, judge_of, larger, reset, says, status
from fixtures.judges import ERROR, FIRST, GOOD, SECOND, TIE, judged, preferences
from rrl.errors import ConfigError, ServiceError
from rrl.parts.judges.endpoint import Endpoint
from rrl.parts.judges.openai import OpenAIJudge
from rrl.parts.judges.pace import Pace, Stopped
from rrl.types import Comparison, Judgement

pytestmark = pytest.mark.clock


def refused(judge: OpenAIJudge, *pairs: tuple[int, int]) -> str:
    with pytest.raises(ServiceError) as caught:
        judged(judge, *pairs)
    (reported,) = caught.value.faults
    return reported


# --- an endpoint ------------------------------------------------------------------------------------------------------


def test_a_request_is_a_chat_completion_with_the_filled_template(server: ChatServer, tmp_path: Path) -> None:
    judge = judge_of(server.url, tmp_path, max_tokens=7, extra={"top_k": 1, "seed": 3})
    assert preferences(judge, *GOOD) == [FIRST, SECOND, TIE]
    question = "Q:question 0\nFIRST:It is 3.\nSECOND:It is 1.\nEnd with Verdict: A, Verdict: B or Verdict: tie"
    assert server.seen[0] == {
        "path": "/v1/chat/completions", "model": "some-judge", "messages": [{"role": "user", "content": question}],
        "temperature": 0.0, "max_tokens": 7, "top_k": 1, "seed": 3,
    }  # fmt: skip
    assert server.keys == [None] * 3


def test_half_a_character_in_an_answer_is_asked_about_as_any_other(server: ChatServer, tmp_path: Path) -> None:
    judge = judge_of(server.url, tmp_path)
    asked = [Comparison("\ud83d?", "It is 3.\x00\x1b", "It is 1.\udfff")]
    assert [found.preference for found in judge.judge(asked, lambda progress, metrics: None)] == [FIRST]
    assert "Q:\ud83d?\nFIRST:It is 3.\x00\x1b\nSECOND:It is 1.\udfff" in server.seen[0]["messages"][0]["content"]


def test_null_leaves_a_limit_out_of_the_request(server: ChatServer, tmp_path: Path) -> None:
    judged(judge_of(server.url + "/", tmp_path, max_tokens=None, temperature=None), (1, 2))
    assert server.seen[0].keys() == {"path", "model", "messages"}
    assert server.seen[0]["path"] == "/v1/chat/completions"


FAULTS = {
    "status 429": status(429, retry_after="0"),
    "status 500": status(500),
    "status 503": status(503, retry_after="not soon"),
    "malformed answer (JSONDecodeError)": status(200, b'{"choices": [{"mess'),
    "malformed answer (ValueError)": status(200, {"choices": []}),
    "connection error (ReadError)": reset,
}
"""What another try may repair, by the reason that is reported when it does not."""


@pytest.mark.parametrize("reason", FAULTS)
def test_what_may_pass_is_tried_again(reason: str, server: ChatServer, tmp_path: Path) -> None:
    server.faults = [FAULTS[reason], FAULTS[reason]]
    judge = judge_of(server.url, tmp_path)
    assert preferences(judge, (3, 1)) == [FIRST]
    assert len(server.seen) == 3
    assert judge.account()["failures"] == {}


@pytest.mark.parametrize("reason", FAULTS)
def test_what_does_not_pass_is_a_counted_error_and_the_others_are_judged(
    reason: str, server: ChatServer, tmp_path: Path
) -> None:
    server.faults = [None, *[FAULTS[reason]] * 3]
    judge = judge_of(server.url, tmp_path)
    found = judged(judge, *GOOD)
    assert [judgement.preference for judgement in found] == [FIRST, ERROR, TIE]
    assert found[1].reason == reason
    assert judge.account()["failures"] == {reason: 1}
    assert len(server.seen) == 5


@pytest.mark.parametrize("slow", [hang, drip])
def test_a_slow_answer_is_a_time_out_even_when_it_trickles(slow: Any, server: ChatServer, tmp_path: Path) -> None:
    server.faults = [None, slow, slow]
    judge = judge_of(server.url, tmp_path, timeout=0.5, retries=1)
    assert preferences(judge, *GOOD) == [FIRST, ERROR, TIE]
    assert judge.account()["failures"] == {"time-out": 1}


def test_a_wait_that_is_asked_for_is_kept(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    monkeypatch.setattr(Pace, "hold", lambda self, seconds: held.append(seconds))
    server.faults = [status(429, retry_after="7"), status(503, retry_after="11")]
    assert preferences(judge_of(server.url, tmp_path, backoff=1000.0), (3, 1)) == [FIRST]
    assert held == [7.0, 11.0]


def test_no_wait_follows_the_last_try(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    monkeypatch.setattr(Pace, "hold", lambda self, seconds: held.append(seconds))
    server.faults = [None, *[status(429, retry_after="7")] * 3]
    assert preferences(judge_of(server.url, tmp_path), *GOOD) == [FIRST, ERROR, TIE]
    assert held == [7.0, 7.0]


def test_a_wait_that_is_too_long_gives_the_question_up(server: ChatServer, tmp_path: Path) -> None:
    server.faults = [None, status(429, retry_after="61")]
    assert preferences(judge_of(server.url, tmp_path, longest_wait=60.0), *GOOD) == [FIRST, ERROR, TIE]
    assert len(server.seen) == 3


def test_a_refusal_of_one_question_is_not_tried_again(server: ChatServer, tmp_path: Path) -> None:
    server.faults = [status(400, {"error": {"message": "too   long"}})]
    judge = judge_of(server.url, tmp_path)
    assert preferences(judge, *GOOD) == [ERROR, SECOND, TIE]
    assert judge.account()["failures"] == {"status 400: too long": 1}
    assert len(server.seen) == 3


def test_a_reply_without_verdict_is_a_counted_error_and_kept_unless_it_is_empty(
    server: ChatServer, tmp_path: Path
) -> None:
    server.faults = [says("Both are fine."), says(None)]
    judge = judge_of(server.url, tmp_path)
    assert judged(judge, *GOOD)[0] == Judgement(ERROR, "Both are fine.")
    assert judge.account()["failures"] == {"no verdict": 2}
    first, second, third = preferences(judge_of(server.url, tmp_path), *GOOD)
    assert (first, third) == (ERROR, TIE)
    assert second is not ERROR
    assert len(server.seen) == 4


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (401, "set the environment variable OPENAI_API_KEY to a key that it knows"),
        (403, "use a key (OPENAI_API_KEY) that may use this model, or another judge.model"),
        (404, "check judge.base_url, which ends in /v1 as a rule, and judge.model"),
    ],
)
def test_what_no_try_can_repair_stops_at_once_with_the_remedy(
    code: int, remedy: str, server: ChatServer, tmp_path: Path
) -> None:
    server.faults = [status(code, {"error": {"message": "no, you may not"}})] * 9
    assert refused(judge_of(server.url, tmp_path), *GOOD) == (
        f"judge.base_url: '{server.url}': got status {code} (OPENAI_API_KEY is not set): no, you may not; expected an "
        f"answer; {remedy}"
    )
    assert len(server.seen) == 1


def test_a_refusal_is_reported_once_however_many_ask(server: ChatServer, tmp_path: Path) -> None:
    server.faults = [status(401)] * 99
    reported = refused(judge_of(server.url, tmp_path, parallel=4), *[(i, 0) for i in range(40)])
    assert "got status 401" in reported
    assert len(server.seen) <= 4


def test_a_thread_that_gives_up_first_does_not_hide_the_reason(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = iter([Stopped(), ServiceError("the reason")])

    def ask(self: Endpoint, body: Any) -> Any:
        raise next(ends)

    monkeypatch.setattr(Endpoint, "ask", ask)
    assert refused(judge_of(server.url, tmp_path), (1, 0), (2, 0)) == "the reason"


def test_a_judge_that_is_down_is_reported_before_the_second_question(server: ChatServer, tmp_path: Path) -> None:
    url = server.url
    server.shutdown()
    server.server_close()
    assert refused(judge_of(url, tmp_path), *GOOD) == (
        f"judge.base_url: '{url}' has not answered once in 3 tries (connection error (ConnectError)); expected a "
        "chat-completions endpoint; start it, or give another judge.base_url"
    )


def test_a_judge_is_greeted_before_the_first_question_and_not_missed_where_replies_are_kept(
    server: ChatServer, tmp_path: Path
) -> None:
    judge = judge_of(server.url, tmp_path)
    judge.start()
    assert server.seen == []
    asked = preferences(judge, *GOOD)
    server.shutdown()
    server.server_close()
    again = judge_of(server.url, tmp_path)
    again.start()
    assert preferences(again, *GOOD) == asked
    with pytest.raises(ServiceError, match="does not answer"):
        judge_of(server.url, tmp_path / "elsewhere").start()


def test_a_judge_that_breaks_down_ends_the_judging_after_so_many_errors_in_a_row(
    server: ChatServer, tmp_path: Path
) -> None:
    server.faults = [None, status(500), None, *[status(500)] * 99]
    reported = refused(judge_of(server.url, tmp_path, retries=0, stop_after=2), *[(i, 0) for i in range(1, 61)])
    assert reported == (
        f"judge.stop_after: 2 comparisons in a row failed at '{server.url}', the last one by: status 500; expected "
        "verdicts; see whether the endpoint works and whether judge.template suits the model; the same command goes on "
        "from what was answered"
    )
    assert 5 <= len(server.seen) < 60  # the fifth ends it, while others may be under way


def test_errors_with_answers_between_them_do_not_end_the_judging(server: ChatServer, tmp_path: Path) -> None:
    server.faults = [None, status(500)] * 3
    judge = judge_of(server.url, tmp_path, retries=0, stop_after=2)
    assert preferences(judge, *[(i, 0) for i in range(1, 7)]) == [FIRST, ERROR] * 3


def test_null_never_gives_up(server: ChatServer, tmp_path: Path) -> None:
    server.faults = [status(500)] * 3
    judge = judge_of(server.url, tmp_path, retries=0, stop_after=None)
    assert preferences(judge, *GOOD) == [ERROR] * 3


# --- many at once -----------------------------------------------------------------------------------------------------


def test_requests_are_under_way_side_by_side_and_the_order_is_kept(server: ChatServer, tmp_path: Path) -> None:
    together = threading.Barrier(4, timeout=10)  # breaks unless four are under way at once

    def slow(first: str, second: str) -> str:
        together.wait()
        return larger(first, second)

    server.verdict = slow
    pairs = [(i % 3, 1) for i in range(12)]
    expected = [{0: SECOND, 1: TIE, 2: FIRST}[a] for a, _ in pairs]
    assert preferences(judge_of(server.url, tmp_path, parallel=4), *pairs) == expected


def test_a_rate_limit_holds_for_all_threads_together(server: ChatServer, tmp_path: Path) -> None:
    begun = []
    original = Pace._take

    class Watched(Pace):
        def _take(self) -> float:
            delay = original(self)
            if delay == 0:
                begun.append(self._free)
            return delay

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rrl.parts.judges.openai.Pace", Watched)
        judged(judge_of(server.url, tmp_path, parallel=4, requests_per_minute=1200.0), *[(i, 0) for i in range(6)])
    gaps = [after - before for before, after in zip(sorted(begun), sorted(begun)[1:], strict=False)]
    assert len(gaps) == 5
    assert min(gaps) >= 0.05 - 1e-9  # 60 seconds / 1200


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_stands_nowhere_else(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("MY_JUDGE", KEY)
    caplog.set_level(logging.DEBUG)
    server.faults = [None, says(f"Your key is {KEY}\nVerdict: B"), status(400, {"error": {"message": f"bad {KEY}"}})]
    judge = judge_of(server.url, tmp_path, api_key_env="MY_JUDGE")
    found = judged(judge, *GOOD)
    assert server.keys == [f"Bearer {KEY}"] * 3
    assert found[1] == Judgement(SECOND, "Your key is <MY_JUDGE>\nVerdict: B")
    assert found[2].reason == "status 400: bad <MY_JUDGE>"
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert KEY not in "".join([*files, *map(str, found), repr(judge), json.dumps(judge.account()), caplog.text])
    assert KEY not in "".join(capfd.readouterr())


def test_a_refused_key_is_not_shown(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.faults = [status(401, {"error": {"message": f"Incorrect API key provided: {KEY}."}})]
    reported = refused(judge_of(server.url, tmp_path), (3, 1))
    assert "got status 401: Incorrect API key provided: <OPENAI_API_KEY>.; expected" in reported


@pytest.mark.parametrize("value", ["sk-fake\u00e9secret", "sk-fake\nsecret"])
def test_a_key_that_cannot_be_sent_is_reported_before_anything_is_written_and_not_shown(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(ConfigError, match=r"judge\.api_key_env: the value of OPENAI_API_KEY cannot be sent") as caught:
        judge_of("http://127.0.0.1:9/v1", tmp_path).start()
    assert "secret" not in str(caught.value)
