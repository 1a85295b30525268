"""Workers: an item costs at most its limits, whoever dies is replaced, and no one is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rrl.verifiers.workers import Reply, WorkerLimits, Workers

pytestmark = pytest.mark.clock

HERE = Path(__file__).resolve().parents[1]


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Workers]]:
    """Makes pools that are closed at the end."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setattr("rrl.verifiers.workers.PAUSES", (0.05, 0.1, 0.2))
    made: list[Workers] = []

    def make(count: int = 1, seconds: float = 0.3, patience: float = 30.0, memory_mb: int = 300) -> Workers:
        limits = WorkerLimits(seconds=seconds, patience=patience, memory_mb=memory_mb)
        made.append(Workers("fixtures.worker", count, limits))
        return made[-1]

    yield make
    for workers in made:
        workers.close()


def ask(workers: Workers, deed: str, argument: Any = None) -> Reply:
    return workers.submit((deed, argument)).result(timeout=300)


def pids(workers: Workers) -> list[int]:
    """The processes that are running."""
    started = [worker.child._process for worker in workers._pool.workers if worker.child is not None]
    return [process.pid for process in started if process.poll() is None]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(fact: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not fact() and time.monotonic() < end:
        time.sleep(0.05)
    return fact()


# --- work -------------------------------------------------------------------------------------------------------------


def test_replies_belong_to_their_items_whatever_the_order(pool: Callable[..., Workers]) -> None:
    workers = pool(count=2)
    futures = [workers.submit(("echo", {"n": n, "text": "é\n" * n})) for n in range(50)]
    assert [f.result().value for f in futures] == [{"n": n, "text": "é\n" * n} for n in range(50)]
    assert futures[0].result() == Reply("done", {"n": 0, "text": ""}, phase="doing echo")


def test_a_worker_is_started_at_first_use_and_stays(pool: Callable[..., Workers]) -> None:
    workers = pool()
    assert pids(workers) == []
    found = {ask(workers, "pid").value for _ in range(3)}
    assert found == set(pids(workers))
    assert len(found) == 1


def test_a_worker_is_a_clean_interpreter(pool: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    workers = pool()
    assert set(ask(workers, "environment").value) <= {"PATH", "PYTHONPATH", "PYTHONHASHSEED", "LC_CTYPE"}
    assert [ask(workers, "modules", name).value for name in ("torch", "rrl.types", "json")] == [False, False, True]


def test_an_item_of_a_megabyte_goes_through_and_prints_are_no_answers(pool: Callable[..., Workers]) -> None:
    workers = pool()
    assert ask(workers, "print", '{"end": "done", "value": "forged"}').value is None
    assert ask(workers, "echo", "x" * 10**6).value == "x" * 10**6


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deed", "argument"), [("spin", None), ("power", 10**8)])
def test_an_endless_item_ends_at_its_processor_time(deed: str, argument: Any, pool: Callable[..., Workers]) -> None:
    workers = pool()
    first = ask(workers, "pid").value
    begin = time.process_time(), time.perf_counter()
    reply = ask(workers, deed, argument)
    assert (reply.end, reply.phase) == ("time_out", f"doing {deed}")
    assert "SIGPROF" in reply.message
    assert time.perf_counter() - begin[1] < 10  # on a busy machine; alone it is 0.3
    assert ask(workers, "pid").value != first


def test_the_time_of_items_does_not_add_up(pool: Callable[..., Workers]) -> None:
    workers = pool(seconds=0.15)
    assert [ask(workers, "burn", 0.05).end for _ in range(5)] == ["done"] * 5
    assert len({ask(workers, "pid").value for _ in range(2)}) == 1


def test_a_sleeping_or_stopped_worker_is_stalled_and_not_timed_out(pool: Callable[..., Workers]) -> None:
    workers = pool(seconds=0.2, patience=0.5)
    for deed, argument in (("sleep", 60), ("signal", int(signal.SIGSTOP))):
        begin = time.perf_counter()
        assert ask(workers, deed, argument).end == "stalled"
        assert time.perf_counter() - begin < 10
    assert ask(workers, "echo", 1).value == 1


def test_half_an_answer_is_none_and_does_not_spoil_the_next(pool: Callable[..., Workers]) -> None:
    workers = pool(seconds=0.2, patience=0.5)
    assert ask(workers, "torn").end == "stalled"
    assert ask(workers, "echo", 1).value == 1


def test_a_memory_hog_gets_no_more_than_its_limit_and_its_worker_is_replaced(pool: Callable[..., Workers]) -> None:
    workers = pool(memory_mb=300)
    first = ask(workers, "pid").value
    assert ask(workers, "hog", 100).value == 100
    assert ask(workers, "hog", 400).end == "memory"
    assert ask(workers, "hog", 100).value == 100
    assert ask(workers, "pid").value != first


def test_a_worker_can_write_no_file(pool: Callable[..., Workers], tmp_path: Path) -> None:
    reply = ask(pool(), "write", str(tmp_path / "x"))
    assert reply.end in ("raised", "crashed")
    assert not (tmp_path / "x").exists() or (tmp_path / "x").stat().st_size == 0


# --- deaths -----------------------------------------------------------------------------------------------------------


def test_an_exception_is_reported_and_the_worker_goes_on(pool: Callable[..., Workers]) -> None:
    workers = pool()
    first = ask(workers, "pid").value
    assert ask(workers, "fail", "no such sum") == Reply(
        "raised", phase="doing fail", message="ArithmeticError: no such sum"
    )
    assert ask(workers, "pid").value == first


@pytest.mark.parametrize(
    ("deed", "argument", "end", "reported"),
    [
        ("exit", 3, "crashed", "its process ended with 3"),
        ("exit", 0, "crashed", "its process ended with 0"),
        ("signal", int(signal.SIGSEGV), "crashed", "its process ended with SIGSEGV"),
        ("signal", int(signal.SIGKILL), "killed", "its process ended with SIGKILL"),
    ],
)
def test_an_item_that_kills_two_workers_is_given_up(
    deed: str, argument: int, end: str, reported: str, pool: Callable[..., Workers]
) -> None:
    workers = pool()
    reply = ask(workers, deed, argument)
    assert (reply.end, reply.phase, reply.message) == (end, f"doing {deed}", reported)
    assert ask(workers, "echo", 1).value == 1


def test_an_item_whose_worker_is_killed_is_done_by_another(pool: Callable[..., Workers], tmp_path: Path) -> None:
    assert ask(pool(), "once", str(tmp_path / "tried")).value == "second try"


def test_workers_killed_from_outside_lose_no_item(pool: Callable[..., Workers]) -> None:
    workers = pool(count=2, seconds=5.0)
    ask(workers, "echo")
    futures = [workers.submit(("sleep", 0.02)) for _ in range(40)]
    for _ in range(2):
        time.sleep(0.15)
        for pid in pids(workers):
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.3)  # so that no item meets both
    assert [f.result(timeout=300).end for f in futures] == ["done"] * 40


def test_a_restart_takes_new_workers_and_loses_no_item(pool: Callable[..., Workers]) -> None:
    workers = pool()
    first = ask(workers, "pid").value
    future = workers.submit(("sleep", 0.2))
    time.sleep(0.1)
    workers.restart()
    assert future.result(timeout=300).end == "done"
    assert ask(workers, "pid").value != first


def test_a_worker_that_cannot_start_says_why_at_once(
    pool: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/broken")
    workers = pool()
    replies = [workers.submit(("echo", n)) for n in range(200)]
    assert {f.result(timeout=300) for f in replies} == {
        Reply("unavailable", message="fixtures.worker does not start: ImportError: no such library")
    }
    monkeypatch.undo()
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    workers.restart()
    assert ask(workers, "echo", 1).value == 1


# --- starts -----------------------------------------------------------------------------------------------------------


def wish(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Have workers start as the name of the folder says."""
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{folder}")
    return folder


@pytest.mark.parametrize("name", ["killed-3", "failing-1"])
def test_a_worker_that_does_not_survive_its_first_starts_is_started_anew(
    name: str, pool: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = wish(monkeypatch, tmp_path / name)
    workers = pool()
    assert [f.result(timeout=60).end for f in [workers.submit(("echo", n)) for n in range(50)]] == ["done"] * 50
    assert len(list(folder.iterdir())) == int(name[-1]) + 1


@pytest.mark.parametrize(
    ("name", "reason"), [("killed-99", "its process ended with SIGKILL"), ("failing-99", "ArithmeticError: not now")]
)
def test_a_worker_that_does_not_start_four_times_in_a_row_is_given_up_until_a_restart(
    name: str, reason: str, pool: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = wish(monkeypatch, tmp_path / name)
    workers = pool()
    replies = {f.result(timeout=60) for f in [workers.submit(("echo", n)) for n in range(50)]}
    assert replies == {Reply("unavailable", message=f"fixtures.worker does not start: {reason}")}
    assert len(list(folder.iterdir())) == 4
    workers.restart()
    ask(workers, "echo")
    assert len(list(folder.iterdir())) == 8


def test_workers_killed_while_they_start_lose_no_item(
    pool: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wish(monkeypatch, tmp_path / "slow")
    workers = pool(count=2)
    futures = [workers.submit(("echo", n)) for n in range(200)]
    killed: set[int] = set()
    end = time.monotonic() + 20
    while len(killed) < 4 and time.monotonic() < end:
        for pid in set(pids(workers)) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.02)
    assert [f.result(timeout=60).end for f in futures] == ["done"] * 200


def test_a_restart_while_workers_start_loses_no_item(
    pool: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wish(monkeypatch, tmp_path / "slow")
    workers = pool(count=2)
    futures = [workers.submit(("echo", n)) for n in range(200)]
    assert wait_for(lambda: len(pids(workers)) == 2)
    workers.restart()
    assert [f.result(timeout=60).end for f in futures] == ["done"] * 200


def test_a_pool_that_is_closed_while_its_workers_start_leaves_none(
    pool: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wish(monkeypatch, tmp_path / "slow")
    workers = pool(count=2)
    futures = [workers.submit(("echo", n)) for n in range(5)]
    assert wait_for(lambda: len(pids(workers)) == 2)
    before = pids(workers)
    workers.close()
    assert [f.result(timeout=5).end for f in futures] == ["unavailable"] * 5
    assert not any(map(is_alive, before))
    assert pids(workers) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_killed_while_it_is_idle_costs_nothing(number: int, pool: Callable[..., Workers]) -> None:
    workers = pool()
    for _ in range(3):
        os.kill(ask(workers, "pid").value, number)
    assert ask(workers, "echo", 1).value == 1


def test_processes_that_are_not_to_be_had_are_waited_for(
    pool: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = subprocess.Popen, [0]

    def scarce(*arguments: Any, **keys: Any) -> Any:
        tries[0] += 1
        if tries[0] <= missing:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real(*arguments, **keys)

    monkeypatch.setattr(subprocess, "Popen", scarce)
    missing = 3
    assert ask(pool(), "echo", 1).value == 1
    missing = 99
    reply = ask(pool(), "echo", 1)
    assert reply.end == "unavailable"
    assert reply.message == "fixtures.worker does not start: [Errno 11] Resource temporarily unavailable"


# --- the end ----------------------------------------------------------------------------------------------------------


def test_closing_ends_workers_and_items_and_the_pool_can_be_used_again(pool: Callable[..., Workers]) -> None:
    workers = pool(count=2, seconds=60.0, patience=60.0)
    ask(workers, "echo")
    before = pids(workers)
    futures = [workers.submit(("spin", None)) for _ in range(5)]
    time.sleep(0.2)
    workers.close()
    assert [f.result(timeout=5).end for f in futures] == ["unavailable"] * 5
    assert not any(map(is_alive, before))
    assert ask(workers, "echo", 1).value == 1


def test_a_forgotten_pool_ends_its_workers(pool: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers("fixtures.worker", 1, WorkerLimits(seconds=1.0, patience=1.0, memory_mb=300))
    pid = ask(workers, "pid").value
    del workers
    assert wait_for(lambda: not is_alive(pid))


def script(source: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """What comes of a process of its own that has workers."""
    path = os.pathsep.join([str(HERE), str(HERE.parent / "src")])
    command = [sys.executable, "-c", source, *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300)


PARENT = """
import os, signal, sys, time
from rrl.verifiers.workers import WorkerLimits, Workers
pool = Workers("fixtures.worker", 2, WorkerLimits(seconds=0.3, patience=60.0, memory_mb=300))
print(*{pool.submit(("pid", None)).result().value for _ in range(9)}, flush=True)
futures = [pool.submit(("spin", None)) for _ in range(2) if sys.argv[1] == "busy"]
time.sleep(0.1)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "raising":
    raise RuntimeError
"""


@pytest.mark.parametrize(("end", "state"), [("ended", "idle"), ("killed", "busy"), ("raising", "busy")])
def test_no_worker_outlives_its_parent(end: str, state: str) -> None:
    done = script(PARENT, state, end)
    assert (done.returncode == 0) == (end == "ended")
    pids = [int(word) for word in done.stdout.split()]
    assert pids
    assert wait_for(lambda: not any(map(is_alive, pids)))


FORK = """
import os
from rrl.verifiers.workers import WorkerLimits, Workers
pool = Workers("fixtures.worker", 1, WorkerLimits(seconds=1.0, patience=60.0, memory_mb=300))
ask = lambda: pool.submit(("pid", None)).result(timeout=60).value
before = ask()
if fork := os.fork():
    os.waitpid(fork, 0)
print("parent" if fork else "child", ask() == before, flush=True)
"""


def test_a_fork_has_workers_of_its_own_and_leaves_its_parents_alone() -> None:
    done = script(FORK)
    assert (done.stdout, done.stderr) == ("child False\nparent True\n", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": 0.0}, "^seconds, patience"),
        ({"patience": 0.1}, "^seconds, patience"),
        ({"memory_mb": 0}, "^memory"),
    ],
)
def test_limits_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorkerLimits(**{"seconds": 1.0, "patience": 2.0, "memory_mb": 100, **changes})
