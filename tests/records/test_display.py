"""The bar of progress: whole lines above it, and what it shows at every width."""

import sys
from typing import Any

import pytest

from fixtures.terminal import on_terminal
from rrl.records import display
from rrl.records.console import cleaned
from rrl.records.display import Bar, Lines
from rrl.records.progress import Stretch, bar_text

pytestmark = pytest.mark.usefixtures("own_messages")

STEP = {
    "training/global_step": 31.0, "budget/tokens_generated": 126_000.0, "critic/score/fresh/mean": 0.4118,
    "val-core/trace/acc/greedy": 0.9, "val-core/trace/error_frac/greedy": 0.5, "val-core/trace/acc/mean@4": 0.3806,
}  # fmt: skip

PRINTERS = {
    "print": "print('MARK print end')",
    "standard error": "print('MARK standard error end', file=sys.stderr)",
    "own log": "logging.getLogger('rrl.own').info('MARK own log end')",
    "other log": "logging.getLogger('other').warning('MARK other log end')",
    "handler made before": "early.error('MARK handler made before end')",
    "a child": "subprocess.run(['sh', '-c', 'echo MARK a child end >&2'])",
    "a child's output": "subprocess.run(['echo', \"MARK a child's output end\"])",
    "in two pieces": "os.write(2, b'MARK in two '); time.sleep(0.02); os.write(2, b'pieces end\\n')",
    "by C": "os.write(1, b'MARK by C end\\n')",
    "other bar": "sys.stderr.write('\\r 1%|'); sys.stderr.flush(); sys.stderr.write('\\rMARK other bar end\\n')",
    "cursor": "print('MARK \\x1b[2K\\x1b[1Acursor end')",
    "a thread": "t = threading.Thread(target=lambda: print('MARK a thread end')); t.start(); t.join()",
    "without an end": "sys.stdout.write('MARK without an end end'); sys.stdout.flush()",
}

NOISE = """
import logging, os, subprocess, sys, threading, time, warnings
early = logging.getLogger("early")
early.addHandler(logging.StreamHandler(sys.stdout))
early.propagate = False
from rrl.cli import shell
from rrl.records.display import display
shell.quieten()
shown = display("rrl", every=0)
shown.begin("training")
for step in (1, 2):
    shown.phase("update_actor")
    {lines}
    shown.advance(step / 2, {{"training/global_step": float(step), "budget/tokens_generated": 5e4}})
shown.close()
print("AFTER")
"""

INTERRUPTED = """
import os, sys, time
from rrl.records.display import display
shown = display("rrl", every=0)
shown.begin("training")
terminal = os.open(os.ttyname(0), os.O_WRONLY)
os.write(terminal, b"^C")
print("MARK", flush=True)
time.sleep(0.2)
shown.close()
"""

GONE = """
import os, sys
from rrl.records import display
shown = display.display("rrl", every=0)
shown.begin("training")
null = os.open("/dev/full", os.O_WRONLY)
os.dup2(null, display._Screen.console.terminal.fileno())
for step in range(3000):
    print("x" * 99)
    shown.advance(step / 3000, {"training/global_step": float(step)})
shown.close()
"""


def test_a_terminal_that_is_gone_keeps_no_one_waiting() -> None:
    assert on_terminal(GONE, 80) is not None  # and the process has ended well, after more than a pipe holds


@pytest.mark.parametrize("width", [pytest.param(120, marks=pytest.mark.slow), 80])
def test_what_a_terminal_writes_for_ctrl_c_is_gone_with_the_next_line(width: int) -> None:
    rows = on_terminal(INTERRUPTED, width)
    assert [row for row in rows if "MARK" in row] == ["MARK"]
    assert not any("^C" in row for row in rows), rows
    assert sum("rrl" in row for row in rows) == 1, rows


@pytest.mark.parametrize("width", [*(pytest.param(width, marks=pytest.mark.slow) for width in (120, 80)), 40])
def test_whatever_prints_during_training_stands_in_whole_lines(width: int) -> None:
    rows = on_terminal(NOISE.format(lines="\n    ".join(PRINTERS.values())), width)
    marked = [row for row in rows if "MARK" in row or "end" in row]
    # What has no end of its own is one line with what comes next; that is the next step's first mark.
    for name in PRINTERS:
        assert sum(f"MARK {name} end" in row for row in marked) == 2, (name, rows)
    assert all(row.startswith("MARK") and row.endswith("end") for row in marked), marked
    assert rows[-2].startswith("AFTER") or "AFTER" in rows
    assert sum("step 2" in row for row in rows) == 1, rows


def test_a_bar_of_80_columns_shows_step_tokens_reward_accuracy_phase_and_time_left(clock: Any) -> None:
    # 72.4 seconds for 42 % make 100 for the other 58 %, of which 5 are gone.
    assert bar_text("rrl", halfway(clock), 77) == (
        "rrl 42% step 31 126k tokens reward 0.412 accuracy 0.381 gen 5 s 1:35 left"
    )


def halfway(clock: Any, **changes: Any) -> Stretch:
    """A stretch 42 % through after 72.4 seconds, 5 seconds in its phase."""
    stretch = Stretch("training")
    stretch.advance(0.0, {})
    clock.now += 72.4
    stretch.advance(0.42, {**STEP, **changes})
    stretch.enter("gen")
    clock.now += 5
    return stretch


@pytest.mark.parametrize(
    ("width", "text"),
    [
        # 38 cells, of which 42 % are 15.96.
        (
            119,
            "rrl 42% [###############.......................] step 31 126k tokens reward 0.412 accuracy 0.381 gen 5 s "
            "1:35 left",
        ),
        (60, "step 31 126k tokens reward 0.412 accuracy 0.381 1:35 left"),
        (40, "step 31 reward 0.412 1:35 left"),
        (20, "step 31 1:35 left"),
        (5, ""),
        (-1, ""),
    ],
)
def test_a_narrow_bar_leaves_out_what_is_worth_least(width: int, text: str, clock: Any) -> None:
    assert bar_text("rrl", halfway(clock), width) == text


def test_the_longest_numbers_fit_80_columns(clock: Any) -> None:
    later = {"training/global_step": 12_345.0, "budget/tokens_generated": 123_456_789.0}
    stretch = halfway(clock, **later)
    stretch.enter("save_checkpoint")
    stretch.left = lambda: 45_296.0  # type: ignore[method-assign]
    assert bar_text("rltf_original", stretch, 77) == "step 12345 123M tokens reward 0.412 accuracy 0.381 12:34:56 left"


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (126_400, "126k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (12_345_678_900, "12.3G"),
    ],
)
def test_tokens_are_reported_in_three_digits(tokens: int, text: str, clock: Any) -> None:
    stretch = halfway(clock, **{"budget/tokens_generated": float(tokens)})
    assert f"step 31 {text} tokens reward" in bar_text("rrl", stretch, 200)


def test_the_last_accuracy_stays_until_the_next(clock: Any) -> None:
    stretch = halfway(clock)
    stretch.advance(0.5, {"training/global_step": 32.0, "loss": float("nan")})
    assert stretch.numbers["accuracy"] == 0.3806
    assert "step 32 126k tokens reward 0.412 accuracy 0.381 loss nan" in bar_text("rrl", stretch, 200)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"plain", "plain"),
        (b"one\rtwo\r", "two"),
        (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        (b"\x1b[3A\x1b[2Kup\x07", "up"),
        (b"\x00tab\tstays", "tab\tstays"),
        (b"\xff half \xe2\x82", "\ufffd half \ufffd"),
        (b"", ""),
    ],
)
def test_a_line_is_shown_without_what_moves_the_cursor(line: bytes, text: str) -> None:
    assert cleaned(line) == text


@pytest.mark.parametrize(("term", "kind"), [("xterm", Bar), ("dumb", Lines), (None, Lines)])
def test_there_is_a_bar_only_where_a_line_can_be_drawn_again(
    term: str | None, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    assert type(display.display("rrl")) is kind
