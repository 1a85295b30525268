"""The state of a run: who trains in its directory, how far it is, and how it ended. Reads and writes no model."""

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
from pathlib import Path
from typing import Any, Literal

from rrl.errors import ConfigError, closest
from rrl.records.files import by_step, fault, last_rows, read_object, write_whole
from rrl.records.secrecy import redacted
from rrl.records.texts import shortened, visible

log = logging.getLogger(__name__)
Told = Literal["running", "finished", "interrupted", "failed"]
LONGEST_REASON = 4000
"""Characters; a traceback in the log has all of it."""
TOLD = ("running", "finished", "interrupted", "failed")
"""What a run says of itself in status.json; that it was killed, or never said anything, others have to find out."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What can be known of a run from its directory, None where it cannot.

    ``state`` is what the run told last, ``killed`` where it told that it was running and no process holds it, or
    ``unknown``. ``reward`` is the mean score of fresh rollouts in the last row that has one, ``tokens`` counts those
    generated, ``share`` is the part of the budget (steps or tokens) that is used, ``age`` the seconds since the last
    row. ``faults`` says what could not be read.
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


class RunLock(AbstractContextManager["RunLock"]):
    """An exclusive lock on a run's directory, held until ``release`` or until this process ends, however it does."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._handle: int | None = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        os.register_at_fork(after_in_child=self._forget)  # a forked helper that outlives us must not hold it
        try:
            held = not _take(self._handle)
        except OSError as error:
            log.warning("%s: cannot be locked (%s); take care that nothing else trains in it", folder, error.strerror)
            held = False
        if held:
            self._forget()
            raise ConfigError(f"run.dir: {str(folder)!r} is being trained {_holder(folder)}")
        os.truncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)

    def release(self) -> None:
        """Let others train here."""
        self._forget()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _forget(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def hold(folder: Path) -> RunLock:
    """Lock a run's directory, made if need be; raises ConfigError when another living process trains in it."""
    return RunLock(folder)


def _take(handle: int) -> bool:
    """Lock; waits a little, for whoever looks at the run's state takes the lock for a moment."""
    for _ in range(20):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
    return False


def _holder(folder: Path) -> str:
    found, _ = read_object(folder / ".lock")
    who = f"by pid {found['pid']} on host {found['host']}" if {"pid", "host"} <= found.keys() else "by another process"
    return f"{who}; expected a directory that no process trains in; wait for its end, stop it, or give another run.dir"


def write_state(folder: Path, state: Told, reason: str | None = None, processes: int = 1) -> None:
    """Tell in status.json what becomes of the run; the time of its first start stays."""
    now = datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds")
    before, _ = _status(folder)
    status = {
        "state": state,
        "reason": None if reason is None else visible(shortened(redacted(reason), LONGEST_REASON)),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": before.get("started", now),
        "updated": now,
        "processes": processes,
    }
    write_whole(folder / "status.json", json.dumps(status, indent=2).encode() + b"\n")  # several ranks may tell at once


def read_state(folder: Path) -> RunState:
    """The state of the run in ``folder``, as far as its files tell; reads the ends of long ones only."""
    status, faults = _status(folder)
    rows, row_faults = last_rows(folder / "metrics.jsonl")
    steps, tokens, config_faults = _budget(folder / "config.yaml")
    step, spent = _number(rows, "step"), _number(rows, "budget/tokens_generated")
    spent = 0 if spent is None and step == 0 else spent
    shares = [used / total for used, total in ((step, steps), (spent, tokens)) if used is not None and total]
    state, reason = _judge(folder, status)
    return RunState(
        folder=folder,
        state=state,
        reason=reason,
        started=status.get("started"),
        pid=status.get("pid"),
        host=status.get("host"),
        processes=status.get("processes"),
        step=None if step is None else int(step),
        total_steps=steps,
        tokens=None if spent is None else int(spent),
        total_tokens=tokens,
        share=min(1.0, max(shares)) if shares else None,
        reward=_number(rows, "critic/score/fresh/mean"),
        age=_age(folder),
        checkpoint=last_checkpoint(folder),
        faults=(*faults, *row_faults, *config_faults),
    )


def finished_run(name: str) -> Path:
    """The folder of a finished run that ``from_run`` names. Raises ConfigError with what to give instead."""
    folder = Path(name).expanduser()
    if (folder / "config.yaml").is_file() and (folder / "actor").is_dir():
        return folder
    remedy = instead("from_run", folder) or "give the run.dir of a run that came to its end"
    raise ConfigError(
        f"from_run: {str(folder)!r} holds no finished run; expected a folder with config.yaml and actor/; {remedy}"
    )


def instead(key: str, folder: Path) -> str | None:
    """What can be given as ``key`` in place of a folder that will not do, as far as its surroundings tell."""
    if not folder.exists():
        return f"there is no such folder{_near(key, folder)}; rrl-status lists the runs"
    if (folder / "config.yaml").is_file():
        return _unfinished(folder)
    around = [parent for parent in folder.absolute().parents[:4] if (parent / "config.yaml").is_file()]
    within = sorted(file.parent for file in folder.glob("*/config.yaml"))
    if around:
        return f"it lies in a run; give {key}={around[0]}"
    if within:
        return f"it holds runs; give one of them, as in {key}={within[0]}"
    return (
        f"it holds a model, no run; give model=hf model.path={folder}" if (folder / "config.json").is_file() else None
    )


def _near(key: str, folder: Path) -> str:
    beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
    near = closest(folder.name, [path.name for path in beside if (path / "config.yaml").is_file()])
    return f"; did you mean {key}={folder.parent / near}?" if near else ""


def _unfinished(folder: Path) -> str:
    """What can be done with a run that has no actor yet."""
    state = read_state(folder)
    saved = (
        []
        if state.checkpoint is None
        else [f"measure its last checkpoint: model=hf model.path={state.checkpoint}/actor"]
    )
    on = "wait for its end" if state.state == "running" else f"go on with it: rrl-train resume={folder}"
    return f"the run in it is {state.state}; " + ", or ".join([on, *saved])


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step, by name."""
    return next(reversed(by_step(folder / "checkpoints")), None)


def _status(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What the run told last; nothing, and a fault, where that is not what ``write_state`` writes."""
    status, faults = read_object(folder / "status.json")
    kinds = {"state": str, "pid": int, "host": str, "started": str, "processes": int}
    if faults or not status:
        return {}, faults
    if all(isinstance(status.get(name), kind) for name, kind in kinds.items()) and status["state"] in TOLD:
        return status, []
    return {}, ["status.json is none of rrl's"]


def _judge(folder: Path, status: Mapping[str, Any]) -> tuple[str, str | None]:
    """State and reason."""
    told = status.get("state")
    if told is None:
        return ("finished", None) if (folder / "result.json").exists() else ("unknown", None)
    if told == "running" and not _alive(folder, status):
        return "killed", f"its process {status['pid']} on {status['host']} is gone and told nothing"
    return str(told), status.get("reason")


def _alive(folder: Path, status: Mapping[str, Any]) -> bool:
    """Whether a process trains in the folder: by the lock or, where that cannot be asked, by the process's number."""
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return _exists(status)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return _exists(status)
    finally:
        os.close(handle)


def _exists(status: Mapping[str, Any]) -> bool:
    """Whether the process is there; one on another host is taken at its word."""
    return status["host"] != socket.gethostname() or lives(status["pid"])


def lives(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _number(rows: list[dict[str, Any]], name: str) -> float | None:
    """The latest number of this name."""
    return next((row[name] for row in rows if isinstance(row.get(name), int | float)), None)


def _budget(path: Path) -> tuple[int | None, int | None, list[str]]:
    """Steps and tokens that end training, by the run's configuration."""
    import yaml

    try:
        config = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        steps, tokens = config["trainer"]["total_training_steps"], config["trainer"]["total_tokens"]
    except (OSError, yaml.YAMLError, ValueError) as error:
        return None, None, [fault(path, error)]
    except (KeyError, TypeError):
        return None, None, [f"{path.name} names no budget"]
    if not isinstance(steps, int | None) or not isinstance(tokens, int | None):
        return None, None, [f"{path.name} names no budget"]
    return steps, tokens, []


def _age(folder: Path) -> float | None:
    """Seconds since metrics.jsonl, else status.json, was written to."""
    for name in ("metrics.jsonl", "status.json"):
        if (folder / name).exists():
            return max(0.0, time.time() - (folder / name).stat().st_mtime)
    return None
