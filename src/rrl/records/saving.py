"""Saving models without loss: rehearsed before training, with plain weights where ``save_pretrained`` fails."""

import copy
import errno
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import clear_frames
from typing import Any

import torch

from rrl.errors import DataError, StorageError, UsageError
from rrl.records.texts import one_line

log = logging.getLogger(__name__)
PLAIN = "weights.pt"
"""The file written where ``save_pretrained`` fails: the weights by name, for ``torch.load``."""
FULL = ("No space left", "quota exceeded", "File too large", "file write failed", "unexpected pos", "iostream error")
"""Messages of the system, safetensors and torch when a disk is full; the last two have other causes as well."""
UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


def write_model(model: Any, tokenizer: Any, folder: Path) -> list[str]:
    """Save model and tokenizer in Hugging Face format, adapters merged into the weights; returns the faults.

    Where that fails for the model, its weights are written to PLAIN. Errors of the disk are raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    faults = _faults_of("the model", lambda: _adapters_merged(model, copy.deepcopy).save_pretrained(folder))
    if faults:
        torch.save({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}, folder / PLAIN)
    return faults + _faults_of("the tokenizer", lambda: tokenizer.save_pretrained(folder))


def rehearse(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save everything but the weights into a temporary folder within ``folder``.

    Raises DataError naming what cannot be saved, StorageError where the disk is at fault.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".rehearsal.", dir=folder) as place:
            faults = _faults_of(
                "the model", lambda: _adapters_merged(model, _weightless).save_pretrained(place, state_dict={})
            )
            faults += _faults_of("the tokenizer", lambda: tokenizer.save_pretrained(place))
    except OSError as error:
        raise StorageError(
            f"nothing can be written in {str(folder)!r} ({error.strerror or error}); expected space and permission to "
            "write; free space, or give another run.dir"
        ) from error
    if faults:
        raise DataError(*(f"{fault}; every save of the run would fail; fix its files" for fault in faults))


def _adapters_merged(model: Any, copied: Callable[[Any], Any]) -> Any:
    """The model or, where it has adapters, a copy with merged weights."""
    return copied(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model


def _weightless(model: torch.nn.Module) -> Any:
    """A copy with its weights on the meta device, without copying any."""
    bare = {id(p): torch.nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, bare)


def _faults_of(what: str, write: Callable[[], Any]) -> list[str]:
    """Write; returns the faults, and raises those of the disk."""
    try:
        write()
    except Exception as error:  # a model's or a tokenizer's own code can raise anything
        if is_full(error) or (isinstance(error, OSError) and error.errno in UNWRITABLE):
            raise
        return [f"{what} cannot be saved as transformers does ({one_line(error)[:200]})"]
    return []


def is_full(error: Exception) -> bool:
    """Whether a write failed because the disk is full."""
    return any(sign in str(error) for sign in FULL)


@contextmanager
def rescued(save: Callable[[Path], list[str]] | None, name: str, run: Path) -> Iterator[None]:
    """When the block fails to save, write the model elsewhere: into the run, or else into the temporary directory.

    ``save`` writes it and returns faults (None: this process cannot). Raises StorageError naming the place.
    """
    try:
        yield
    except Exception as error:  # for any error: the weights must not be lost
        if save is None:
            raise
        elsewhere = Path(tempfile.gettempdir()) / f"rrl-{run.name}-rescued-{name}"
        where = _rescue(save, (run / f"rescued-{name}", elsewhere))
        message = error.faults[0] if isinstance(error, UsageError) else one_line(error)[:200]
        end = f"the weights are in {where}" if where else "the weights could not be written anywhere"
        raise StorageError(f"{message}; {end}") from error


def _rescue(save: Callable[[Path], list[str]], places: Sequence[Path]) -> str | None:
    """The first place where saving succeeds, with its faults."""
    for place in places:
        try:
            shutil.rmtree(place, ignore_errors=True)
            faults = save(place)
        except Exception as error:  # there may be another place
            log.warning("the weights cannot be written in %s (%s)", place, one_line(error)[:200])
            clear_frames(error.__traceback__)  # an open file that they hold keeps its space
            shutil.rmtree(place, ignore_errors=True)
        else:
            return f"{place} ({'; '.join(faults)})" if faults else str(place)
    return None
