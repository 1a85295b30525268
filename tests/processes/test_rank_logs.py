"""What each rank prints and logs, and what it imports first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rrl.cli.worker import main as work

pytestmark = [pytest.mark.clock, pytest.mark.usefixtures("started_by_a_user")]

SPEAKING = """
import logging, sys
from pathlib import Path
from rrl.processes.logs import open_log
logging.basicConfig(format="%(message)s", level=logging.INFO)
with open_log(Path(sys.argv[1]), int(sys.argv[2])):
    print("printed")
    logging.getLogger("rrl").info("logged")
    if sys.argv[3] == "fail":
        raise RuntimeError("the reason")
"""


def speaking(folder: Path, rank: int, how: str = "", **more: str) -> tuple[str, str]:
    """What a rank prints, and what is in its log."""
    command = [sys.executable, "-c", SPEAKING, str(folder), str(rank), how]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **more})
    return done.stdout + done.stderr, (folder / "logs" / f"rank-{rank}.log").read_text()


def test_the_first_rank_speaks_to_the_user_and_the_others_into_their_logs(tmp_path: Path) -> None:
    printed, log = speaking(tmp_path, 0)
    assert printed == "printed\nlogged\n"
    assert log.endswith(" INFO logged\n") and "printed" not in log
    printed, log = speaking(tmp_path, 1)
    assert printed == "" and "printed\n" in log and " INFO logged\n" in log


def test_a_log_goes_on_where_it_ended(tmp_path: Path) -> None:
    assert speaking(tmp_path, 0)[1].count("logged") == 1
    assert speaking(tmp_path, 0)[1].count("logged") == 2


def test_the_reason_of_a_failure_is_reported_by_the_parent_where_there_is_one(tmp_path: Path) -> None:
    printed, _ = speaking(tmp_path, 0, "fail")
    assert "RuntimeError: the reason" in printed
    printed, log = speaking(tmp_path, 0, "fail", RRL_PARENT="0")
    assert "the reason" not in printed and "RuntimeError: the reason" in log


def test_a_rank_imports_nothing_heavy_before_it_looks_after_its_parent() -> None:
    program = (
        f"import sys, {work.__module__}, rrl.processes.launch; assert not {{'torch', 'hydra'}} & sys.modules.keys()"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
