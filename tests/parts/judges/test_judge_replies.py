"""Replies of a judge behind an endpoint: what is kept, and what it costs."""

from pathlib import Path
from typing import Any

import pytest

from fixtures.judge_server import ChatServer, comparisons, judge_of, status
from fixtures.judges import ERROR, FIRST, GOOD, SECOND, TIE, judged, preferences
from rrl.types import Comparison

pytestmark = pytest.mark.clock


def test_nothing_is_asked_twice(server: ChatServer, tmp_path: Path) -> None:
    first = judged(judge_of(server.url, tmp_path), *GOOD, (3, 1))
    again = judge_of(server.url, tmp_path)
    assert judged(again, *GOOD, (3, 1)) == first
    assert len(server.seen) == 4
    assert again.account()["kept_from_before"]["replies"] == 4


def test_equal_comparisons_are_asked_once(server: ChatServer, tmp_path: Path) -> None:
    judge = judge_of(server.url, tmp_path)
    same = [Comparison("q", "1", "2"), Comparison("q", "2", "1"), Comparison("q", "1", "2")]
    found = judge.judge(same, lambda progress, metrics: None)
    assert [judgement.preference for judgement in found] == [SECOND, FIRST, SECOND]
    assert (len(server.seen), judge.account()["paid_now"]["replies"]) == (2, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "another-judge"},
        {"temperature": 0.5},
        {"max_tokens": 8},
        {"extra": {"seed": 1}},
        {"template": "{question} FIRST:{first}\nSECOND:{second}\n Verdict: A, Verdict: B, Verdict: tie"},
    ],
)
def test_whatever_goes_into_a_request_makes_another_one(
    change: dict[str, Any], server: ChatServer, tmp_path: Path
) -> None:
    judged(judge_of(server.url, tmp_path), (3, 1))
    judged(judge_of(server.url, tmp_path, **change), (3, 1))
    assert len(server.seen) == 2


def test_another_order_another_answer_and_another_endpoint_are_other_requests(
    server: ChatServer, tmp_path: Path
) -> None:
    judged(judge_of(server.url, tmp_path), (3, 1))
    judged(judge_of(server.url, tmp_path), (1, 3))
    judged(judge_of(server.url, tmp_path), (3, 2))
    judged(judge_of(server.url.replace("127.0.0.1", "localhost"), tmp_path), (3, 1))
    assert len(server.seen) == 4


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"text": "Verd'])
def test_a_damaged_file_is_asked_for_anew(damage: bytes, server: ChatServer, tmp_path: Path) -> None:
    judged(judge_of(server.url, tmp_path), (3, 1))
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    file.write_bytes(damage)
    assert preferences(judge_of(server.url, tmp_path), (3, 1)) == [FIRST]
    assert preferences(judge_of(server.url, tmp_path), (3, 1)) == [FIRST]
    assert len(server.seen) == 2


def test_an_interrupted_judging_goes_on_without_paying_twice(server: ChatServer, tmp_path: Path) -> None:
    pairs = [(i, 0) for i in range(1, 61)]

    def interrupt(progress: float, metrics: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge_of(server.url, tmp_path).judge(comparisons(*pairs), interrupt)
    paid = len(server.seen)
    assert 1 <= paid < 60  # what was under way is waited for and kept; what has not begun is not asked
    again = judge_of(server.url, tmp_path)
    assert preferences(again, *pairs) == [FIRST] * 60
    assert len(server.seen) == 60
    assert again.account()["kept_from_before"]["replies"] == paid
    assert again.account()["paid_now"]["replies"] == 60 - paid


def test_who_waits_to_try_again_does_not_delay_an_interruption(server: ChatServer, tmp_path: Path) -> None:
    server.faults = [None, status(500)]

    def interrupt(progress: float, metrics: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge_of(server.url, tmp_path, backoff=1000.0, longest_wait=1000.0).judge(comparisons(*GOOD), interrupt)


def test_failed_questions_are_asked_again_by_the_same_command(server: ChatServer, tmp_path: Path) -> None:
    server.faults = [None, *[status(500)] * 3]
    assert preferences(judge_of(server.url, tmp_path), *GOOD) == [FIRST, ERROR, TIE]
    assert preferences(judge_of(server.url, tmp_path), *GOOD) == [FIRST, SECOND, TIE]
    assert len(server.seen) == 6


def test_costs_are_those_of_the_counted_tokens(server: ChatServer, tmp_path: Path) -> None:
    prices = {"price_prompt": 2.5, "price_completion": 10.0}
    judge = judge_of(server.url, tmp_path, **prices)
    judged(judge, *GOOD)
    # 300 tokens at 2.5 and 30 at 10 a million: 0.00075 + 0.0003.
    paid = {"replies": 3, "prompt_tokens": 300, "completion_tokens": 30, "cost": pytest.approx(0.00105)}
    nothing = {"replies": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost": 0.0}
    assert judge.account() == {
        "judge": "openai", "base_url": server.url, "model": "some-judge", "temperature": 0.0,
        "paid_now": paid, "kept_from_before": nothing, "failures": {},
    }  # fmt: skip
    again = judge_of(server.url, tmp_path, **prices)
    judged(again, *GOOD)
    assert (again.account()["paid_now"], again.account()["kept_from_before"]) == (nothing, paid)


def test_without_prices_tokens_are_counted_alone(server: ChatServer, tmp_path: Path) -> None:
    judge = judge_of(server.url, tmp_path)
    judged(judge, (3, 1))
    assert judge.account()["paid_now"] == {
        "replies": 1, "prompt_tokens": 100, "completion_tokens": 10, "cost": None,
    }  # fmt: skip
