"""A full disk, or a run directory that is gone, reported with the way to go on."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import clear_frames

from rrl.errors import StorageError
from rrl.processes.distributed import rank
from rrl.records.saving import is_full


@contextmanager
def guard_disk(run: Path, aside: Path | None = None) -> Iterator[None]:
    """Raise StorageError when the disk is full or the run is gone, and remove the partial files in ``aside``."""
    try:
        yield
    except Exception as error:  # each library has its own error for a failed write
        clear_frames(error.__traceback__)  # an open file that they hold keeps its space
        if aside is not None and rank() == 0:
            shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, FileNotFoundError) and not run.is_dir():
            raise StorageError(
                f"run.dir: {str(run)!r} is gone, moved or deleted during the run ({error}); expected it to stay; bring "
                f"it back, {go_on(run)}"
            ) from error
        if isinstance(error, StorageError) or not is_full(error):
            raise
        free, why = shutil.disk_usage(run).free, str(error).splitlines()[0][:200]
        raise StorageError(
            f"run.dir: the disk of {str(run)!r} is full ({free / 1e6:,.1f} MB free: {why}); expected free space; "
            f"free some, {go_on(run)}"
        ) from error


def go_on(run: Path) -> str:
    return f"then continue from the last good checkpoint: rrl-train resume={run}"
