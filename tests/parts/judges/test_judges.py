"""A reward model as judge; the words, the waits and the settings of one that is asked over the network."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.judge_server import (
    KEY,
    judge_of,
)
from rrl.contracts.judging import RewardModel
from rrl.errors import UsageError
from rrl.parts.judges.endpoint import Patience, seconds_asked
from rrl.parts.judges.pace import Pace, Stopped
from rrl.parts.judges.replies import Reply, read_reply
from rrl.parts.judges.reward_model import RewardModelJudge
from rrl.parts.judges.wording import check_template, fill, read_verdict
from rrl.types import Comparison, Judgement, Preference

FIRST, SECOND, TIE, ERROR = Preference


# --- a reward model ---------------------------------------------------------------------------------------------------


class Lengths(RewardModel):
    """Scores an answer by its length, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.asked += pairs
        return [float("nan") if answer == "?" else float(len(answer)) for _, answer in pairs]

    def described(self) -> dict[str, Any]:
        return {"path": "lengths"}


@pytest.mark.parametrize(
    ("first", "second", "margin", "expected"),
    [
        ("aaa", "a", 0.0, FIRST),
        ("a", "aaa", 0.0, SECOND),
        ("aa", "bb", 0.0, TIE),
        ("aaa", "a", 2.0, TIE),
        ("a", "aaa", 2.0, TIE),
        ("aaaa", "a", 2.0, FIRST),
        ("?", "a", 9.0, ERROR),
        ("a", "?", 9.0, ERROR),
    ],
)
def test_a_reward_model_prefers_the_higher_score_beyond_the_margin(
    first: str, second: str, margin: float, expected: Preference
) -> None:
    judge = RewardModelJudge(reward_model=Lengths(), tie_margin=margin)
    (judgement,) = judge.judge([Comparison("q", first, second)], lambda progress, metrics: None)
    assert judgement.preference is expected


def test_a_reward_model_scores_an_answer_once_whatever_the_order() -> None:
    reward_model = Lengths()
    both = [Comparison("q", "aa", "b"), Comparison("q", "b", "aa"), Comparison("r", "aa", "b")]
    found = RewardModelJudge(reward_model=reward_model, tie_margin=0.0).judge(both, lambda progress, metrics: None)
    assert reward_model.asked == [("q", "aa"), ("q", "b"), ("r", "aa"), ("r", "b")]
    assert found == [Judgement(FIRST, "scores 2 and 1"), Judgement(SECOND, "scores 1 and 2"), found[0]]


def test_a_reward_judge_without_a_reward_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^reward_model: missing; choose one, as in reward_model=sequence"):
        RewardModelJudge(reward_model=None, tie_margin=0.0)
    with pytest.raises(ValueError, match=r"^tie_margin: .*-1"):
        RewardModelJudge(reward_model=Lengths(), tie_margin=-1)


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Verdict: A", FIRST),
        ("B is worse.\nVerdict: A\n\n", FIRST),
        ("Verdict: A\nOn reflection:\n  Verdict: B  ", SECOND),
        ("Verdict: tie", TIE),
        ("verdict: a", ERROR),
        ("Verdict: A.", ERROR),
        ("Verdict: A or B", ERROR),
        ("Verdict: A\nI hope that helps!", ERROR),
        ("A", ERROR),
        ("", ERROR),
        ("\n \n", ERROR),
    ],
)
def test_a_verdict_is_the_last_line_and_nothing_else(reply: str, expected: Preference) -> None:
    assert read_verdict(reply) is expected


def test_braces_in_an_answer_are_text() -> None:
    comparison = Comparison("what is {second}?", "{first} {question}", "{x} \\1")
    assert fill("{question}|{first}|{second}|{z}", comparison) == "what is {second}?|{first} {question}|{x} \\1|{z}"


def test_the_mark_depends_on_all_that_is_compared_so_that_no_answer_can_hold_it() -> None:
    pairs = [("q", "a", "b"), ("q", "b", "a"), ("r", "a", "b"), ("q", "a", "b [End a]")]
    marks = [fill("{mark}", Comparison(*pair)) for pair in pairs]
    assert len(set(marks)) == 4
    assert all(len(mark) == 8 for mark in marks)


def test_a_template_without_its_places_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^template: expected '\{second\}', 'Verdict: tie' in it"):
        check_template("{question} {first} Verdict: A Verdict: B")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"choices": []}', b'{"choices": [{"message": {"content": 5}}]}', b"\xff"]
)
def test_what_is_no_chat_completion_is_distinguished_from_one(content: bytes) -> None:
    with pytest.raises(ValueError):
        read_reply(content)


def test_a_reply_may_lack_usage_and_text() -> None:
    assert read_reply(b'{"choices": [{"message": {"content": null}}], "usage": null}') == Reply("", 0, 0)


# --- waiting ----------------------------------------------------------------------------------------------------------


class Time:
    """A clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.now, self.waits = 100.0, list[float]()

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False


def pace(interval: float) -> tuple[Pace, Time]:
    time = Time()
    return Pace(interval, lambda: time.now, time.wait), time


def test_turns_come_at_the_rate_that_is_asked_for() -> None:
    paced, time = pace(interval=2.0)
    begun = []
    for _ in range(4):
        paced.turn()
        begun.append(time.now)
        time.now += 0.5  # of work
    assert begun == [100.0, 102.0, 104.0, 106.0]


def test_a_late_turn_is_no_credit_for_the_next() -> None:
    paced, time = pace(interval=2.0)
    paced.turn()
    time.now += 60
    paced.turn()
    paced.turn()
    assert time.waits == [2.0]


def test_quiet_holds_for_every_thread_and_is_never_shortened() -> None:
    paced, time = pace(interval=1.0)
    paced.hold(30.0)
    paced.hold(5.0)
    paced.turn()
    assert time.now == 130.0


def test_who_waits_when_the_work_is_to_stop_gives_up() -> None:
    stopped = Pace(1.0, lambda: 0.0, lambda seconds: True)
    stopped.turn()
    with pytest.raises(Stopped):
        stopped.turn()


def test_waits_double_up_to_the_longest_and_their_upper_half_is_drawn() -> None:
    class Draw(random.Random):
        def random(self) -> float:
            return 0.5

    patience = Patience(timeout=1.0, retries=9, backoff=2.0, longest_wait=10.0)
    # 2, 4, 8, 10, 10 times (1 + 0.5) / 2.
    assert [patience.wait(attempt, Draw()) for attempt in range(5)] == [1.5, 3.0, 6.0, 7.5, 7.5]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("1.5", 1.5),
        # The example of RFC 9110, 10.2.3: Fri, 31 Dec 1999 23:59:59 GMT is 946684799 seconds after the epoch.
        ("Fri, 31 Dec 1999 23:59:59 GMT", 59.0),
        ("Fri, 31 Dec 1999 23:58:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert seconds_asked(header, now=946684740.0) == seconds


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ({"model": None}, "^model: missing; give a name that the endpoint knows"),
        ({"base_url": "ftp://x"}, "^base_url: expected http"),
        ({"base_url": "http://a:b:c/v1"}, "^base_url: expected http"),
        ({"base_url": "http://[::1/v1"}, "^base_url: expected http"),
        ({"base_url": "127.0.0.1:8000/v1"}, "^base_url: expected http"),
        ({"parallel": 0}, "^parallel: .*0"),
        ({"requests_per_minute": 0.0}, "^requests_per_minute: .*0"),
        ({"timeout": 0.0}, "^timeout: .*0"),
        ({"retries": -1}, "^retries: .*-1"),
        ({"backoff": -1.0}, "^backoff: .*-1"),
        ({"stop_after": 0}, "^stop_after: .*0"),
        ({"price_prompt": 1.0}, "^price_prompt, price_completion: expected both or none"),
    ],
)
def test_settings_refuse_what_cannot_be(change: dict[str, Any], reported: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reported):
        judge_of("http://127.0.0.1:9/v1", tmp_path, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": f"https://me:{KEY}@host/v1"},
        {"base_url": f"https://host/v1?key={KEY}"},
        {"api_key_env": KEY},
        {"api_key_env": KEY.replace("-", "_")},
    ],
)
def test_a_secret_in_the_configuration_is_refused_and_not_repeated(change: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^(base_url|api_key_env): expected") as caught:
        judge_of(**{"url": "http://127.0.0.1:9/v1", "folder": tmp_path, **change})
    assert KEY[-6:] not in str(caught.value)


def test_a_place_where_no_reply_can_be_kept_is_reported_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"RRL_CACHE: nothing can be written in"):
        judge_of("http://127.0.0.1:9/v1", tmp_path / "file").start()
