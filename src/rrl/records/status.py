"""The state of a run: which process holds its directory, its progress, and how it ended. Reads no model."""

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from rrl.errors import ConfigError, closest
from rrl.records.files import by_step, last_rows, read_object, read_yaml, write_whole
from rrl.records.secrecy import redacted
from rrl.records.texts import shortened, visible

log = logging.getLogger(__name__)
Reported = Literal["running", "finished", "interrupted", "failed"]
"""What a run writes into status.json; ``killed`` and ``unknown`` are inferred by readers."""
LONGEST_REASON = 4000
"""Characters; the log has the whole traceback."""
LOG_END, MOST_WARNINGS = 65_536, 3
"""Bytes of a log that are searched for warnings, and how many are shown."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The state of a run as read from its directory; None is unknown.

    ``state`` is the last reported one, ``killed`` where that is running and no process holds the run, or ``unknown``.
    ``reward`` is the mean score of fresh rollouts in the last row that has one, ``tokens`` counts those generated,
    ``share`` is the used part of the budget (steps or tokens), ``age`` the seconds since the last row. ``faults`` names
    what could not be read, ``warnings`` are the last few in the first process's log.
    """

    folder: Path
    state: str
    reason: str | None
    started: str | None
    pid: int | None
    host: str | None
    processes: int | None
    step: int | None
    total_steps: int | None
    tokens: int | None
    total_tokens: int | None
    share: float | None
    reward: float | None
    age: float | None
    checkpoint: Path | None
    faults: tuple[str, ...]
    warnings: tuple[str, ...]


class RunLock(AbstractContextManager["RunLock"]):
    """An exclusive lock on a run's directory, made if need be; held until ``release`` or the end of this process.

    Raises ConfigError when another living process holds it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._handle: int | None = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        os.register_at_fork(after_in_child=self.release)  # a forked helper that outlives this process must not hold it
        try:
            held = not _lock(self._handle)
        except OSError as error:
            log.warning("%s: cannot be locked (%s); make sure that nothing else trains in it", folder, error.strerror)
            held = False
        if held:
            self.release()
            holder, _ = read_object(folder / ".lock")
            known = {"pid", "host"} <= holder.keys()
            who = f"pid {holder['pid']} on host {holder['host']}" if known else "another process"
            raise ConfigError(
                f"run.dir: {str(folder)!r} is being trained by {who}; expected a directory that no process trains in; "
                "wait for its end, stop it, or give another run.dir"
            )
        os.truncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __exit__(self, *_: object) -> None:
        self.release()


def _lock(handle: int) -> bool:
    """Lock; retries for a second, because readers of the run's state hold the lock for a moment."""
    for _ in range(20):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
    return False


def write_state(folder: Path, state: Reported, reason: str | None = None, processes: int = 1) -> None:
    """Write the run's state into status.json; the time of its first start is kept."""
    now = datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds")
    before, _ = _read_status(folder)
    status = {
        "state": state,
        "reason": None if reason is None else visible(shortened(redacted(reason), LONGEST_REASON)),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": before.get("started", now),
        "updated": now,
        "processes": processes,
    }
    write_whole(folder / "status.json", json.dumps(status, indent=2).encode() + b"\n")  # several ranks may do so


def read_state(folder: Path, *, locks: bool = True) -> RunState:
    """The state of the run in ``folder``; of long files only the end is read.

    Without ``locks`` the run's lock is left alone: whether its process lives is then known by the process id, and of
    other hosts assumed.
    """
    status, faults = _read_status(folder)
    rows, row_faults = last_rows(folder / "metrics.jsonl")
    steps, tokens, config_faults = _budget(folder / "config.yaml")
    step, spent = _latest(rows, "step"), _latest(rows, "budget/tokens_generated")
    spent = 0 if spent is None and step == 0 else spent
    shares = [used / total for used, total in ((step, steps), (spent, tokens)) if used is not None and total]
    state, reason = str(status.get("state", "unknown")), status.get("reason")
    if state == "running" and not (_alive(folder, status) if locks else _seems_alive(status)):
        state, reason = "killed", f"its process {status['pid']} on {status['host']} ended without a report"
    elif state == "unknown" and (folder / "result.json").exists():
        state = "finished"
    return RunState(
        folder=folder,
        state=state,
        reason=reason,
        **{name: status.get(name) for name in ("started", "pid", "host", "processes")},
        step=None if step is None else int(step),
        total_steps=steps,
        tokens=None if spent is None else int(spent),
        total_tokens=tokens,
        share=min(1.0, max(shares)) if shares else None,
        reward=_latest(rows, "critic/score/fresh/mean"),
        age=_age(folder),
        checkpoint=last_checkpoint(folder),
        faults=(*faults, *row_faults, *config_faults),
        warnings=_warnings(folder / "logs" / "rank-0.log"),
    )


def finished_run(name: str) -> Path:
    """The folder of the finished run that ``from_run`` names; raises ConfigError for any other folder."""
    folder = Path(name).expanduser()
    if (folder / "config.yaml").is_file() and (folder / "actor").is_dir():
        return folder
    remedy = suggestion("from_run", folder) or "give the run.dir of a finished run"
    raise ConfigError(
        f"from_run: {str(folder)!r} holds no finished run; expected a folder with config.yaml and actor/; {remedy}"
    )


def suggestion(key: str, folder: Path) -> str | None:
    """A better value of ``key`` than this folder, found in and around it; None without one."""
    if not folder.exists():
        return f"there is no such folder{_near(key, folder)}; rrl-status lists the runs"
    if (folder / "config.yaml").is_file():
        return _unfinished_remedy(folder)
    around = [parent for parent in folder.absolute().parents[:4] if (parent / "config.yaml").is_file()]
    within = sorted(file.parent for file in folder.glob("*/config.yaml"))
    if around:
        return f"it is inside a run; give {key}={around[0]}"
    if within:
        return f"it holds runs; give one of them, as in {key}={within[0]}"
    model = (folder / "config.json").is_file()
    return f"it holds a model, not a run; give model=hf model.path={folder}" if model else None


def _near(key: str, folder: Path) -> str:
    beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
    near = closest(folder.name, [path.name for path in beside if (path / "config.yaml").is_file()])
    return f"; did you mean {key}={folder.parent / near}?" if near else ""


def _unfinished_remedy(folder: Path) -> str:
    state = read_state(folder)
    remedies = ["wait for its end" if state.state == "running" else f"continue it: rrl-train resume={folder}"]
    if state.checkpoint is not None:
        remedies.append(f"measure its last checkpoint: model=hf model.path={state.checkpoint}/actor")
    return f"the run in it is {state.state}; " + ", or ".join(remedies)


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step."""
    return next(reversed(by_step(folder / "checkpoints")), None)


def _read_status(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The content of status.json; empty, with a fault, where ``write_state`` did not write it."""
    status, faults = read_object(folder / "status.json")
    kinds = {"state": str, "pid": int, "host": str, "started": str, "processes": int}
    if faults or not status:
        return {}, faults
    typed = all(isinstance(status.get(name), kind) for name, kind in kinds.items())
    if typed and status["state"] in get_args(Reported):
        return status, []
    return {}, ["status.json was not written by rrl"]


def _warnings(log_file: Path) -> tuple[str, ...]:
    """The last different warnings at the end of a log, whose lines are time, level and message."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_END))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ()
    found = [line.split(" ", 2)[2] for line in lines if line.count(" ") > 1 and line.split(" ")[1] == "WARNING"]
    return tuple(reversed(list(dict.fromkeys(reversed(found)))[:MOST_WARNINGS]))


def _alive(folder: Path, status: Mapping[str, Any]) -> bool:
    """Whether a process trains in the folder: by the lock or, where that does not work, by the process id."""
    try:
        with (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:  # it cannot be opened, or the file system has no locks; a process of another host may live
        return _seems_alive(status)
    return False


def _seems_alive(status: Mapping[str, Any]) -> bool:
    return status["host"] != socket.gethostname() or lives(status["pid"])


def lives(process: int) -> bool:
    """Whether a process of this id exists."""
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # another user's
    return True


def _latest(rows: list[dict[str, Any]], name: str) -> float | None:
    return next((row[name] for row in rows if isinstance(row.get(name), int | float)), None)


def _budget(path: Path) -> tuple[int | None, int | None, list[str]]:
    """The total steps and tokens of the run's configuration."""
    return _budget_as_of(path, path.stat().st_mtime_ns if path.exists() else None)


@lru_cache(maxsize=1000)
def _budget_as_of(path: Path, changed: int | None) -> tuple[int | None, int | None, list[str]]:
    """The same, read once as long as the file does not change; who follows runs asks every few seconds."""
    config, faults = read_yaml(path)
    if faults:
        return None, None, faults
    trainer = config.get("trainer") if isinstance(config, dict) else None
    if isinstance(trainer, dict) and "total_tokens" in trainer:  # guided self-improvement counts no steps
        steps, tokens = trainer.get("total_training_steps"), trainer["total_tokens"]
        if isinstance(steps, int | None) and isinstance(tokens, int | None):
            return steps, tokens, []
    return None, None, [f"{path.name} names no budget"]


def _age(folder: Path) -> float | None:
    """Seconds since the last write to metrics.jsonl, else to status.json."""
    there = [path for name in ("metrics.jsonl", "status.json") if (path := folder / name).exists()]
    return max(0.0, time.time() - there[0].stat().st_mtime) if there else None
