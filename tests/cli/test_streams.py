"""What is printed: readers that leave, that read no Unicode, or are not there make no traceback."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rrl.cli.streams import printed

STATUS = (sys.executable, "-m", "rrl.cli.status")
TRAIN = (sys.executable, "-m", "rrl.cli.train")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with a run whose name is not ASCII."""
    run = tmp_path / "runs" / "caf\u00e9"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("trainer: {total_training_steps: 1, total_tokens: null}\n")
    (run / "metrics.jsonl").write_text('{"step": 0}\n')
    return tmp_path / "runs"


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**kept, **changes}


def unread(command: tuple[str, ...], both: bool, **changes: str) -> tuple[int, str]:
    """Exit code and standard error of a command whose reader has left before it begins."""
    errors = subprocess.STDOUT if both else subprocess.PIPE
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment(**changes))
    assert process.stdout is not None
    process.stdout.close()
    said = "" if process.stderr is None else process.stderr.read().decode()
    return process.wait(), said


@pytest.mark.parametrize("command", [(*STATUS, "RUNS"), (*STATUS, "--help"), (*TRAIN, "--completion", "bash")])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_fault(command: tuple[str, ...], unbuffered: str, runs: Path) -> None:
    words = tuple(str(runs) if word == "RUNS" else word for word in command)
    assert unread(words, both=False, PYTHONUNBUFFERED=unbuffered) == (0, "")


def test_a_fault_that_no_one_reads_is_quiet(tmp_path: Path) -> None:
    assert unread((*STATUS, str(tmp_path / "nowhere")), both=True)[0] in (0, 2)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_encoding_can_be_printed_in(encoding: str, runs: Path) -> None:
    run = runs / "\u65e5\udcff"  # no Latin, and a byte that is no UTF-8
    (runs / "caf\u00e9").rename(run)
    done = subprocess.run([*STATUS, str(runs)], capture_output=True, env=environment(PYTHONIOENCODING=encoding))
    assert (done.returncode, done.stderr) == (0, b"")
    assert (b"\\u65e5" if encoding != "utf-8" else "\u65e5".encode()) + b"\\udcff" in done.stdout


@pytest.mark.parametrize(("where", "code", "said"), [
    (">&-", 0, b""),
    ("<&- >&- 2>&-", 0, b""),
    (">/dev/full", 1, b"standard output: nothing can be written to it (No space left on device)\n"),
])  # fmt: skip
def test_an_output_that_is_closed_or_full_makes_no_traceback(where: str, code: int, said: bytes, runs: Path) -> None:
    line = f'"$0" -m rrl.cli.status "$1" {where}'
    done = subprocess.run(["sh", "-c", line, sys.executable, str(runs)], capture_output=True, env=environment())
    assert (done.returncode, done.stderr) == (code, said)


def failing(error: BaseException) -> Any:
    def work() -> int:
        raise error

    return work


def test_another_pipe_that_breaks_is_not_hidden() -> None:
    with pytest.raises(BrokenPipeError):
        printed(failing(BrokenPipeError()))
    with pytest.raises(FileNotFoundError):
        printed(failing(FileNotFoundError()))


def test_an_interruption_while_printing_and_an_exit_keep_their_codes() -> None:
    assert printed(failing(KeyboardInterrupt())) == 130
    assert printed(failing(SystemExit(1))) == 1
    with pytest.raises(SystemExit, match="a reason"):
        printed(failing(SystemExit("a reason")))
