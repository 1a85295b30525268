"""A program is judged alike under every isolation, on a busy machine and an idle one."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace

import pytest

from fixtures.sandbox import LIMITS, family, other, reported, run, working
from rrl.sandbox.inside import child
from rrl.sandbox.inside.request import packed
from rrl.sandbox.inside.watch import Watch
from rrl.sandbox.isolation import LEVELS
from rrl.sandbox.limits import Limits
from rrl.sandbox.outcome import run_of
from rrl.sandbox.sandbox import Sandbox
from rrl.sandbox.server import Server

pytestmark = pytest.mark.clock

STDLIB = [
    name
    for name in sorted(sys.stdlib_module_names)
    if not name.startswith(
        ("_", "idle", "tkinter", "turtle", "antigravity", "this", "test", "lib2to3", "ms", "win", "nt")
    )
    and name not in ("curses", "dbm", "ensurepip", "nis", "ossaudiodev", "spwd", "crypt", "bdb")
]
IMPORTS = """
import importlib, sys, warnings
warnings.simplefilter("ignore")
failed = []
for name in sys.stdin.read().split():
    try: importlib.import_module(name)
    except ImportError as error:
        if "No module named '_" not in str(error) and "cannot open shared" not in str(error): failed.append(str(error))
print(failed)
"""
"""Some interpreters lack the halves of modules that are written in C: all that is asked is that files are found."""
STREAMS = [
    ("print(open('/dev/stdin').read())", "a\nb\n\n"),
    ("print(open('/proc/self/fd/0').read())", "a\nb\n\n"),
    ("print(open('/dev/fd/0').readline())", "a\n\n"),
    ("import os\nprint(os.read(os.open('/dev/stdin', os.O_RDONLY), 9))", "b'a\\nb\\n'\n"),
    ("import sys\nsys.stdin = open('/dev/stdin')\nprint(input())", "a\n"),
    ("print(open(0).read())", "a\nb\n\n"),
    ("import fileinput\nprint(list(fileinput.input(['/dev/stdin'])))", "['a\\n', 'b\\n']\n"),
    ("import pathlib\nprint(pathlib.Path('/dev/stdin').read_text())", "a\nb\n\n"),
    ("print(1, file=open('/dev/stdout', 'w'))", "1\n"),
    ("open('/proc/self/fd/1', 'w').write('1')", "1"),
    ("open('/dev/fd/1', 'a').write('1')", "1"),
    ("print(1, file=open('/dev/stderr', 'w'))\nprint(2)", "2\n"),
    ("open('/dev/null', 'w').write('x')\nprint(open('/dev/null').read() == '')", "True\n"),
    ("import os\nprint(len(os.urandom(4)), len(open('/dev/urandom', 'rb').read(4)))", "4 4\n"),
    ("open('f', 'w').write('x')\nf = open('f')\nprint(open(f'/dev/fd/{f.fileno()}').read())", "x\n"),
    ("import os\nprint(oct(os.umask(0)))", "0o22\n"),
    ("print('\\udcff')", "\ufffd\n"),
    ("import socket\na, b = socket.socketpair()\na.send(b'x')\nprint(b.recv(1))", "b'x'\n"),
    ("import asyncio\nasync def f(): return 1\nprint(asyncio.run(f()))", "1\n"),
    ("import tempfile\nf = tempfile.TemporaryFile()\nprint(f.write(b'ab'))", "2\n"),
    ("import sqlite3\nprint(sqlite3.connect(':memory:').execute('select 1').fetchone())", "(1,)\n"),
    ("import signal\nsignal.signal(14, lambda *_: print('rung'))\nsignal.setitimer(0, 0.01)\nsignal.pause()", "rung\n"),
]
COMPUTE = {
    "alone": "while True: pass",
    "in threads": "import threading\nfor _ in range(3): threading.Thread(target=exec, args=('while 1: pass',)).start()",
    "deaf": "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
    "catches": "import signal\nsignal.signal(signal.SIGXCPU, lambda *_: exit(0))\nwhile True: pass",
    "limits itself": "from resource import *\nsetrlimit(RLIMIT_CPU, (1, getrlimit(RLIMIT_CPU)[1]))\nwhile True: pass",
}


@pytest.fixture(scope="module", params=LEVELS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    made = Sandbox(limits=other(cpu_seconds=9.0, wall_seconds=60.0), workers=1, isolation=working(request.param))
    yield made
    made.close()


@pytest.mark.parametrize(("source", "printed"), STREAMS)
def test_a_program_finds_its_streams_by_every_name(sandbox: Sandbox, source: str, printed: str) -> None:
    assert run(sandbox, source, "a\nb\n").value == printed


def test_every_module_of_the_library_can_be_imported(sandbox: Sandbox) -> None:
    assert run(sandbox, f"from __future__ import annotations\n{IMPORTS}", " ".join(STDLIB)).value == "[]\n"


@pytest.mark.parametrize(
    ("seconds", "names"),
    [
        (1.0, ["deaf", "limits itself"]),
        *(pytest.param(seconds, list(COMPUTE), marks=pytest.mark.slow) for seconds in (1.0, 1.3)),
    ],
)
def test_who_computes_too_long_is_out_of_time_however_late_that_is_seen(seconds: float, names: list[str]) -> None:
    limits = other(cpu_seconds=seconds, wall_seconds=60.0)
    with ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(lambda name: _unwatched(COMPUTE[name], limits), names))
    assert found == [("time_out", "CpuTime")] * len(names)


def _unwatched(source: str, limits: Limits) -> tuple[str, str | None]:
    """What comes of a program whose watcher sleeps while it runs."""
    with closing(Server("rlimits", limits)) as server:
        server.ask(_request(""))
        watcher = server._process.pid
        timers = [threading.Timer(0.3, os.kill, (watcher, signal.SIGSTOP))]
        timers += [threading.Timer(3.3, os.kill, (watcher, signal.SIGCONT))]
        for timer in timers:
            timer.start()
        found = reported(run_of(*server.ask(_request(source)), limits, prints=True))
        for timer in timers:
            timer.join()
        return found


def _request(source: str) -> bytes:
    return packed(source, None, "")


def test_who_was_killed_at_the_kernels_limit_is_out_of_time() -> None:
    header = {"code": -9, "cpu": 1.0, "crossed": "", "compiled": True, "seconds": 5.0}
    assert reported(run_of(header, b"", b"", LIMITS, prints=True)) == ("time_out", "CpuTime")
    assert reported(run_of({**header, "cpu": 0.1}, b"", b"", LIMITS, prints=True)) == ("runtime_error", "Killed")
    assert reported(run_of({**header, "cpu": 0.1, "code": -24}, b"", b"", LIMITS, prints=True)) == (
        "time_out",
        "CpuTime",
    )


def test_who_ends_well_beyond_the_limit_is_out_of_time_even_when_no_one_looked() -> None:
    header = {"code": 0, "cpu": LIMITS.cpu_seconds, "crossed": "", "compiled": True, "seconds": 0.5}
    assert reported(run_of(header, b"", b'{"status": "ended"}', LIMITS, prints=True)) == ("time_out", "CpuTime")
    within = {**header, "cpu": LIMITS.cpu_seconds - 0.01}
    assert reported(run_of(within, b"", b'{"status": "ended"}', LIMITS, prints=True)) == ("ended", None)


def test_the_time_that_a_program_computed_is_reported() -> None:
    with closing(Server("rlimits", other(cpu_seconds=9.0, wall_seconds=60.0))) as server:
        header, _, _ = server.ask(_request("import time\nwhile time.process_time() < 0.3: pass"))
    assert 0.2 < header["cpu"] < 9


def test_reading_a_long_request_takes_nothing_of_the_programs_time() -> None:
    with closing(Sandbox(limits=other(cpu_seconds=0.02), workers=1, isolation="auto")) as made:
        assert run(made, "print(1)", "x" * 10**7).value == "1\n"


def test_what_a_process_computed_before_it_was_ready_is_not_the_programs_time() -> None:
    """It was ready after 4.5 of its 5 seconds."""
    end, reported_by = os.pipe()
    os.write(reported_by, child.READY + child.SECONDS.pack(4.5) + child.COMPILED)
    os.close(reported_by)
    ended, line = os.eventfd(1), os.eventfd(0)
    zygote = SimpleNamespace(fileno=lambda: ended, collect=lambda: (0, 5.0))
    limits = {"output_kb": 1, "wall_seconds": 9.0, "cpu_seconds": 1.0}
    watched = Watch(0, {end: "report"}, limits, zygote, line)  # type: ignore[arg-type]
    watched.follow()
    header = watched.finish()
    assert (header["cpu"], header["crossed"], header["compiled"]) == (0.5, "", True)
    os.close(ended)
    os.close(line)


@pytest.mark.parametrize("level", LEVELS)
def test_no_program_outlives_a_server_that_is_killed(level: str) -> None:
    source = "import ctypes, time\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\ntime.sleep(50)"
    with closing(Server(working(level), LIMITS)) as server:
        server.ask(_request(""))
        threading.Thread(target=_ask_in_vain, args=(server, _request(source))).start()
        time.sleep(0.5)
        tree = family(server._process.pid)[1:]
        assert len(tree) >= 2
        server._process.kill()
        deadline = time.monotonic() + 10
        while (left := [pid for pid in tree if _lives(pid)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left


def _ask_in_vain(server: Server, request: bytes) -> None:
    with contextlib.suppress(OSError):
        server.ask(request)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
