"""The screen of rrl-watch: runs as lines of text, and a terminal that shows them until a key or a signal ends it."""

import os
import select
import signal
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import pairwise
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from rrl.cli.status import done_of_total, span
from rrl.records.texts import visible
from rrl.records.watching import RunView

LEVELS, PLAIN_LEVELS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
COLOURS = {"right": "green", "wrong": "red", "unparseable": "yellow", "error": "magenta"}
SIDE = 40
"""Columns beside a curve."""
KEYS = {"q": "quit", "Q": "quit", "\x1b[A": "up", "k": "up", "\x1b[B": "down", "j": "down"}


def block(view: RunView, width: int, levels: str = LEVELS) -> list[Text]:
    """The lines of one run."""
    lines = [*_head(view, width), _curve("reward", view.reward, width, levels)]
    if view.accuracy:
        lines.append(_curve("accuracy", view.accuracy, width, levels, view.mode))
    if view.verdicts:
        shares = sorted(((name, share) for name, share in view.verdicts.items() if share), key=lambda pair: -pair[1])
        lines.append(_line("verdicts", *((f"{name} {share:.0%}", COLOURS.get(name, "")) for name, share in shares)))
    if "replay/buffer_size" in view.replay:
        lines.append(_line("replay", *((text, "") for text in _replay(view))))
    for verdict, response in view.samples.items():
        name = f"step {view.dumped}" if verdict == next(iter(view.samples)) else ""
        lines.append(_line(name, (verdict, COLOURS.get(verdict, "")), (" ".join(visible(response).split()), "dim")))
    return [_fitted(line, width) for line in lines]


def _head(view: RunView, width: int) -> Iterator[Text]:
    state = view.state
    figures = [
        state.state,
        f"step {done_of_total(state.step, state.total_steps)}",
        f"{done_of_total(state.tokens, state.total_tokens)} tokens",
        "" if state.share is None else f"{state.share:.0%}",
        "" if state.age is None else f"{span(state.age)} ago",
    ]
    yield Text(_end_of(visible(str(state.folder)), width), style="bold")
    yield _line("", ("  ".join(filter(None, figures)), ""))
    for fault in (*([state.reason] if state.reason else []), *state.faults, *state.warnings[-1:]):
        yield _line("", (" ".join(visible(fault).split()), "yellow"))


def _replay(view: RunView) -> Iterator[str]:
    numbers = {name.removeprefix("replay/"): number for name, number in view.replay.items()}
    for name, form in (
        ("buffer_size", "{:,.0f} states"), ("ratio", "{:.0%} starts"), ("success_rate", "success {:.2f}"),
        ("gain_vs_fresh", "gain {:+.2f}"), ("first_solves", "{:.0f} first solves"),
    ):  # fmt: skip
        if name in numbers:
            yield form.format(numbers[name])


def _curve(name: str, values: Sequence[float], width: int, levels: str, note: str = "") -> Text:
    """The last value, the curve, and its range."""
    if not values:
        return _line(name, ("-", ""))
    low, high = min(values), max(values)
    drawn = sparkline(values, max(8, width - SIDE), levels)
    return _line(name, (f"{values[-1]:.3f}", "bold"), (drawn, "cyan"), (f"{low:.3f} to {high:.3f} {note}", "dim"))


def sparkline(values: Sequence[float], width: int, levels: str = LEVELS) -> str:
    """One character for each value, or for the mean of each of ``width`` stretches, from the lowest to the highest."""
    count = min(width, len(values))
    ends = [len(values) * i // count for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)]
    low, high = min(means), max(means)
    scale = (len(levels) - 1) / (high - low) if high > low else 0.0
    return "".join(levels[round((mean - low) * scale)] for mean in means)


def _line(name: str, *parts: tuple[str, str]) -> Text:
    line = Text(f"  {name:<9}")
    for text, style in parts:
        line.append(f" {text}", style=style or None)
        line.append(" ")
    return line


def _fitted(line: Text, width: int) -> Text:
    """The line, cut where the window ends."""
    line.rstrip()
    line.truncate(width, overflow="ellipsis")
    return line


def _end_of(path: str, width: int) -> str:
    return path if len(path) <= width else f"...{path[3 - width :]}"


def page(views: Sequence[RunView], first: int, width: int, height: int, levels: str = LEVELS) -> list[Text]:
    """Everything that there is room for: runs in full from number ``first`` on, then a line for each of the others.

    In full are those that run or, where there is none, the one that began last.
    """
    full = [view for view in views if view.state.state == "running"] or list(views[:1])
    others = [view for view in views if view not in full]
    running = sum(view.state.state == "running" for view in views)
    lines = [Text(f"{running} running, {len(views) - running} others   {time.strftime('%H:%M:%S')}   q quits")]
    below, shown = [_other(view, width) for view in others], 0
    for view in full[first:]:
        added = [Text(""), *block(view, width, levels)]
        if shown and len(lines) + len(added) > height:
            break
        lines, shown = lines + added, shown + 1
    if len(full) > shown:
        lines[0].append(f"   {first + 1} to {first + shown} of {len(full)}: j, k")
    return [_fitted(lines[0], width), *lines[1:], *([Text(""), *below] if below else [])][:height]


def _other(view: RunView, width: int) -> Text:
    state, half = view.state, width // 2
    name, age = _end_of(visible(str(state.folder)), half), "-" if state.age is None else f"{span(state.age)} ago"
    line = Text(f"{name:<{half}}  {state.state}, {age}")
    if state.state == "failed" and state.reason:
        line.append(f": {' '.join(visible(state.reason).split())}", style="yellow")
    return _fitted(line, width)


class Screen(AbstractContextManager["Screen"]):
    """The terminal's second screen, without echo, until the context ends: then everything is as before."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False)
        self._live = Live(console=self.console, screen=True, auto_refresh=False, redirect_stderr=False)

    @property
    def width(self) -> int:
        return self.console.width

    @property
    def height(self) -> int:
        return self.console.height

    @property
    def levels(self) -> str:
        """The characters of curves, which the terminal's encoding has."""
        return LEVELS if self.console.encoding.startswith("utf") else PLAIN_LEVELS

    def __enter__(self) -> "Screen":
        self._keyboard = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._keyboard)
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)
        self._wakeup = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._handlers = {
            each: signal.signal(each, lambda *_: None)
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH)
        }
        quiet = termios.tcgetattr(self._keyboard)
        quiet[3] &= ~(termios.ECHO | termios.ICANON)
        quiet[6][termios.VSUSP] = b"\0"  # stopped by Ctrl-Z, it would leave the terminal as it is
        termios.tcsetattr(self._keyboard, termios.TCSADRAIN, quiet)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the terminal may be gone
            self._live.stop()
        with suppress(termios.error):
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._before)
        signal.set_wakeup_fd(self._wakeup)
        for each, handler in self._handlers.items():
            signal.signal(each, handler)
        os.close(self._woken)
        os.close(self._wake)

    def show(self, lines: Sequence[Text]) -> None:
        """Draw these lines, of which there are at most ``height``."""
        self._live.update(Text("\n").join(lines), refresh=True)

    def wait(self, seconds: float) -> str:
        """The next key by its meaning: quit, up or down; "" for any other, for a new size, and after these seconds."""
        ready, _, _ = select.select([self._keyboard, self._woken], [], [], seconds)
        if self._woken in ready:
            return "" if set(os.read(self._woken, 64)) == {signal.SIGWINCH} else "quit"
        if self._keyboard in ready:
            return self._key()
        return ""

    def _key(self) -> str:
        try:
            typed = os.read(self._keyboard, 64).decode(errors="replace")
        except OSError:
            return "quit"
        return KEYS.get(typed, "") if typed else "quit"  # no byte: the terminal is gone
