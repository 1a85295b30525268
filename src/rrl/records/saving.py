"""Models on disk so that none is lost: tried before training, and in a plainer form where the usual one fails."""

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

log = logging.getLogger(__name__)
PLAIN = "weights.pt"
"""What is written where ``save_pretrained`` fails: the weights by name, for ``torch.load``."""
FULL = ("No space left", "quota exceeded", "File too large", "file write failed", "unexpected pos", "iostream error")
"""What the system, safetensors and torch say when a disk is full; the last two may mean another fault as well."""
UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


def write_model(model: Any, tokenizer: Any, folder: Path) -> list[str]:
    """Model and tokenizer in Hugging Face format, adapters merged into the weights; what went wrong, in words.

    Weights that cannot be written so are written plainly, as PLAIN, by their names. Raises what the disk does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    faults = _tried("the model", lambda: _merged(model, copy.deepcopy).save_pretrained(folder))
    if faults:
        torch.save({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}, folder / PLAIN)
    return faults + _tried("the tokenizer", lambda: tokenizer.save_pretrained(folder))


def rehearse(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write all of it but the weights, into a folder within ``folder`` that is gone afterwards.

    Raises DataError telling what cannot be written, StorageError where it is the disk's fault.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".rehearsal.", dir=folder) as place:
            faults = _tried("the model", lambda: _merged(model, _weightless).save_pretrained(place, state_dict={}))
            faults += _tried("the tokenizer", lambda: tokenizer.save_pretrained(place))
    except OSError as error:
        raise StorageError(
            f"nothing can be written in {str(folder)!r} ({error.strerror or error}); expected room and permission to "
            "write; make room, or give another run.dir"
        ) from error
    if faults:
        raise DataError(*(f"{fault}; every save of a run would fail so; mend its files" for fault in faults))


def _merged(model: Any, copied: Callable[[Any], Any]) -> Any:
    """The model or, where it has adapters, a copy in which they are merged."""
    return copied(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model


def _weightless(model: torch.nn.Module) -> Any:
    """A copy with its weights on the meta device; none of them is copied."""
    bare = {id(p): torch.nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, bare)


def _tried(what: str, write: Callable[[], Any]) -> list[str]:
    """Write; what went wrong, unless it was the disk."""
    try:
        write()
    except Exception as error:  # a model's or a tokenizer's own code can raise nearly anything
        if is_full(error) or (isinstance(error, OSError) and error.errno in UNWRITABLE):
            raise
        return [f"{what} cannot be saved as transformers does ({type(error).__name__}: {_line(error)})"]
    return []


def is_full(error: Exception) -> bool:
    """Whether a write failed for want of room."""
    return any(sign in str(error) for sign in FULL)


@contextmanager
def rescued(save: Callable[[Path], list[str]] | None, name: str, run: Path) -> Iterator[None]:
    """Where what is inside fails to save, write the model somewhere: into the run, or else among temporary files.

    ``save`` writes it and says what went wrong (None: this process cannot). Raises StorageError saying where it is.
    """
    try:
        yield
    except Exception as error:  # whatever it was, the weights are worth more
        if save is None:
            raise
        where = _rescue(save, (run / f"rescued-{name}", _elsewhere(run, name)))
        told = error.faults[0] if isinstance(error, UsageError) else f"{type(error).__name__}: {_line(error)}"
        end = f"the weights are in {where}" if where else "the weights could be written nowhere"
        raise StorageError(f"{told}; {end}") from error


def _elsewhere(run: Path, name: str) -> Path:
    return Path(tempfile.gettempdir()) / f"rrl-{run.name}-rescued-{name}"


def _rescue(save: Callable[[Path], list[str]], places: Sequence[Path]) -> str | None:
    """The first place that takes it, with what is missing there."""
    for place in places:
        try:
            shutil.rmtree(place, ignore_errors=True)
            faults = save(place)
        except Exception as error:  # there may be another place
            log.warning("the weights cannot be written in %s (%s)", place, _line(error))
            clear_frames(error.__traceback__)  # a file that they hold open keeps its room
            shutil.rmtree(place, ignore_errors=True)
        else:
            return f"{place} ({'; '.join(faults)})" if faults else str(place)
    return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
