"""Honest programs print and end alike under every isolation and under plain ``python program.py < input | cat``."""

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fixtures_sandbox import LIMITS, run, working
from rrl.sandbox.isolation import LEVELS
from rrl.sandbox.sandbox import Sandbox

SECTIONS = Path(__file__).with_name("fixtures_honest.txt").read_text(encoding="utf-8").split("\n=== ")[1:]
PROGRAMS = [pytest.param(source, id=name) for name, _, source in (section.partition("\n") for section in SECTIONS)]
GIVEN = "a b\r\nc é\r\n\ud83dx\n3"
"""Ends of lines of two kinds, a letter beyond ASCII, half of a letter, and no end of the last line."""


@pytest.fixture(scope="module", params=LEVELS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    made = Sandbox(limits=LIMITS, workers=1, isolation=working(request.param))
    yield made
    made.close()


@cache
def plain(source: str) -> tuple[bool, str]:
    """Whether an interpreter of its own ends with 0, and what it prints."""
    with TemporaryDirectory() as home:
        program, given, empty = (Path(home) / name for name in ("program.py", "input", "empty"))
        program.write_text(source, encoding="utf-8", newline="")
        given.write_bytes(GIVEN.encode("utf-8", "surrogatepass"))
        empty.mkdir()
        with given.open("rb") as file:
            done = subprocess.run(
                [sys.executable, program], stdin=file, capture_output=True, cwd=empty, env={"PYTHONHASHSEED": "0"}
            )
    return done.returncode == 0, done.stdout.decode("utf-8", "replace")


@pytest.mark.parametrize("source", PROGRAMS)
def test_an_honest_program_prints_and_ends_as_under_plain_python(sandbox: Sandbox, source: str) -> None:
    ends, printed = plain(source)
    found = run(sandbox, source, GIVEN)
    assert (found.status == "ended", found.value) == (ends, printed if ends else None)
