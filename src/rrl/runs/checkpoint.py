"""Checkpoints: everything that training goes on from, written aside and renamed; the last good one is found."""

import hashlib
import io
import json
import logging
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import clear_frames
from typing import Any

import torch

from rrl.contracts import border
from rrl.contracts.calling import calling
from rrl.errors import ConfigError, ContractError, DataError, StorageError
from rrl.processes.distributed import from_first, gathered, rank, spread, world_size
from rrl.records.files import by_step, put_on_disk, read_object, step_name, step_of, sync, write_whole
from rrl.records.run_directory import unused
from rrl.records.saving import is_full
from rrl.training.loop import Loop

log = logging.getLogger(__name__)
ABOUT = "checkpoint.json"
"""Step, processes, score, and size and SHA-256 of every other file; written last: what lacks it is no checkpoint."""


@dataclass(frozen=True)
class Checkpoints:
    """The folder ``checkpoints`` of the run in ``run``: those of the last ``keep_last`` steps that were saved, and of
    the ``keep_best`` with the best score. All ranks call its methods together.
    """

    run: Path
    keep_last: int
    keep_best: int

    @property
    def folder(self) -> Path:
        """Where they are: one folder ``step-000050`` each."""
        return self.run / "checkpoints"

    def save(self, trainer: Loop, score: float | None) -> None:
        """Write the trainer's state, then remove what need not be kept. Raises StorageError when the disk is full."""
        target = self.folder / step_name(trainer.global_step)
        aside = self.folder / f".{target.name}.tmp"
        with guard_disk(self.run, aside):
            from_first(lambda: self._make_room(trainer, aside))
            _write(trainer, aside)
            files = from_first(lambda: sorted(path for path in aside.rglob("*") if path.is_file()))
            sums = spread(files, _sums)
            about = {"step": trainer.global_step, "processes": world_size(), "score": score}
            names = [path.relative_to(aside).as_posix() for path in files]
            from_first(lambda: self._finish(aside, target, {**about, "files": dict(zip(names, sums, strict=True))}))

    def rehearse(self, trainer: Loop) -> None:
        """Try what ``save`` will do, as far as it costs no more than seconds: whether there is room, and what can be
        written. Raises DataError or StorageError.
        """
        with guard_disk(self.run):
            from_first(lambda: self._find_room(trainer, "the first step"))
            from_first(lambda: trainer.policy.rehearse(self.folder))
        _refuse_unwritable(trainer)

    def restore(self, trainer: Loop) -> int | None:
        """Bring the trainer to the last good checkpoint; returns its step, or None where there is none at all.

        One that is damaged is said and put aside. Raises DataError when all of them are, ConfigError when it was
        written by another number of processes.
        """
        step, processes = from_first(self._last_good) or (None, 0)
        if step is None:
            return None
        if processes != world_size():
            raise ConfigError(
                f"launcher.num_processes: the run was trained by {processes} processes, now there are {world_size()}; "
                f"expected {processes}, among which its optimiser's state is divided"
            )
        _read(trainer, self.folder / step_name(step))
        return step

    def size(self) -> int | None:
        """Bytes of the latest checkpoint."""
        abouts = [about for path in reversed(self._steps()) if (about := _about(path))]
        return sum(size for size, _ in abouts[0]["files"].values()) if abouts else None

    def _steps(self) -> list[Path]:
        return by_step(self.folder)

    def _make_room(self, trainer: Loop, aside: Path) -> None:
        """Begin with an empty folder on a disk with enough space."""
        for left in self.folder.glob(".*.tmp"):
            shutil.rmtree(left)
        self._find_room(trainer, f"step {trainer.global_step}")
        aside.mkdir()

    def _find_room(self, trainer: Loop, what: str) -> None:
        """Raise StorageError unless a checkpoint fits on the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        need, free = self.size() or trainer.policy.state_bytes(), shutil.disk_usage(self.folder).free
        if free < 1.05 * need:
            raise StorageError(
                f"run.dir: {free / 1e6:,.1f} MB are free in {str(self.folder)!r}; expected {need / 1e6:,.1f} MB for a "
                f"checkpoint of {what}; make room or lower run.keep_last, {_go_on(self.run)}"
            )

    def _finish(self, aside: Path, target: Path, about: dict[str, Any]) -> None:
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
        steps = self._steps()
        scored = [(about["score"], path) for path in steps if (about := _about(path)) and about["score"] is not None]
        best = [path for _, path in sorted(scored, key=lambda pair: (pair[0], step_of(pair[1])))[::-1]]
        kept = {*steps[-self.keep_last :], *best[: self.keep_best]}
        for path in set(steps) - kept:
            path.rename(path.with_name(f".{path.name}.old.tmp"))  # so that a kill leaves no half of it under its name
        for path in self.folder.glob(".*.old.tmp"):
            shutil.rmtree(path)

    def _last_good(self) -> tuple[int, int] | None:
        """Step and processes of the newest checkpoint that is whole; those after it are put aside."""
        faults: list[tuple[Path, str]] = []
        for path in reversed(self._steps()):
            fault = _fault(path)
            if fault is None:
                for damaged, told in faults:
                    log.warning("%s is damaged (%s); going back to %s", damaged.name, told, path.name)
                    damaged.rename(unused(damaged.with_name(f"damaged-{damaged.name}")))
                about = _about(path)
                return about["step"], about["processes"]
            faults.append((path, fault))
        if faults:
            told = ", ".join(f"{path.name} ({fault})" for path, fault in faults)
            raise DataError(
                f"{self.folder}: every checkpoint is damaged: {told}; expected a whole one; bring one back from a "
                f"copy, or move {str(self.folder)!r} away to begin anew"
            )
        return None


@contextmanager
def guard_disk(run: Path, aside: Path | None = None) -> Iterator[None]:
    """Tell clearly when the disk is full; what was half written ``aside`` is removed."""
    try:
        yield
    except Exception as error:  # each library has its own kind for a write that fails
        clear_frames(error.__traceback__)  # a file that they hold open keeps its room
        if aside is not None and rank() == 0:
            shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, StorageError) or not is_full(error):
            raise
        free, why = shutil.disk_usage(run).free, str(error).splitlines()[0][:200]
        raise StorageError(
            f"run.dir: the disk of {str(run)!r} is full ({free / 1e6:,.1f} MB free: {why}); expected room to write; "
            f"make room, {_go_on(run)}"
        ) from error


def _go_on(run: Path) -> str:
    return f"then go on from the last good checkpoint: rrl-train resume={run}"


def _write(trainer: Loop, folder: Path) -> None:
    """Every rank its part: networks and optimisers (DeepSpeed's format), random state; the first rank the rest."""
    trainer.policy.save_state(folder / "networks")
    torch.save(_random_state(), folder / f"rank-{rank():05d}.pt")
    if rank() == 0:
        try:
            torch.save(state_of(trainer), folder / "state.pt")
        except Exception:  # what pickle raises for an object that it cannot write may be anything
            _refuse_unwritable(trainer)
            raise
    for fault in trainer.policy.save(folder / "actor"):
        log.warning("checkpoint of step %d, actor: %s; training can go on from it", trainer.global_step, fault)
    gathered(None)


def _read(trainer: Loop, folder: Path) -> None:
    trainer.policy.load_state(folder / "networks")
    state = torch.load(folder / "state.pt", weights_only=False)
    for name, part in _parts(trainer).items():
        with calling(name, part, "load_state_dict"):
            part.load_state_dict(state[name])
    _restore_random_state(torch.load(folder / f"rank-{rank():05d}.pt", weights_only=False))


def state_of(trainer: Loop) -> dict[str, Any]:
    """What every rank has alike: the state of each part by name."""
    return {name: border.state(name, part) for name, part in _parts(trainer).items()}


def _parts(trainer: Loop) -> dict[str, Any]:
    named = ("sampler", "engine", "reward", "objective", "policy")
    return {"trainer": trainer} | {name: getattr(trainer, name) for name in named}


def _refuse_unwritable(trainer: Loop) -> None:
    """Raise ContractError, naming every part whose state cannot be saved."""
    faults = [fault for name, part in _parts(trainer).items() for fault in _unwritable(name, part)]
    if faults:
        raise ContractError(*faults)


def _unwritable(name: str, part: Any) -> list[str]:
    """Why a part's state cannot be saved or read again, if so."""
    file = io.BytesIO()
    try:
        torch.save(border.state(name, part), file)
        file.seek(0)
        torch.load(file, weights_only=False)
    except ContractError as error:
        return list(error.faults)
    except Exception as error:  # it is a stranger's
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return [
            f"{name}: {type(part).__qualname__}.state_dict cannot be saved ({told}); expected plain data, as in "
            "{'seen': 3}; mend this class (docs/adding-a-part.md)"
        ]
    return []


def _random_state() -> dict[str, Any]:
    """Of this process's global generators, which dropout and other people's code draw from."""
    import numpy

    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    import numpy

    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(state["python"])
    numpy.random.set_state(state["numpy"])


def _sums(files: Sequence[Path]) -> list[tuple[int, str]]:
    """Size and SHA-256 of each file, which is on disk from here on."""
    for path in files:
        put_on_disk(path)
    return [(path.stat().st_size, _sha256(path)) for path in files]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def _own_sum(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _about(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; nothing where that is not what was written."""
    about, _ = read_object(path / ABOUT)
    told = about.pop("sha256", None)
    return about if told is not None and told == _own_sum(about) else {}


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint; None when all of it is as it was written."""
    about = _about(path)
    if not about:
        return f"{ABOUT} is missing or changed"
    for name, (size, digest) in about["files"].items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes of {size}"
        if _sha256(file) != digest:
            return f"{name} does not have the SHA-256 it was written with"
    return None
