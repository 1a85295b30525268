"""What is seen while a run goes on: the bar, whole lines above it, the log's lines, the last words."""

import io
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.terminal import on_terminal
from rrl.processes import logs, machine
from rrl.processes.clock import Clock
from rrl.processes.machine import peak, peaks, restart_peak
from rrl.records import display
from rrl.records.console import cleaned
from rrl.records.display import Bar, Lines
from rrl.records.progress import Stretch, bar_text
from rrl.records.pulse import beat
from rrl.records.summary import closing_lines

STEP = {
    "training/global_step": 31.0, "budget/tokens_generated": 126_000.0, "critic/score/fresh/mean": 0.4118,
    "val-core/trace/acc/greedy": 0.9, "val-core/trace/error_frac/greedy": 0.5, "val-core/trace/acc/mean@4": 0.3806,
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_messages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As the commands do: messages of this project from INFO on."""
    logger = logging.getLogger("rrl")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that moves only when it is told to."""

    class Clock:
        now = 100.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


# --- whole lines above the bar ----------------------------------------------------------------------------------------

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


def test_a_terminal_that_is_gone_keeps_nobody_waiting() -> None:
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
def test_tokens_are_told_in_three_digits(tokens: int, text: str, clock: Any) -> None:
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


# --- the log's lines --------------------------------------------------------------------------------------------------


def test_of_steps_and_of_phases_there_is_a_line_every_so_many_seconds(
    clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lines = Lines("rrl", every=30)
    lines.begin("training")
    for step in range(1, 6):
        for phase in ("gen", "update_actor"):
            lines.phase(phase)
            clock.now += 7
        lines.advance(step / 5, {"training/global_step": float(step)})
    lines.close()
    assert caplog.messages == [
        "rrl: training begins",  # at 0 s
        "rrl: training 20 %, step 1, 14 s",
        "rrl: training step 4: update_actor",  # at 49 s: none for 35 s
        "rrl: training 80 %, step 4, 56 s, 14 s left",  # at 56 s: none of a step for 42 s
        "rrl: training 100 %, step 5, 70 s, 0 s left",
    ]


def test_with_0_seconds_every_phase_and_step_has_its_line(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines("rrl", every=0)
    lines.begin("training")
    for phase in ("testing", "gen", "reward"):
        lines.phase(phase)
        lines.advance(0.25, {"training/global_step": 2.0})
    lines.close()
    told = [re.sub(r"\d+ s", "n s", message) for message in caplog.messages]
    step = "rrl: training 25 %, step 2, n s"
    assert told[:2] == ["rrl: training begins", "rrl: training testing"]
    assert told[2:] == [step, "rrl: training step 3: gen", step, "rrl: training step 3: reward", step]


def test_evaluations_and_checkpoints_are_told_whenever_they_come_after_a_while(
    clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lines = Lines("rrl", every=30)
    lines.begin("training")
    for wait, phase in ((1, "testing"), (1, "save_checkpoint"), (1, "testing"), (28, "testing"), (1, "testing")):
        clock.now += wait
        lines.phase(phase)
    lines.advance(0.5, {"val-core/x/acc/greedy": 0.25})
    lines.close()
    assert caplog.messages[1:] == [
        "rrl: training testing", "rrl: training save_checkpoint", "rrl: training testing",
        "rrl: training 50 %, accuracy 0.250, 32 s",
    ]  # fmt: skip


@pytest.mark.parametrize(("work", "did"), [(0, "nothing done"), (1200, "1,200 pieces of work done")])
def test_a_phase_that_lasts_is_slow_or_stuck(work: int, did: str, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines("rrl", every=30)
    lines.begin("training")
    lines.advance(0.5, {"training/global_step": 6.0})
    lines.phase("gen")
    clock.now += 61
    beat(work)
    told = lines._lasts(lines._stretch)  # type: ignore[arg-type]
    assert re.sub(r"CPU \d+ %", "CPU n %", told) == f"step 7: gen for 61 s; {did} in the last 61 s, CPU n %"
    lines.close()


def test_a_phase_that_lasts_is_told_of_within_one_and_a_half_intervals(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines("rrl", every=0.1)
    lines.begin("loading")
    deadline = time.monotonic() + 10
    while len(caplog.messages) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    lines.close()
    assert caplog.messages[0] == "rrl: loading begins"
    assert all("loading continues for 0 s; nothing done" in message for message in caplog.messages[1:3])


def test_lines_have_local_time_with_its_distance_from_utc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    with logs.open_log(tmp_path, 0):
        logging.getLogger("rrl.x").info("hello")
    monkeypatch.undo()
    time.tzset()
    written = (tmp_path / "logs" / "rank-0.log").read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0530 INFO hello\n", written)


@pytest.mark.parametrize(("watched", "shown"), [(True, "hello\n"), (False, "T1 bar\nT1 hello\n")])
def test_a_person_sees_no_lines_of_progress_and_no_time_stamps(
    watched: bool, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, stream = logging.getLogger(), io.StringIO()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(logs, "on_terminal", lambda: watched)
    monkeypatch.setattr(logs, "STAMP", "T1")
    monkeypatch.setattr(sys, "stderr", stream)
    logs.set_up_logging()
    logging.getLogger("rrl.records.progress").info("bar")
    logging.getLogger("rrl.x").info("hello")
    assert stream.getvalue() == shown


# --- the last words ---------------------------------------------------------------------------------------------------


def measured(step: int, overall: float, hard: float) -> dict[str, Any]:
    def part(accuracy: float) -> dict[str, Any]:
        return {"accuracy": accuracy, "interval95": [accuracy - 0.125, accuracy + 0.125]}

    levels = {"L3": part(0.875), "L10": part(hard)}
    return {"step": step, "split": "test", "greedy": {**part(overall), "levels": levels}}


def a_run(folder: Path, *evaluations: dict[str, Any], last: int = 1) -> Path:
    """A run's directory with rows of metrics up to the step ``last``."""
    folder.mkdir()
    costs = {"timing_s/step": 100.0, "timing_s/testing": 21.0, "timing_s/gen": 60.0, "budget/tokens_generated": 2048}
    memory = {"perf/max_memory/gen": 0.5, "perf/max_memory/update_actor": 1.25, "perf/max_memory/adv": None}
    rows = [{"step": 0}, *({"step": step, **costs, **memory} for step in range(1, last + 1))]
    for name, content in (("metrics", rows), ("evaluations", evaluations)):
        text = "".join(json.dumps(row) + "\n" for row in content)
        (folder / f"{name}.jsonl").write_text(text + '{"torn')
    return folder


LIMITS = {"trainer": {"total_tokens": 300_000, "total_training_steps": None}}


def test_a_finished_run_ends_with_what_came_of_it_and_what_to_type(tmp_path: Path) -> None:
    run = a_run(tmp_path / "my run", measured(0, 0.25, 0.125), measured(2, 0.5, 0.25), last=2)
    assert closing_lines(run, "finished", LIMITS) == [
        "finished after 2 steps, 2,048 tokens generated, 4 min 2 s",
        "accuracy (greedy): 0.250 [0.125, 0.375] before, 0.500 [0.375, 0.625] at step 2",
        "  by level: L3 0.875 -> 0.875, L10 0.125 -> 0.250",
        "memory of a process: at most 1.25 GiB, in update_actor",
        f"run: {run}",
        f"model: {run / 'actor'}",
        f"measure it: rrl-evaluate from_run='{run}' evaluation.n=16",
        f"train it twice as long: rrl-train resume='{run}' trainer.total_tokens=600000",
        f"see all runs: rrl-status {tmp_path}",
    ]


def test_a_run_that_was_interrupted_or_failed_ends_with_how_to_go_on(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", measured(0, 0.25, 0.125))
    assert closing_lines(run, "interrupted", LIMITS)[1:] == [
        "accuracy (greedy): 0.250 [0.125, 0.375] before training",
        "memory of a process: at most 1.25 GiB, in update_actor",
        f"run: {run}", "model: none is saved yet", f"continue: rrl-train resume={run}",
    ]  # fmt: skip
    (run / "checkpoints" / "step-000001" / "actor").mkdir(parents=True)
    assert closing_lines(run, "failed", LIMITS)[-3:] == [
        f"model: {run / 'checkpoints' / 'step-000001' / 'actor'}", f"logs: {run / 'logs'}",
        f"continue: rrl-train resume={run}",
    ]  # fmt: skip


def test_steps_in_which_engine_and_policy_differed_are_counted_at_the_end(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", measured(0, 0.25, 0.125))
    rows = [{"training/rollout_probs_diff_mean": 0.02}, {"training/rollout_kl": 0.5}, {"training/rollout_kl": 0.01}, {}]
    text = "".join(json.dumps({"step": step, **row}) + "\n" for step, row in enumerate(rows))
    (run / "metrics.jsonl").write_text(text)
    told = {"trainer": {**LIMITS["trainer"], "mismatch_limit": 0.01}}
    assert "engine and policy differed by more than 0.01 in 2 steps" in closing_lines(run, "finished", told)
    assert not any("differed" in line for line in closing_lines(run, "finished", LIMITS))


def test_the_last_words_of_a_failed_run_stand_below_the_traceback_too() -> None:
    program = (
        "import logging; from rrl.cli import shell; shell.quieten(); from rrl.processes.logs import log_lines_twice\n"
        "log_lines_twice(['go on: so'])\nraise ValueError('x')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    said = [line.split(" ", 1)[-1] for line in done.stderr.splitlines()]
    assert (said[0], said[-2:]) == ("go on: so", ["x", "go on: so"])


def test_a_run_that_never_began_has_no_last_words(tmp_path: Path) -> None:
    assert closing_lines(tmp_path, "failed", LIMITS) == []


# --- peaks of memory --------------------------------------------------------------------------------------------------


def test_a_phase_has_its_own_peak_of_memory_even_after_a_larger_one() -> None:
    clock = Clock()
    for name, megabytes in (("large", 300), ("small", 100), ("nothing", 0), ("small", 20)):
        with clock.phase(name):
            held = bytearray(megabytes * 2**20)
            held[::4096] = b"x" * len(held[::4096])
            del held
    peaks = {name.removeprefix("perf/max_memory/"): 1024 * size for name, size in clock.peaks().items()}
    assert peaks["large"] - peaks["nothing"] == pytest.approx(300, abs=30)
    assert peaks["small"] - peaks["nothing"] == pytest.approx(100, abs=30)
    assert clock.peaks() == {}


def test_the_peak_of_the_whole_process_outlives_those_of_phases() -> None:
    held = bytearray(200 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    before = peaks()[0].size
    del held
    restart_peak()
    assert peaks()[0].size == before


def test_where_the_kernel_sets_no_mark_back_a_phase_has_what_is_held_or_the_new_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = iter([(100, 900), (300, 900), (200, 900), (200, 1500), (250, 1500), (100, 1500)])
    monkeypatch.setattr(machine, "_resident", lambda: next(told))
    found = []
    for _ in range(3):
        restart_peak()
        found.append(peak())
    assert found == [300, 1500, 250]


def test_there_is_no_peak_where_nobody_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_resident", lambda: (0, 0))
    clock = Clock()
    with clock.phase("gen"):
        pass
    assert clock.peaks() == {}


def test_an_accelerator_tells_its_own_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cuda:
        held, most = 10, 70

        def is_initialized(self) -> bool:
            return True

        def device_count(self) -> int:
            return 1

        def max_memory_allocated(self, number: int) -> int:
            return self.most

        def reset_peak_memory_stats(self, number: int) -> None:
            self.most = self.held

    cuda = Cuda()
    monkeypatch.setattr(machine, "_cuda", lambda: cuda)
    monkeypatch.setattr(machine, "_whole", {})
    restart_peak()
    cuda.most = 40
    assert (peak(), machine._whole[0]) == (40, 70)
