"""Honest programs print, return and fail as under plain ``python program.py < input | cat``, whatever the isolation."""

import subprocess
import sys
import venv
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fixtures.sandbox import LIMITS, reported, run, working
from rrl.sandbox.isolation import LEVELS
from rrl.sandbox.sandbox import Sandbox

SECTIONS = (Path(__file__).parents[1] / "fixtures" / "honest.txt").read_text(encoding="utf-8").split("\n=== ")[1:]
PROGRAMS = [pytest.param(source, id=name) for name, _, source in (section.partition("\n") for section in SECTIONS)]
GIVEN = "a b\r\nc é\r\n\ud83dx\n3"
"""Ends of lines of two kinds, a letter beyond ASCII, half of a letter, and no end of the last line."""


@pytest.fixture(scope="module", params=["auto", *(pytest.param(level, marks=pytest.mark.slow) for level in LEVELS)])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    made = Sandbox(limits=LIMITS, workers=1, isolation=working(request.param))
    yield made
    made.close()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter without installed packages, which starts in half the time."""
    home = tmp_path_factory.mktemp("python")
    venv.create(home, symlinks=True)
    return home / "bin" / "python"


@cache
def plain(python: Path, source: str) -> tuple[bool, str]:
    """Whether an interpreter of its own ends with 0, and what it prints."""
    with TemporaryDirectory() as home:
        program, given, empty = (Path(home) / name for name in ("program.py", "input", "empty"))
        program.write_text(source, encoding="utf-8", newline="")
        given.write_bytes(GIVEN.encode("utf-8", "surrogatepass"))
        empty.mkdir()
        with given.open("rb") as file:
            done = subprocess.run(
                [python, program], stdin=file, capture_output=True, cwd=empty, env={"PYTHONHASHSEED": "0"}
            )
    return done.returncode == 0, done.stdout.decode("utf-8", "replace")


@pytest.mark.parametrize("source", PROGRAMS)
def test_an_honest_program_prints_and_ends_as_under_plain_python(sandbox: Sandbox, python: Path, source: str) -> None:
    ends, printed = plain(python, source)
    found = run(sandbox, source, GIVEN)
    assert (found.status == "ended", found.value) == (ends, printed if ends else None)


# --- what they print and return --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "printed"),
    [
        ("print(input(), input())", "a b\n"),
        ("import sys\nprint(sys.stdin.read().split())", "['a', 'b']\n"),
        ("import sys\nprint(sys.stdin.buffer.readline())", "b'a\\n'\n"),
        ("import os\nprint(os.read(0, 99))", "b'a\\nb\\n'\n"),
        ("print(open(0).read())", "a\nb\n\n"),
        ("import sys\nfor line in sys.stdin: print(line.strip(), end='')", "ab"),
        ("if __name__ == '__main__': print(1)", "1\n"),
        ("import sys\nprint(1)\nsys.exit()", "1\n"),
        ("print(1)\nexit(0)", "1\n"),
        ("import threading as t\nt.Timer(0.2, print, (1,)).start()", "1\n"),
        ("import threading as t\nfor _ in range(5): t.Timer(0.1, print, (1,)).start()", "1\n" * 5),
        (  # with heaps of their own there would be room for four
            "import threading, time\nfor _ in range(7):\n threading.Thread(target=time.sleep, args=(0.1,)).start()\n"
            " time.sleep(0.002)\nprint(1)",
            "1\n",
        ),
        ("import os\nprint(dict(os.environ))", "{}\n"),
        ("import random\nprint(random.random())", "0.8444218515250481\n"),
        ("import atexit\natexit.register(print, 1)", "1\n"),
        ("out = open(1, 'w')\nout.write('1')", "1"),
        ("import sys, io\nsys.stdout = io.StringIO()\nprint(1)\nsys.__stdout__.write('2')", "2"),
        ("import os\nos.write(1, b'\\xff')", "\ufffd"),
        ("print(len(str(10 ** 5000)))", "5001\n"),
        ("import colorsys_is_not_there_but as x", None),
    ],
)
def test_a_program_reads_prints_and_ends_as_under_an_interpreter(
    sandbox: Sandbox, source: str, printed: str | None
) -> None:
    assert run(sandbox, source, "a\nb\n").value == printed


def test_deep_recursion_through_c_works_when_asked_for(sandbox: Sandbox) -> None:
    deep = 20_000 if sys.version_info < (3, 12) else 2_000  # later interpreters have a limit of their own
    source = (
        "import sys\nfrom functools import lru_cache\nsys.setrecursionlimit(10 ** 6)\n"
        f"@lru_cache(None)\ndef f(n): return n and f(n - 1) + 1\nprint(f({deep}))"
    )
    assert run(sandbox, source).value == f"{deep}\n"


@pytest.mark.parametrize(
    ("source", "name", "given", "value"),
    [
        ("def f(a, b):\n return a, [b, None, 0.5]", "f", [1, "x"], [1, ["x", None, 0.5]]),
        ("class Solution:\n def f(self, a): return a + 1", "f", [1], 2),
        ("class Solution:\n def f(self, a): return a + 1", "Solution.f", [1], 2),
        ("def f(a): return a + 1", "Solution.f", [1], 2),
        ("class Solution: pass\ndef f(a): return a + 1", "f", [1], 2),
        ("f = lambda d: {3: d, None: 1}", "f", [{"a": []}], {"3": {"a": []}, "null": 1}),
        ("def f(): return __name__ == '__main__'", "f", [], False),
        ("def f(): print('noise')", "f", [], None),
        ("import collections\ndef f(): return collections.Counter('aab')", "f", [], {"a": 2, "b": 1}),
        ("import threading\ndef f():\n threading.Thread(target=input).start()\n return 1", "f", [], 1),
    ],
)  # fmt: skip
def test_a_function_is_called_and_what_it_returns_is_plain_data(
    sandbox: Sandbox, source: str, name: str, given: list[object], value: object
) -> None:
    assert run(sandbox, source, given, name).value == value


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "error", "line"),
    [
        ("x = 1\nx +\n", "SyntaxError", 2),
        ("if 1:\nprint(1)", "IndentationError", 2),
        ("x = '\0'", None, None),
        ("x = '\ud800'", "UnicodeEncodeError", None),
        ("(" * 100_000, None, None),
        ("x = " + "-" * 100_000 + "1", None, None),
        ("x = " + "a." * 100_000 + "a", None, None),
        ("x = " + "[" * 5000 + "]" * 5000, None, None),
        ("return 1", "SyntaxError", 1),
    ],
    ids=lambda value: str(value)[:12].encode("ascii", "replace").decode(),
)
def test_what_does_not_compile_is_reported_with_its_line(
    sandbox: Sandbox, source: str, error: str | None, line: int | None
) -> None:
    found = run(sandbox, source)
    assert found.status == "compile_error"
    assert error is None or (found.error, found.line) == (error, line)


@pytest.mark.parametrize(
    ("source", "error", "line"),
    [
        ("def f(x):\n    return 1 / x\n\nf(0)", "ZeroDivisionError", 2),
        ("import json\n\njson.loads('[')", "JSONDecodeError", 3),
        ("def f(): f()\nf()", "RecursionError", 1),
        ("x = []\nwhile True:\n    x.append('a' * 2 ** 22)", "MemoryError", 3),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", 1),
        ("class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd", "Odd", 3),
        ("input()", "EOFError", 1),
        ("import sys\nsys.exit('bad')", "SystemExit", 2),
        ("import ctypes\nctypes.string_at(0)", "SIGSEGV", None),
        ("import os\nos.abort()", None, None),
        ("import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): sorted([1], key=lambda x: f())\nf()", None, None),
        ("exec('1 / 0')", "ZeroDivisionError", 1),
        ("import sys\nprint(1)\nsys.stdout.close()\nprint(2)", "ValueError", 4),
        ("import os\nprint(1)\nos.close(1)", "OSError", None),
    ],
)
def test_an_error_is_reported_with_the_deepest_line_of_the_program(
    sandbox: Sandbox, source: str, error: str | None, line: int | None
) -> None:
    found = run(sandbox, source)
    assert found.status == "runtime_error"
    assert error is None or (found.error, found.line) == (error, line)


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        ("{1, 2}", "TypeError"),
        ("(x for x in 'ab')", "TypeError"),
        ("10 ** 100000", "ValueError"),
        ("'x' * 10 ** 5", "OutputLimit"),
        ("[0] * 10 ** 5", "OutputLimit"),
        ("nested()", "RecursionError"),
        ("itself()", "RecursionError"),
        ("type('L', (), {'__class__': list})()", "TypeError"),
        ("object", "TypeError"),
        ("{(1, 2): 3}", "TypeError"),
    ],
)
def test_what_is_not_data_is_an_error(sandbox: Sandbox, returned: str, error: str) -> None:
    source = (
        "def nested():\n    x = []\n    for _ in range(10 ** 5): x = [x]\n    return x\n"
        "def itself():\n    x = []\n    x.append(x)\n    return x\n"
        f"def f(): return {returned}\n"
    )
    assert reported(run(sandbox, source, [], "f")) == ("runtime_error", error)


def test_objects_that_lie_come_out_as_what_they_are(sandbox: Sandbox) -> None:
    source = (
        "class All(list):\n    def __eq__(self, other): return True\n    def __iter__(self): return iter([42])\n"
        "class Any(int):\n    def __eq__(self, other): return True\n    def __int__(self): return 42\n"
        "    def __repr__(self): return '42'\n"
        "class Text(str):\n    def __str__(self): return '42'\n"
        "def f(): return All([1]), Any(2), Text('3'), float('nan')\n"
    )
    value = run(sandbox, source, [], "f").value
    assert value[:3] == [[1], 2, "3"]
    assert value[3] != value[3]
