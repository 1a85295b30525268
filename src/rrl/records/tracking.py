"""Trackers of metrics: metrics.jsonl always, Weights & Biases or TensorBoard in addition by choice."""

import importlib.util
import json
import logging
import math
import os
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rrl.ranges import Range, check_ranges
from rrl.records.files import write_whole
from rrl.records.secrecy import hidden, redacted
from rrl.records.sidecar import Sidecar, SidecarError
from rrl.records.texts import as_json, shortened, visible

log = logging.getLogger(__name__)
Row = Mapping[str, Any]
KEY = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+|([\w]+-)?[\w-]{40,}")
"""A W&B key: a JWT, or 40 characters or more, after a prefix on private servers."""
MOST_SHOWN = 20_000
"""Characters of a text that a sink receives; the dumps have the whole text."""


class Sink(Protocol):
    """Receives metrics beside the JSONL file. May raise any exception: the tracker then continues without it."""

    def check(self) -> list[str]:
        """Faults that are known before the run has a directory. Cheap, no network."""

    def start(self, folder: Path, config: Mapping[str, Any], after: int | None) -> None:
        """Begin the run in ``folder``, or continue it after the step ``after``."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Receive one step's metrics."""

    def samples(self, step: int, rows: Sequence[Row]) -> None:
        """Receive a few responses as a table: text and numbers by column."""

    def summary(self, result: Mapping[str, Any]) -> None:
        """Receive the final result."""

    def finish(self, complete: bool) -> None:
        """End the run; not ``complete`` when it was interrupted."""


class Tracker:
    """Writes metrics.jsonl, and passes the same to a sink until that fails."""

    def __init__(self, folder: Path, sink: Sink | None, config: Mapping[str, Any], after: int | None) -> None:
        """``after`` is None in a new run, else the resumed step, to which the records have been rewound."""
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._next = 0 if after is None else after + 1
        self._complete = False
        self._sink = sink
        self._pass_on("start", folder, hidden(config), after)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one JSON object as a line, before the sink receives it; numbers that are not finite become null.

        Rows arrive in order, one a step.
        """
        assert step == self._next, f"got a row of step {step}, expected step {self._next}"
        self._next += 1
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **finite}, allow_nan=False) + "\n")
        self._file.flush()
        self._pass_on("log", step, metrics)

    def samples(self, step: int, rows: Sequence[Row]) -> None:
        """Pass on a few responses, long ones shortened; what is neither text nor number as JSON."""
        self._pass_on("samples", step, [{name: _sample_cell(value) for name, value in row.items()} for row in rows])

    def summary(self, result: Mapping[str, Any]) -> None:
        """Pass on the final result: the run is complete."""
        self._complete = True
        self._pass_on("summary", result)

    def finish(self) -> None:
        self._file.close()
        self._pass_on("finish", self._complete)
        self._sink = None

    def _pass_on(self, what: str, *arguments: Any) -> None:
        try:
            if self._sink is not None:
                getattr(self._sink, what)(*arguments)
        except Exception as error:
            # A sink is a convenience, and its library may raise anything; a run must not fail with it.
            kind = "" if isinstance(error, SidecarError) else f"{type(error).__name__}: "
            why = redacted(shortened(" ".join(f"{kind}{error}".split()), 1000))
            name = type(self._sink).__name__
            log.warning("logger: %s fails (%s); the run continues with metrics.jsonl alone", name, why)
            self._sink = None


def _sample_cell(value: Any) -> Any:
    if isinstance(value, int | float | None):
        return value
    text = value if isinstance(value, str) else as_json(value).decode()
    return shortened(visible(text), MOST_SHOWN)


@dataclass(kw_only=True)
class WandB(Sink):
    """Weights & Biases: online with WANDB_API_KEY in the environment, else (or with WANDB_MODE=offline) offline.

    ``project``, ``entity`` (null: W&B's default for the key), ``group`` and ``tags`` are W&B's own. W&B runs in a
    separate process, with ``patience`` seconds for each call and for the end of the run; after that the run continues
    without it. The run's id is kept in wandb-run.json, so that a resumed run continues the same W&B run.
    """

    project: str
    entity: str | None
    group: str | None
    tags: tuple[str, ...]
    patience: float
    _process: Sidecar = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_ranges(self, Range(("patience",), 1, 86400, "1 to 86400 seconds"))
        if not self.project or len(self.project) > 128 or set(self.project) & set("/\\#?%:"):
            raise ValueError(f"project: expected 1 to 128 characters without / \\ # ? % :, got {self.project!r}")

    def check(self) -> list[str]:
        """A fault for an invalid key."""
        key = os.environ.get("WANDB_API_KEY", "")
        if not key or KEY.fullmatch(key):
            return []
        return [
            f"logger: WANDB_API_KEY in the environment is no key of Weights & Biases ({len(key)} characters); expected "
            "40 or more letters, digits, _ and -; correct it, unset it to write offline, or use logger=none"
        ]

    def start(self, folder: Path, config: Mapping[str, Any], after: int | None) -> None:
        """Start W&B's process, which opens the run in the background."""
        self._process = Sidecar("rrl.records.wandb_process", folder)
        about = {"project": self.project, "entity": self.entity, "group": self.group, "tags": self.tags}
        place = {"folder": str(folder.absolute()), "name": folder.absolute().name, "id": _run_id(folder, after)}
        command = [redacted(argument) for argument in sys.argv]
        mode = os.environ.get("WANDB_MODE", "online")
        mode = "offline" if mode == "online" and not os.environ.get("WANDB_API_KEY") else mode
        here = {"command": command, "pid": os.getpid(), "mode": mode, "patience": self.patience}
        self._send(config=config, **about, **place, **here)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._send(call="log", step=step, metrics=metrics)

    def samples(self, step: int, rows: Sequence[Row]) -> None:
        self._send(call="samples", step=step, rows=rows)

    def summary(self, result: Mapping[str, Any]) -> None:
        self._send(call="summary", result=result)

    def finish(self, complete: bool) -> None:
        """Close the W&B run, failed unless complete, and wait for its upload."""
        self._send(call="finish", complete=complete)
        self._pass_on(self._process.close(self.patience))

    def _send(self, **message: Any) -> None:
        self._pass_on(self._process.send(hidden(message)))

    def _pass_on(self, lines: Sequence[str]) -> None:
        for line in lines:
            log.warning("logger: Weights & Biases: %s", redacted(line))


def _run_id(folder: Path, after: int | None) -> str:
    """The W&B run's id: random for a new run, stored for a resumed one."""
    path = folder / "wandb-run.json"
    if after is None or not path.exists():
        write_whole(path, json.dumps({"id": secrets.token_hex(4)}).encode() + b"\n")
    return str(json.loads(path.read_text(encoding="utf-8"))["id"])


@dataclass(kw_only=True)
class TensorBoard(Sink):
    """TensorBoard's event files in the run's folder tensorboard; it has no settings."""

    _writer: Any = field(init=False, repr=False)

    def check(self) -> list[str]:
        """A fault where TensorBoard, an extra, is not installed."""
        if importlib.util.find_spec("tensorboard") is not None:
            return []
        return ["logger: tensorboard is not installed; expected it; pip install 'rrl[tensorboard]', or use logger=none"]

    def start(self, folder: Path, config: Mapping[str, Any], after: int | None) -> None:
        """Open an event file; repeated steps replace those that an interrupted process wrote."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=None if after is None else after + 1)
        if after is None:
            self._writer.add_text("config", _markdown_code(config), 0)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write and flush one scalar a metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def samples(self, step: int, rows: Sequence[Row]) -> None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        texts = ([str(row.get(name, "")) for name in columns] for row in rows)
        cells = ([text.replace("|", "\\|").replace("\n", "<br>") for text in row] for row in texts)
        table = [columns, ["---"] * len(columns), *cells]
        self._writer.add_text("samples", "\n".join(f"| {' | '.join(row)} |" for row in table), step)

    def summary(self, result: Mapping[str, Any]) -> None:
        self._writer.add_text("result", _markdown_code(result))

    def finish(self, complete: bool) -> None:
        self._writer.close()


def _markdown_code(content: Mapping[str, Any]) -> str:
    return "\n".join(f"    {line}" for line in visible(as_json(content, indent=2).decode()).split("\n"))
