"""What is asked of a sandbox's server goes through it in parts, and its filter finds each system call by halves."""

import struct
from typing import Any

import pytest

from rrl.sandbox.inside import calls
from rrl.sandbox.inside.request import packed, program, split

AT_LEAST, RETURN = 0x35, 0x06
"""As linux/bpf_common.h has them: BPF_JMP | BPF_JGE | BPF_K and BPF_RET | BPF_K."""


@pytest.mark.parametrize(
    ("asked", "made", "read", "understood"),
    [
        (("é", None, "7\n"), b"\0\0\0\2\0\0\0\0\xc3\xa9", b"7\n", ("é", None)),
        (("", None, ""), b"\0\0\0\0\0\0\0\0", b"", ("", None)),
        (("x", None, "\ud83d"), b"\0\0\0\1\0\0\0\0x", b"\xed\xa0\xbd", ("x", None)),
        (("\ud83d", "f", []), b'\0\0\0\3\0\0\0\x09\xed\xa0\xbd["f", []]', b"", ("\ud83d", ["f", []])),
        (("x", "", ["é", None]), b'\0\0\0\1\0\0\0\x16x["", ["\\u00e9", null]]', b"", ("x", ["", ["é", None]])),
    ],
)
def test_a_request_falls_into_a_program_and_what_it_reads(
    asked: Any, made: bytes, read: bytes, understood: Any
) -> None:
    assert tuple(map(bytes, split(packed(*asked)))) == (made, read)
    assert program(made) == understood


def test_a_verdict_on_calls_holds_until_the_next() -> None:
    allow, refuse, unknown = 0x7FFF0000, 0x50001, 0x50026
    assert calls._verdicts({1, 2, 5, 404}) == [
        (0, refuse), (1, allow), (3, refuse), (5, allow), (6, refuse), (403, unknown), (404, allow), (405, unknown),
    ]  # fmt: skip


@pytest.mark.parametrize(("number", "verdict"), [(0, 7), (1, 7), (2, 8), (4, 8), (5, 9), (2**32 - 1, 9)])
def test_a_search_by_halves_ends_at_the_verdict(number: int, verdict: int) -> None:
    code = [struct.unpack("=HBBI", each) for each in calls._search([(0, 7), (2, 8), (5, 9)])]
    place = 0
    while code[place][0] == AT_LEAST:
        place += 1 + code[place][1 if number >= code[place][3] else 2]
    assert code[place] == (RETURN, 0, 0, verdict)
