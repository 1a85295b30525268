"""rrl-watch: what it shows of runs as they grow, and that it leaves terminal and runs as they were."""

import fcntl
import json
import os
import re
import signal
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.status import make_run
from fixtures.terminal import Attended
from rrl.cli import watch
from rrl.cli.screen import page, sparkline
from rrl.errors import ConfigError
from rrl.records.status import write_state
from rrl.records.watching import FollowedRun, Follower, Watcher


def append(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of this process with forty steps, three evaluations and a dump of step 40."""
    folder = make_run(tmp_path / "runs" / "rrl")
    write_state(folder, "running")
    last = {"verdict/right": 0.25, "verdict/wrong": 0.75, "verdict/error": 0.0, "critic/score/fresh/mean": 0.25}
    replay = {"replay/buffer_size": 1234.0, "replay/ratio": 0.5, "replay/success_rate": 0.125, "replay/first_solves": 3}
    append(folder / "metrics.jsonl", {"step": 41, "budget/tokens_generated": 2050, **last, **replay})
    for step, accuracy in ((0, 0.0), (20, 0.5), (40, 0.25)):
        modes = {"greedy": {"accuracy": 1.0}, "mean@4": {"accuracy": accuracy}}
        append(folder / "evaluations.jsonl", {"step": step, "seed": 1, **modes})
    for step, answer in ((20, "old"), (40, "4 2\x1b[2J\u202e")):
        rows = [{"verdict": "wrong", "response": answer}, {"verdict": "wrong", "response": "other"}]
        append(folder / "rollouts" / f"step-{step:06d}.jsonl", *({"step": step, **row} for row in rows))
    return folder


def lines(*folders: Path, first: int = 0, width: int = 80, height: int = 99) -> list[str]:
    views = Watcher(lambda: folders).look()
    return [line.plain for line in page(views, first, width, height)]


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_a_running_run_is_shown_in_full(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parents[1])
    head, _, *rest = lines(Path("runs/rrl"))
    assert head.startswith("1 running, 0 others   ") and head.endswith("   q quits")
    # of 41 values the last two share a column: (0.40 + 0.25) / 2; the others are round((k - 1) * 7 / 38)
    curve = "▁" * 3 + "▂" * 6 + "▃" * 5 + "▄" * 5 + "▅" * 6 + "▆" * 5 + "▇" * 6 + "█" * 3 + "▇"
    assert [re.sub(r"  \d s ago", "", line) for line in rest] == [
        "runs/rrl",
        "            running  step 41/100  2,050/6,000 tokens  41%",
        f"  reward    0.250  {curve}  0.010 to 0.400",
        "  accuracy  0.250  ▁█▅  0.000 to 0.500 mean@4",
        "  verdicts  wrong 75%  right 25%",
        "  replay    1,234 states  50% starts  success 0.12  3 first solves",
        "  step 40   wrong  4 2\\x1b[2J\\u202e",
    ]


def test_nothing_is_wider_than_the_terminal_and_nothing_longer(run: Path) -> None:
    make_run(run.with_name("x" * 200))
    for width in (20, 40, 80):
        assert max(map(len, lines(run, run.with_name("x" * 200), width=width))) <= width
    assert len(lines(run, run.with_name("x" * 200), height=5)) == 5


def test_runs_that_do_not_fit_are_counted_and_moved_to(run: Path) -> None:
    others = [make_run(run.with_name(name)) for name in ("b", "c")]
    for hour, folder in zip((3, 2, 1), (run, *others), strict=True):  # the latest comes first
        (folder / "status.json").write_text(json.dumps({"started": f"2026-01-01T0{hour}:00:00+00:00"}))
        write_state(folder, "running")
    assert [line for line in lines(run, *others, height=16, width=200) if "/runs/" in line] == [
        str(run),
        str(others[0]),
    ]
    assert lines(run, *others, height=16, width=200)[0].endswith("   1 to 2 of 3: j, k")
    assert [line for line in lines(run, *others, height=16, width=200, first=2) if "/runs/" in line] == [str(others[1])]


def test_runs_that_do_not_run_have_a_line_each_with_the_reason_of_a_failure(run: Path) -> None:
    failed = make_run(run.with_name("b"))
    write_state(failed, "failed", "loss is nan\nat step 3")
    *_, last = lines(run, failed, width=200)
    assert re.sub(r"\d s ago", "0 s ago", last) == f"{failed!s:<100}  failed, 0 s ago: loss is nan at step 3"


def test_a_curve_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 7, 0], 8) == "▁█▁"
    assert sparkline([5, 5], 8) == "▁▁"
    assert sparkline([0, 0, 7, 7], 2) == "▁█"


# --- how it is followed -----------------------------------------------------------------------------------------------


def test_only_new_whole_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = Follower(path)
    assert follower.news() == (False, [])
    path.write_text('{"step": 0}\n{"step": 1}\n{"step"')
    assert follower.news() == (True, [{"step": 0}, {"step": 1}])
    with path.open("a") as file:
        file.write(": 2}\n")
    assert follower.news() == (False, [{"step": 2}])
    assert follower.news() == (False, [])


def test_a_file_that_a_resume_rewrote_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = Follower(path)
    path.write_text('{"step": 0}\n{"step": 1}\n')
    follower.news()
    (tmp_path / "aside").write_text('{"step": 0}\n{"step": 9}\n{"step": 10}\n')
    (tmp_path / "aside").rename(path)
    assert follower.news() == (True, [{"step": 0}, {"step": 9}, {"step": 10}])
    path.write_text('{"step": 0}\n')
    assert follower.news() == (True, [{"step": 0}])


def test_a_run_is_only_read_and_its_lock_left_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    monkeypatch.setattr(fcntl, "flock", None)
    assert FollowedRun(run).look().state.state == "running"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_process_that_is_gone_was_killed_and_one_of_another_host_may_live(run: Path) -> None:
    status = json.loads((run / "status.json").read_text())
    for pid, host, state in ((2**22 + 1, status["host"], "killed"), (2**22 + 1, "elsewhere", "running")):
        (run / "status.json").write_text(json.dumps({**status, "pid": pid, "host": host}))
        assert FollowedRun(run).look().state.state == state


@pytest.mark.parametrize("damage", [b"", b"\xff\n", b'{"step": 1, "greedy": {}}\n', b'{"step": 1}\n'])
def test_damaged_records_are_shown_as_far_as_they_can_be_read(damage: bytes, run: Path) -> None:
    for name in ("metrics.jsonl", "evaluations.jsonl", "rollouts/step-000040.jsonl"):
        (run / name).write_bytes(damage)
    assert any("running" in line for line in lines(run)[1:])


# --- on a terminal ----------------------------------------------------------------------------------------------------


@pytest.fixture
def attended(run: Path) -> Iterator[Attended]:
    """The command on a terminal of 80 columns, once it has shown the run."""
    program = f"import sys; sys.argv = ['rrl-watch', {str(run)!r}, 'every=0.1']\nfrom rrl.cli.watch import main; main()"
    session = Attended(program, 80)
    session.until("3 first solves")
    yield session
    session.close()


def interrupted(session: Attended) -> None:
    os.kill(session.child.pid or 0, signal.SIGINT)


def terminated(session: Attended) -> None:
    os.kill(session.child.pid or 0, signal.SIGTERM)


@pytest.mark.parametrize(
    "leave", [lambda session: session.type("q"), lambda session: session.type("\x03"), interrupted, terminated]
)
def test_it_ends_at_once_and_leaves_the_terminal_as_it_was(
    leave: Callable[[Attended], None], attended: Attended
) -> None:
    assert termios.tcgetattr(attended.slave) != attended.attributes, "no echo"
    leave(attended)
    code, output = attended.end()
    assert code == 0
    assert termios.tcgetattr(attended.slave) == attended.attributes
    assert "\x1b[?1049l" in output and "\x1b[?25h" in output, "the first screen, and the cursor"
    assert "Traceback" not in output


def test_a_new_row_is_shown_and_other_keys_do_nothing(attended: Attended, run: Path) -> None:
    attended.type("x\x1a")
    append(run / "metrics.jsonl", {"step": 42, "critic/score/fresh/mean": 0.625, "budget/tokens_generated": 2100})
    assert "step 42/100" in attended.until("0.625")
    attended.type("q")
    assert attended.end()[0] == 0


def test_without_a_terminal_it_prints_once_and_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch._watch([str(run.parent)])
    printed = capsys.readouterr()
    assert "3 first solves" in printed.out and "\x1b" not in printed.out
    assert printed.err == "rrl-watch: there is no terminal to show this on: printed once\n"


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    for words, reported in (
        ([str(tmp_path), "every=0"], "every: expected a number of seconds from 0.1 to 3600, got '0'"),
        ([str(tmp_path / "nowhere")], "nowhere: no such folder"),
        ([str(tmp_path), "--live"], "--live: no such option; expected folders, every= or --help"),
    ):
        with pytest.raises(ConfigError, match=reported):
            watch._watch(words)
