"""What rrl-watch shows of runs: their records, read on from where they were read before."""

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rrl.records.files import accuracy_of, by_step, modes, row_of, step_of
from rrl.records.status import RunState, read_state

REWARD = "critic/score/fresh/mean"
VERDICTS = "verdict/"
REPLAY = ("replay/buffer_size", "replay/ratio", "replay/success_rate", "replay/gain_vs_fresh", "replay/first_solves")
MOST = 200
"""Rollouts of a dump that are read."""
Row = Mapping[str, Any]


@dataclass
class Follower:
    """The rows of a growing file: ``news`` are those that were written since the last look.

    A file that was replaced or cut, as by a resume, is read from its beginning again.
    """

    path: Path
    _place: tuple[int, int] = field(default=(-1, 0), init=False)
    """The file's number and the bytes of it that are read."""

    def news(self) -> tuple[bool, list[dict[str, Any]]]:
        """Whether what came before is void, and the new whole rows."""
        try:
            with self.path.open("rb") as file:
                about = os.fstat(file.fileno())
                begun = about.st_ino == self._place[0] and about.st_size >= self._place[1]
                start = file.seek(self._place[1] if begun else 0)
                lines = file.read().split(b"\n")
        except OSError:
            return False, []
        self._place = (about.st_ino, start + sum(len(line) + 1 for line in lines[:-1]))
        return not begun, [row for line in lines[:-1] if (row := row_of(line)) is not None]


@dataclass
class Curve:
    """One number of each row of a file that has it."""

    rows: Follower
    pick: Callable[[Row], Any]
    values: list[float] = field(default_factory=list, init=False)
    last: Row = field(default_factory=dict, init=False)
    """The last row, whether it has the number or not."""

    def look(self) -> None:
        """Read what is new."""
        void, rows = self.rows.news()
        if void:
            self.values, self.last = [], {}
        picked = [self.pick(row) for row in rows]
        self.values += [float(value) for value in picked if isinstance(value, int | float)]
        self.last = rows[-1] if rows else self.last


@dataclass(frozen=True, kw_only=True)
class RunView:
    """What is shown of a run; ``samples`` are a response for each verdict among the rollouts of ``dumped``."""

    state: RunState
    reward: Sequence[float]
    accuracy: Sequence[float]
    mode: str
    verdicts: Mapping[str, float]
    replay: Mapping[str, float]
    dumped: int | None
    samples: Mapping[str, str]


@dataclass
class FollowedRun:
    """One run, looked at again and again."""

    folder: Path

    def __post_init__(self) -> None:
        self._reward = Curve(Follower(self.folder / "metrics.jsonl"), lambda row: row.get(REWARD))
        self._accuracy = Curve(Follower(self.folder / "evaluations.jsonl"), _accuracy)
        self._dump: tuple[int | None, dict[str, str]] = (None, {})

    def look(self) -> RunView:
        """The run as it is now."""
        self._reward.look()
        self._accuracy.look()
        numbers = {name: value for name, value in self._reward.last.items() if isinstance(value, int | float)}
        names = modes(self._accuracy.last)
        dumped, samples = self._samples()
        return RunView(
            state=read_state(self.folder, locks=False),
            reward=self._reward.values,
            accuracy=self._accuracy.values,
            mode=names[0] if names else "",
            verdicts={n.removeprefix(VERDICTS): v for n, v in numbers.items() if n.startswith(VERDICTS)},
            replay={name: numbers[name] for name in REPLAY if name in numbers},
            dumped=dumped,
            samples=samples,
        )

    def _samples(self) -> tuple[int | None, dict[str, str]]:
        """The last dump's step, and its first response of each verdict."""
        dumps = by_step(self.folder / "rollouts")
        step = step_of(dumps[-1]) if dumps else None
        if step is not None and step != self._dump[0]:
            self._dump = step, _first_of_each(dumps[-1])
        return self._dump if step is not None else (None, {})


def _first_of_each(dump: Path) -> dict[str, str]:
    """The first response of each verdict among the first rollouts of a dump."""
    found: dict[str, str] = {}
    with suppress(OSError), dump.open("rb") as file:
        for line in islice(file, MOST):
            if (row := row_of(line)) is not None:
                found.setdefault(str(row.get("verdict")), str(row.get("response")))
    return found


def _accuracy(row: Row) -> float | None:
    """Of an evaluation; None where it has none."""
    try:
        return accuracy_of(row)
    except (LookupError, TypeError, ValueError):
        return None


class Watcher:
    """The runs below folders, the latest first; new ones are looked for once in a while."""

    SEARCH = 5.0
    """Seconds between searches."""

    def __init__(self, find: Callable[[], Iterable[Path]]) -> None:
        self._find, self._searched = find, -math.inf
        self._followed: dict[Path, FollowedRun] = {}

    def look(self) -> list[RunView]:
        """All runs as they are now, the running ones first."""
        if time.monotonic() - self._searched >= self.SEARCH:
            self._followed = {folder: self._followed.get(folder, FollowedRun(folder)) for folder in self._find()}
            self._searched = time.monotonic()
        views = [run.look() for run in self._followed.values()]
        return sorted(views, key=lambda view: (view.state.state == "running", view.state.started or ""), reverse=True)
