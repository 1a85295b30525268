"""Nothing passes from one run of the sandbox to the next, and nothing that a test expects is ever in reach."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.sandbox import other, run, runs, working
from fixtures.traces import FUNCTION, LEAVES, MARK, MEMORY, NAMES, SPEAKER
from rrl.sandbox.isolation import LEVELS
from rrl.sandbox.sandbox import Sandbox


@pytest.fixture(scope="module", params=LEVELS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    made = Sandbox(limits=other(cpu_seconds=8.0, wall_seconds=60.0), workers=1, isolation=working(request.param))
    for number in range(3):
        source = f"{SPEAKER}\n# {MARK}10000{number}"
        runs(made, source, (f"{MARK}600006", f"{MARK}600005"))
        runs(made, FUNCTION, ([f"{MARK}600007"], ["x" * 10**6 + f"{MARK}600008"]), "f")
        run(made, LEAVES)
    yield made
    made.close()


def test_the_memory_of_a_program_holds_nothing_of_those_before_it(sandbox: Sandbox) -> None:
    assert run(sandbox, MEMORY).value == "True []\n"


def test_a_search_of_memory_finds_what_is_there(sandbox: Sandbox) -> None:
    assert run(sandbox, f'kept = "{MARK}800008"\n{MEMORY}').value == "True [800008]\n"


def test_files_descriptors_and_names_hold_nothing_of_those_before(sandbox: Sandbox) -> None:
    assert run(sandbox, NAMES).value == "[]\n"


def test_no_word_that_is_looked_for_stands_in_who_looks() -> None:
    assert MARK not in MEMORY + NAMES
    assert MARK in (Path(__file__).parents[1] / "fixtures" / "traces.py").read_text()
