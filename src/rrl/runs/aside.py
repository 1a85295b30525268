"""Files that are copied to main memory, and written by a thread while training continues."""

import hashlib
import io
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import torch

from rrl.processes.distributed import world_size
from rrl.processes.machine import main_memory
from rrl.records.files import put_on_disk

Result = TypeVar("Result")
Sums = dict[Path, tuple[int, str]]
"""Size and SHA-256 by file."""


def fits(size: int) -> bool:
    """Whether the ranks of this machine can copy their shares of so many bytes into half of its free memory."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    return 2 * size * here <= main_memory().free * world_size()


class Files:
    """The files that this rank writes: ``held`` in main memory until ``write`` is called, or else written at once."""

    def __init__(self, *, held: bool) -> None:
        self._held: dict[Path, io.BytesIO] | None = {} if held else None

    def save(self, content: Any, path: Path | str) -> None:
        """Save an object with torch."""
        if self._held is None:
            torch.save(content, path)
        else:
            self._held[Path(path)] = file = io.BytesIO()
            torch.save(content, file)

    def write(self, others: Sequence[Path]) -> Sums:
        """Write what is held, and free its memory; returns the sums of these files and ``others``, all on disk."""
        paths = [*(self._held or ()), *others]
        while self._held:
            path, file = self._held.popitem()
            path.write_bytes(file.getbuffer())
        return dict(zip(paths, map(_size_and_sum, paths), strict=True))


def in_thread(work: Callable[[], Result]) -> "Future[Result]":
    """Begin the work in a thread, which does not keep the process from ending."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # raised again where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="checkpoint", daemon=True).start()
    return future


def _size_and_sum(path: Path) -> tuple[int, str]:
    """Of a file, after flushing it to disk."""
    put_on_disk(path)
    return path.stat().st_size, sha256(path)


def sha256(path: Path) -> str:
    """Of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()
