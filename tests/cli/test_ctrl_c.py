"""Ctrl-C on a terminal, or SIGTERM, ends a command with exit code 130, whatever a library makes of it."""

from collections.abc import Callable, Iterator

import pytest

from fixtures.terminal import Attended

Command = Callable[[str], Attended]
PROGRAM = """
import signal, sys, time
from rrl.cli import shell
{before}
sys.argv, sys.path = ["x"], [{folder!r}, *sys.path]
def swallow():
    try:
        print("begun", flush=True)
        time.sleep(60)
    except BaseException:
        pass
def work(arguments):
{work}
sys.exit(shell.run_command(work, ""))
"""


@pytest.fixture
def command(tmp_path: object) -> Iterator[Command]:
    """Starts a command whose work these lines are, and waits until it has begun."""
    sessions: list[Attended] = []

    def start(*lines: str, before: str = "") -> Attended:
        work = "\n".join(f"    {line}" for line in lines)
        sessions.append(Attended(PROGRAM.format(before=before, folder=str(tmp_path), work=work), 80))
        sessions[-1].until("begun")
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()


def test_one_that_arrives_ends_the_work(command: Command) -> None:
    session = command("print('begun', flush=True)", "time.sleep(60)")
    session.type("\x03")
    code, said = session.end()
    assert code == 130 and "interrupted" in said


def test_one_that_is_swallowed_is_no_success(command: Command) -> None:
    session = command("swallow()", "print('done')")
    session.type("\x03")
    code, said = session.end()
    assert code == 130 and "done" in said


def test_one_that_python_has_to_ignore_in_a_finalizer_is_raised_again(command: Command) -> None:
    finalizer = "kind = type('Slow', (), {'__del__': lambda self: (print('begun', flush=True), time.sleep(60))})"
    session = command(finalizer, "kind()", "time.sleep(60)", "print('done')")
    session.type("\x03")
    code, said = session.end()
    assert code == 130 and "interrupted" in said and "done" not in said


def test_a_second_one_ends_what_has_swallowed_the_first(command: Command) -> None:
    session = command("swallow()", "swallow()", "swallow()", "print('done')")
    for _ in range(2):
        session.type("\x03")
        session.until("begun")
    session.type("\x03")
    code, said = session.end()
    assert code == 130 and "done" in said


def test_in_an_import_it_ends_the_process_at_once(command: Command, tmp_path: object) -> None:
    with open(f"{tmp_path}/deaf.py", "w") as file:
        file.write("import sys\nsys.modules['__main__'].swallow()\n")
    session = command("sys.modules['__main__'].swallow = swallow", "import deaf", "print('done')")
    session.type("\x03")
    code, said = session.end()
    assert code == 130 and "interrupted" in said and "done" not in said


def test_where_it_is_ignored_it_stays_so(command: Command) -> None:
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    session = command("print('begun', flush=True)", "time.sleep(0.5)", "print('done')", before=ignore)
    session.type("\x03")
    assert session.end()[0] == 0


def test_a_sigterm_ends_the_work_and_a_second_one_does_not_disturb_what_is_saved_then(command: Command) -> None:
    sent = "signal.raise_signal(signal.SIGTERM)"
    work = [
        "try:",
        "    time.sleep(0.5)",
        f"    {sent}",
        "    print('on')",
        "finally:",
        f"    {sent}",
        "    print('saved')",
    ]
    code, said = command("print('begun', flush=True)", *work).end()
    assert code == 130 and "saved" in said and "interrupted" in said and "on" not in said.split()


def test_where_sigterm_is_ignored_it_stays_so(command: Command) -> None:
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    sent = "signal.raise_signal(signal.SIGTERM)"
    assert command("print('begun', flush=True)", sent, before=ignore).end()[0] == 0
