"""Checkpoints: the whole state of training, written whole or not at all, and verified when read."""

import hashlib
import io
import json
import logging
import shutil
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rrl.contracts import border
from rrl.contracts.calling import calling
from rrl.errors import ConfigError, ContractError, DataError, StorageError
from rrl.processes.distributed import (
    from_first,
    gathered,
    random_state,
    rank,
    reported,
    restore_random_state,
    world_size,
)
from rrl.records.files import by_step, put_on_disk, read_object, step_name, step_of, sync, write_whole
from rrl.records.run_directory import unused
from rrl.records.texts import one_line
from rrl.runs.aside import Files, Sums, fits, in_thread, sha256
from rrl.runs.full_disk import go_on, guard_disk
from rrl.training.loop import Loop

log = logging.getLogger(__name__)
ABOUT = "checkpoint.json"
"""Step, processes, score, and size and SHA-256 of every other file; written last, to mark a whole checkpoint."""

PATIENCE = 120.0
"""Seconds in which other ranks report what they have written, after an error."""


@dataclass
class Checkpoints:
    """The checkpoints of the run in ``run``: the last ``keep_last``, and the ``keep_best`` with the best score.

    All ranks call its methods together.
    """

    run: Path
    keep_last: int
    keep_best: int
    _writing: "Future[None] | None" = field(default=None, init=False)

    @property
    def folder(self) -> Path:
        """Holds one folder like ``step-000050`` for each checkpoint."""
        return self.run / "checkpoints"

    def save(self, trainer: Loop, score: float | None) -> None:
        """Write the trainer's state, then remove older checkpoints. Raises StorageError when the disk is full."""
        self.begin(trainer, score)
        self.finish()

    def begin(self, trainer: Loop, score: float | None) -> None:
        """Copy the trainer's state to main memory, and let a thread of each rank do the rest of ``save``.

        Waits for the checkpoint before. The state is written at once where a copy would take more than half of the free
        memory. The thread's error is raised by ``finish``.
        """
        self.finish()
        target = self.folder / step_name(trainer.global_step)
        aside = self.folder / f".{target.name}.tmp"
        with guard_disk(self.run, aside):
            from_first(lambda: self._prepare(trainer, aside))
            files = Files(held=all(gathered(fits(trainer.policy.state_bytes()))))
            _write_state(trainer, aside, files)
            there = from_first(lambda: sorted(path for path in aside.rglob("*") if path.is_file()))
            mine = there[rank() :: world_size()]
        about = {"step": trainer.global_step, "processes": world_size(), "score": score}

        def rest() -> None:
            with guard_disk(self.run, aside):
                sums = reported(aside.name, lambda: files.write(mine))
                if rank() == 0:
                    self._finish(aside, target, about, {path: sum for part in sums for path, sum in part.items()})

        self._writing = in_thread(rest)

    def finish(self) -> None:
        """Wait until the last checkpoint is whole. Raises StorageError when the disk is full."""
        writing, self._writing = self._writing, None
        if writing is not None:
            from_first(writing.result)

    def leave(self) -> None:
        """Wait for the thread after another error, without a collective; a dead rank is waited for PATIENCE seconds."""
        if self._writing is not None:
            try:
                self._writing.result(None if world_size() == 1 or rank() > 0 else PATIENCE)
            except Exception as error:  # the other error is raised
                log.warning("the last checkpoint is not whole (%s); the one before it remains", one_line(error)[:200])

    def rehearse(self, trainer: Loop) -> None:
        """Check in seconds that ``save`` can work: disk space, model, states. Raises DataError or StorageError."""
        with guard_disk(self.run):
            from_first(lambda: self._check_space(trainer, "the first step"))
            from_first(lambda: trainer.policy.rehearse(self.folder))
        _refuse_unwritable(trainer)

    def restore(self, trainer: Loop) -> int | None:
        """Restore the last good checkpoint into the trainer; returns its step, or None without any checkpoint.

        Damaged ones are reported and renamed. Raises DataError when all are damaged, ConfigError when another number
        of processes wrote it.
        """
        found = from_first(self._last_good)
        if found is not None:
            self._read(trainer, *found)
        return found and found[0]

    def restore_step(self, trainer: Loop, step: int) -> None:
        """Restore the checkpoint of this step, and change no file. Raises DataError where it is missing or damaged."""
        folder = self.folder / step_name(step)
        if fault := from_first(lambda: _fault(folder)):
            raise DataError(f"{folder}: {fault}; expected a whole checkpoint; name other steps")
        self._read(trainer, step, _read_about(folder)["processes"])

    def _read(self, trainer: Loop, step: int, processes: int) -> None:
        """Read the checkpoint of a step, which so many processes wrote, into the trainer."""
        if processes != world_size():
            raise ConfigError(
                f"launcher.num_processes: the run was trained by {processes} processes, now there are {world_size()}; "
                f"expected {processes}, because the optimiser's state is divided among them"
            )
        folder = self.folder / step_name(step)
        trainer.policy.load_state(folder / "networks")
        state = torch.load(folder / "state.pt", weights_only=False)
        for name, part in _stateful_parts(trainer).items():
            try:
                with calling(name, part, "load_state_dict"):
                    part.load_state_dict(state[name])
            except KeyError as error:
                raise DataError(
                    f"{folder}: state.pt has no {error} of the {name}; expected what this version of rrl saves; go on "
                    f"with the version that wrote it ({self.run / 'manifest.json'}), or begin a new run"
                ) from error
        restore_random_state(torch.load(folder / f"rank-{rank():05d}.pt", weights_only=False))

    def size(self) -> int | None:
        """Bytes of the latest checkpoint."""
        for path in reversed(by_step(self.folder)):
            if about := _read_about(path):
                return sum(int(size) for size, _ in about["files"].values())
        return None

    def _prepare(self, trainer: Loop, aside: Path) -> None:
        """Make an empty folder on a disk with enough space."""
        for left in self.folder.glob(".*.tmp"):
            shutil.rmtree(left)
        self._check_space(trainer, f"step {trainer.global_step}")
        aside.mkdir()

    def _check_space(self, trainer: Loop, what: str) -> None:
        """Raise StorageError unless a checkpoint fits on the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        need, free = self.size() or trainer.policy.state_bytes(), shutil.disk_usage(self.folder).free
        if free < 1.05 * need:
            raise StorageError(
                f"run.dir: {free / 1e6:,.1f} MB are free in {str(self.folder)!r}; expected {need / 1e6:,.1f} MB for a "
                f"checkpoint of {what}; free space or lower run.keep_last, {go_on(self.run)}"
            )

    def _finish(self, aside: Path, target: Path, about: dict[str, Any], sums: Sums) -> None:
        about |= {"files": {path.relative_to(aside).as_posix(): sums[path] for path in sorted(sums)}}
        sync(self.run)
        write_whole(aside / ABOUT, json.dumps({**about, "sha256": _own_sum(about)}, indent=1).encode())
        for path in (aside, *aside.rglob("*/")):
            put_on_disk(path)
        if target.exists():
            target.rename(target.with_name(f".{target.name}.old.tmp"))
        aside.rename(target)
        put_on_disk(self.folder)
        self._prune()

    def _prune(self) -> None:
        """Remove all but the last and the best."""
        steps = by_step(self.folder)
        scores = {path: _read_about(path).get("score") for path in steps}
        scored = [(score, step_of(path), path) for path, score in scores.items() if score is not None]
        best = [path for *_, path in sorted(scored, reverse=True)]
        kept = {*steps[-self.keep_last :], *best[: self.keep_best]}
        for path in set(steps) - kept:
            path.rename(path.with_name(f".{path.name}.old.tmp"))  # so that a kill leaves no partial checkpoint
        for path in self.folder.glob(".*.old.tmp"):
            shutil.rmtree(path)

    def _last_good(self) -> tuple[int, int] | None:
        """Step and processes of the newest whole checkpoint; renames the damaged ones after it."""
        faults: dict[Path, str] = {}
        for path in reversed(by_step(self.folder)):
            fault = _fault(path)
            if fault is None:
                for damaged, why in faults.items():
                    log.warning("%s is damaged (%s); going back to %s", damaged.name, why, path.name)
                    damaged.rename(unused(damaged.with_name(f"damaged-{damaged.name}")))
                about = _read_about(path)
                return about["step"], about["processes"]
            faults[path] = fault
        if faults:
            listed = ", ".join(f"{path.name} ({fault})" for path, fault in faults.items())
            raise DataError(
                f"{self.folder}: every checkpoint is damaged: {listed}; expected a whole one; restore one from a copy, "
                f"or move {str(self.folder)!r} away to begin anew"
            )
        return None


def _write_state(trainer: Loop, folder: Path, files: Files) -> None:
    """Each rank writes its part of the networks and optimisers and its random state, the first rank all the rest."""
    trainer.policy.save_state(folder / "networks", files.save)
    files.save(random_state(), folder / f"rank-{rank():05d}.pt")
    if rank() == 0:
        try:
            files.save(state_of(trainer), folder / "state.pt")
        except Exception:  # pickle may raise anything for an object that it cannot write
            _refuse_unwritable(trainer)
            raise
    for fault in trainer.policy.save(folder / "actor"):
        log.warning("checkpoint of step %d, actor: %s; training can continue from it", trainer.global_step, fault)
    gathered(None)


def state_of(trainer: Loop) -> dict[str, Any]:
    """The state of each part by name, equal on all ranks."""
    return {name: border.state(name, part) for name, part in _stateful_parts(trainer).items()}


def _stateful_parts(trainer: Loop) -> dict[str, Any]:
    named = ("sampler", "engine", "reward", "objective", "policy")
    return {"trainer": trainer} | {name: getattr(trainer, name) for name in named}


def _refuse_unwritable(trainer: Loop) -> None:
    """Raise ContractError, naming every part with a state that cannot be saved and read again."""
    faults: list[str] = []
    for name, part in _stateful_parts(trainer).items():
        file = io.BytesIO()
        try:
            torch.save(border.state(name, part), file)
            file.seek(0)
            torch.load(file, weights_only=False)
        except ContractError as error:
            faults += error.faults
        except Exception as error:  # a user's state may raise anything
            faults.append(
                f"{name}: {type(part).__qualname__}.state_dict cannot be saved ({one_line(error)[:200]}); expected "
                "plain data, as in {'seen': 3}; fix this class (docs/adding-a-part.md)"
            )
    if faults:
        raise ContractError(*faults)


def _own_sum(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _read_about(path: Path) -> dict[str, Any]:
    """The content of a checkpoint's ABOUT; empty where it is missing or changed."""
    about, _ = read_object(path / ABOUT)
    recorded = about.pop("sha256", None)
    return about if recorded is not None and recorded == _own_sum(about) else {}


def _fault(path: Path) -> str | None:
    """The fault of a checkpoint; None when every file is as it was written."""
    about = _read_about(path)
    if not about:
        return f"{ABOUT} is missing or changed"
    for name, (size, digest) in about["files"].items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes of {size}"
        if sha256(file) != digest:
            return f"{name} has another SHA-256 than when it was written"
    return None
