"""The table of mutants fits the tree, and what tries them distinguishes the killed from the others."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

import mutants

TESTS = Path(mutants.__file__).parent
SUMS = "def add(a, b):\n    return a + b\n"
CLAIMS = """
import pytest
from sums import add

def test_0():
    assert add(0, 0) == 0

def test_1():
    assert add(1, 1) > 1

@pytest.mark.parametrize("number", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_3(number):
    assert add(number, number) > number
"""
"""Of the third claim the slow case is wrong."""
PROGRAM = """
import sys
from pathlib import Path
sys.path[:1] = [sys.argv[1]]
import mutants
sys.exit(mutants.main(["-j", "2"], Path(sys.argv[2]), Path(sys.argv[2], "table.yaml"), ()))
"""


def test_every_mutant_changes_one_place_and_names_a_test_that_is_there() -> None:
    table = mutants.read(mutants.TABLE)
    assert [fault for mutant in table for fault in mutant.faults(mutants.ROOT)] == []
    assert len(table) >= 250
    assert [mutant for mutant in table if mutant.old == mutant.new] == []


def tried(tmp_path: Path, *rows: tuple[str, str, str]) -> tuple[int, list[str]]:
    """The exit code for mutants of a sum, and the verdicts that are reported."""
    for name, text in (("src/sums.py", SUMS), ("tests/test_sums.py", CLAIMS)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    named = [{"old": old, "new": new, "test": f"tests/test_sums.py::{test}"} for old, new, test in rows]
    (tmp_path / "table.yaml").write_text(yaml.safe_dump({"src/sums.py": named}))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(TESTS), str(tmp_path)], capture_output=True, text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    firsts = [line.split(" ")[0] for line in done.stdout.splitlines()]
    return done.returncode, sorted(word for word in firsts if word in ("killed", "survived", "error"))


def test_a_mutant_that_its_test_does_not_notice_or_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    rows = [("a + b", "a - b", "test_1"), ("a + b", "a - b", "test_0"), ("a * b", "a - b", "test_1"),
            ("a + b", "a - b", "test_2"), ("a + b", "a +", "test_1")]  # fmt: skip
    assert tried(tmp_path, *rows) == (1, ["error", "error", "error", "killed", "survived"])


def test_slow_cases_are_left_out(tmp_path: Path) -> None:
    assert tried(tmp_path, ("a + b", "a - b", "test_3")) == (0, ["killed"])


def test_where_every_mutant_is_killed_all_is_well_and_the_tree_is_as_it_was(tmp_path: Path) -> None:
    assert tried(tmp_path, ("a + b", "a - b", "test_1"), ("a + b", "a", "test_1")) == (0, ["killed", "killed"])
    assert (tmp_path / "src" / "sums.py").read_text() == SUMS
