"""Ranks that hear of one another, one that falls silent, and the interface by which they talk."""

import os
import time

import pytest

from fixtures.ranks import on_ranks
from rrl.processes import network, signs_of_life
from rrl.processes.distributed import gathered, rank
from rrl.processes.network import choose_interface
from rrl.processes.signs_of_life import SignsOfLife

pytestmark = pytest.mark.ranks
PASSED = 1.0
"""Seconds that are said to have passed between two looks."""


def _silences(signs: SignsOfLife) -> dict[int, float]:
    """For how long each peer has been silent after four looks; in between there is time for some signs."""
    for _ in range(4):
        time.sleep(0.2)
        longest = signs.longest_silence(PASSED)
    assert longest[1] == max(signs._silence.values())
    gathered(None)
    return dict(signs._silence)


def _conversation() -> list[dict[int, float]]:
    signs_of_life.EVERY = 0.02
    signs = SignsOfLife()
    time.sleep(0.5)
    gathered(None)
    both = _silences(signs)
    if rank() == 1:
        signs.end()
    if rank() == 2:
        signs._peers = lambda *_: [0]  # type: ignore[method-assign]  # as if its host had gone
    time.sleep(0.2)
    signs.longest_silence(0.0)
    gathered(None)
    return [both, _silences(signs)]


def test_the_first_rank_finds_out_who_is_silent_but_is_not_worried_by_one_that_has_left() -> None:
    first, second, third = on_ranks(3, _conversation)
    assert [both for both, _ in (first, second, third)] == [{1: 0.0, 2: 0.0}, {0: 0.0}, {0: 0.0}]
    assert (first[1], third[1]) == ({1: 0.0, 2: 4 * PASSED}, {0: 0.0})


def _first_that_does_not_answer() -> float:
    signs_of_life.EVERY = 0.02
    signs = SignsOfLife()
    time.sleep(0.5)
    gathered(None)
    signs.longest_silence(0.0)
    if rank() == 1:
        signs._peers = lambda *_: time.sleep(60)  # type: ignore[method-assign,func-returns-value]  # no answer comes
    time.sleep(0.1)
    signs.longest_silence(0.0)
    return signs.longest_silence(PASSED)[1] + signs.longest_silence(PASSED)[1]


def test_other_ranks_find_out_that_the_first_one_does_not_answer() -> None:
    assert on_ranks(2, _first_that_does_not_answer)[1] == 3 * PASSED


def test_one_process_alone_has_nobody_to_hear_of() -> None:
    assert SignsOfLife().longest_silence(1e9) == (-1, 0.0)


@pytest.mark.parametrize(
    ("name", "towards", "given", "chosen"),
    [
        ("127.0.1.1", "10.1.2.3", {}, "eth7"),  # as Debian has it
        (None, "10.1.2.3", {}, "eth7"),  # a name that nobody knows
        ("10.9.9.9", "10.1.2.3", {}, None),
        ("127.0.1.1", "127.0.0.1", {}, None),  # all on this host
        ("127.0.1.1", "10.1.2.3", {"GLOO_SOCKET_IFNAME": "ib0"}, "ib0"),
    ],
)
def test_processes_talk_by_the_interface_that_leads_to_the_first_one(
    monkeypatch: pytest.MonkeyPatch, name: str | None, towards: str, given: dict[str, str], chosen: str | None
) -> None:
    kept = {key: value for key, value in os.environ.items() if key != "GLOO_SOCKET_IFNAME"}
    monkeypatch.setattr(os, "environ", kept | {"MASTER_ADDR": "first"} | given)
    monkeypatch.setattr(network, "_address", lambda host: name)
    monkeypatch.setattr(network, "_towards", {"first": towards}.get)
    monkeypatch.setattr(network, "_interface", {"10.1.2.3": "eth7"}.get)
    choose_interface()
    assert os.environ.get("GLOO_SOCKET_IFNAME") == chosen


def test_the_interface_of_an_address_is_found() -> None:
    assert (network._towards("127.0.0.1"), network._interface("127.0.0.1")) == ("127.0.0.1", "lo")
    assert network._interface("192.0.2.7") is None  # of documentation, RFC 5737
