"""The sandbox: its limits of time, programs that no filter holds, and the parent's side. See test_sandbox_limits.py."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest

from fixtures.attacks import FAMILIES, LOOPS, NAMESPACES_KEEP, REACHING, SLEEPS, TRY
from fixtures.sandbox import LIMITS, ask, family, other, reported, run, runs, still_honest, working
from rrl.errors import DataError
from rrl.processes.warm_child import Lost
from rrl.sandbox import sandbox as parent
from rrl.sandbox.inside.request import packed
from rrl.sandbox.isolation import LEVELS
from rrl.sandbox.runs import Job
from rrl.sandbox.sandbox import Sandbox
from rrl.sandbox.server import Server

pytestmark = pytest.mark.clock

FEW = ["rlimits", *(pytest.param(level, marks=pytest.mark.slow) for level in LEVELS if level != "rlimits")]
"""For what goes by the clock of a server, which is the same under each."""
HONEST = "def double(x):\n    return 2 * x\n"


@pytest.fixture(scope="module", params=LEVELS)
def unfiltered(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server whose programs may make any system call: what holds where the kernel has no filter."""
    made = Server(working(request.param), other(wall_seconds=1.0), filtered=False)
    ask(made, "")  # from then on its processes are there
    yield made
    made.close()


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", FEW)
def test_who_computes_for_ever_is_stopped(level: str) -> None:
    with closing(Sandbox(limits=other(cpu_seconds=0.15), workers=1, isolation=working(level))) as made:
        futures = {name: made.submit(Job(source, None, ("",))) for name, source in LOOPS.items()}
        found = {name: reported(future.result()) for name, [future] in futures.items()}
        assert found == dict.fromkeys(LOOPS, ("time_out", "CpuTime"))
        assert still_honest(made)


@pytest.mark.parametrize("level", FEW)
def test_the_time_to_compute_is_kept_to_the_tenth_of_a_second(level: str) -> None:
    with closing(Server(working(level), other(wall_seconds=20.0), filtered=False)) as patient:  # others may compute too
        header, _, _ = patient.ask(packed("while True: pass", "f", []))
    assert LIMITS.cpu_seconds <= header["cpu"] < LIMITS.cpu_seconds + 0.2


@pytest.mark.parametrize("level", FEW)
def test_who_waits_for_ever_is_stopped(level: str) -> None:
    with closing(Sandbox(limits=other(wall_seconds=1.2), workers=5, isolation=working(level))) as made:
        futures = [made.submit(Job(source, None, ("",))) for source in SLEEPS.values()]
        assert {reported(future.result()) for [future] in futures} == {("time_out", "WallTime")}
        assert still_honest(made)


# --- where the kernel has no filter for system calls ------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_processes_of_a_program_end_with_it(unfiltered: Server, name: str) -> None:
    if os.geteuid() != 0 and unfiltered._folder:
        pytest.skip("without a filter, namespaces or root, programs are the server's equals; docs/sandbox.md says so")
    before = len(family(unfiltered._process.pid))
    assert ask(unfiltered, FAMILIES[name]).status != "sandbox_failure"
    assert ask(unfiltered, "import os\nprint(os.listdir('.'), 42)").value == "[] 42\n"
    assert len(family(unfiltered._process.pid)) == before


@pytest.fixture(scope="module", params=["bubblewrap", "namespaces"])
def namespaces(request: pytest.FixtureRequest) -> Iterator[Server]:
    with closing(Server(working(request.param), LIMITS, filtered=False)) as made:
        yield made


@pytest.mark.parametrize("name", NAMESPACES_KEEP)
def test_namespaces_keep_a_program_in_by_themselves(namespaces: Server, name: str) -> None:
    assert ask(namespaces, TRY.format(attempt=REACHING[name])).value == "kept\n"


# --- the parent's side ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(request: pytest.FixtureRequest) -> Sandbox:
    made = Sandbox(limits=LIMITS, workers=2, isolation="auto")
    request.addfinalizer(made.close)
    return made


def test_runs_come_in_the_order_of_the_inputs_from_many_threads(own: Sandbox) -> None:
    found: dict[int, list[object]] = {}

    def use(number: int) -> None:
        inputs = [[10 * number + n] for n in range(5)]
        found[number] = [each.value for each in runs(own, HONEST, inputs, "double")]

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [20 * number + 2 * n for n in range(5)] for number in range(6)}


def test_a_job_is_taken_at_once_and_its_inputs_run_side_by_side(own: Sandbox) -> None:
    source = "import time\nprint(time.monotonic())\ntime.sleep(1)\nprint(time.monotonic())"
    runs(own, "import time\ntime.sleep(0.2)", ("", ""))  # both servers are warm
    futures = own.submit(Job(source, None, ("", "")))
    assert not any(future.done() for future in futures)
    first, second = ([float(each) for each in future.result().value.split()] for future in futures)
    assert max(first[0], second[0]) < min(first[1], second[1])
    assert runs(own, "", ()) == []


def test_the_same_program_gives_the_same_on_every_server(own: Sandbox) -> None:
    source = "import random, time\ntime.sleep(0.2)\nprint(random.random(), list({'a', 'b', 'c', 'd'}), hash('x'))"
    runs(own, source, ("",) * 2)
    assert len({found.value for found in runs(own, source, ("",) * 4)}) == 1
    assert all(worker.child for worker in own._pool.workers)


def test_what_is_cancelled_is_not_run(own: Sandbox) -> None:
    run(own, "")
    busy = own.submit(Job("import time\ntime.sleep(0.6)", None, ("", "")))
    futures = [own.submit(Job("import time\ntime.sleep(9)", None, ("",))) for _ in range(9)]
    assert all(future.cancel() for [future] in futures)
    started = time.monotonic()
    assert run(own, HONEST, [2], "double").value == 4
    assert time.monotonic() - started < 9
    assert all(future.result() for future in busy)


def test_a_server_that_dies_is_replaced(own: Sandbox) -> None:
    assert run(own, HONEST, [2], "double").value == 4
    for worker in own._pool.workers:
        if worker.child is not None:
            os.killpg(worker.child._process.pid, signal.SIGKILL)
    assert [run(own, HONEST, [n], "double").value for n in range(4)] == [0, 2, 4, 6]


def test_what_breaks_the_sandbox_again_and_again_is_the_programs_fault_if_others_run(
    own: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Server.ask

    def breaking(server: Server, request: bytes) -> object:
        if b"evil" in request:
            raise Lost("the server ended")
        return whole(server, request)

    monkeypatch.setattr(Server, "ask", breaking)
    assert reported(run(own, "evil")) == ("runtime_error", "Killed")
    monkeypatch.setattr(parent, "CANARY", b"evil")
    assert reported(run(own, "evil")) == ("sandbox_failure", "SandboxFailure")
    assert run(own, HONEST, [2], "double").value == 4


def test_a_server_that_does_not_start_is_reported_with_its_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = [sys.executable, "-c", "print('many words'); exit('no such thing')"]
    monkeypatch.setattr("rrl.sandbox.start.command", lambda *_, **settings: ends)
    with pytest.raises(DataError, match="'rlimits' does not work: its process ended with 1: no such thing; see"):
        Sandbox(limits=LIMITS, workers=1, isolation="rlimits").start()


def test_a_server_that_hangs_is_given_up(own: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    run(own, "")
    monkeypatch.setattr("rrl.sandbox.server.GRACE", 0.1)
    for worker in own._pool.workers:
        if worker.child is not None:
            os.killpg(worker.child._process.pid, signal.SIGSTOP)
    assert run(own, HONEST, [2], "double").value == 4


def test_closing_cancels_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = Sandbox(limits=other(wall_seconds=60.0), workers=2, isolation="rlimits")
    futures = [made.submit(Job("import time\ntime.sleep(50)", None, ("", ""))) for _ in range(3)]
    while not list(tmp_path.iterdir()):
        time.sleep(0.01)
    started = time.monotonic()
    made.close()
    assert time.monotonic() - started < 20
    for future in chain(*futures):
        with pytest.raises(CancelledError):
            future.result()
    assert not list(tmp_path.iterdir())
    assert run(made, HONEST, [2], "double").value == 4
    made.close()


SCRIPT = """
import os, sys, time
from fixtures.sandbox import family, run
from rrl.sandbox.limits import Limits
from rrl.sandbox.runs import Job
from rrl.sandbox.sandbox import Sandbox

def main(isolation, how):
    limits = Limits(wall_seconds=50, cpu_seconds=50, memory_mb=256, processes=8, open_files=32, file_mb=4, output_kb=64)
    sandbox = Sandbox(limits=limits, workers=2, isolation=isolation)
    print(run(sandbox, "print(1)").value, flush=True)
    if how == "fork":
        pid = os.fork()
        print(run(sandbox, "print(2)").value, flush=True)
        return os.waitpid(pid, 0) if pid else sandbox.close()
    sandbox.submit(Job("import time\\ntime.sleep(40)", None, ("", "", "")))
    time.sleep(0.3)
    print(*family(os.getpid()), flush=True)
    if how == "killed":
        os.kill(os.getpid(), 9)
    if how == "left":
        os._exit(0)

main(*sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("isolation", "how"),
    [
        *(("rlimits", how) for how in ("ended", "killed", "left", "fork")),
        ("auto", "killed"),
        *(pytest.param("auto", how, marks=pytest.mark.slow) for how in ("ended", "left", "fork")),
    ],
)
def test_nothing_outlives_the_process_that_made_the_sandbox(tmp_path: Path, isolation: str, how: str) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, isolation, how], env=environment, capture_output=True, text=True, timeout=60
    )
    printed = done.stdout.split()
    if how == "fork":
        assert printed == ["1", "2", "2"], done.stderr
    else:
        assert printed[0] == "1", done.stderr
        assert len(printed) > 3
    deadline = time.monotonic() + 10
    while (left := _left(tmp_path, printed)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def _left(folder: Path, pids: list[str]) -> list[str]:
    """What is in there, and which of these processes live."""
    living = [pid for pid in pids if pid not in ("1", "2") and _lives(pid)]
    return [path.name for path in folder.iterdir() if path.name != "script.py"] + living


def _lives(pid: str) -> bool:
    """Whether it is there and more than a record that no one has collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_isolation_that_does_not_work_is_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    made = Sandbox(limits=LIMITS, workers=1, isolation="bubblewrap")
    with pytest.raises(DataError, match="apt-get install bubblewrap"):
        made.submit(Job("", None, ("",)))
