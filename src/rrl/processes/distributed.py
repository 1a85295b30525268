"""The process group: this process's rank and device, and work that is divided among the ranks.

Every rank takes the same steps with the same states, rollouts and batches; only the work on them is divided, and its
results are gathered on every rank. So no decision depends on the number of processes.
"""

import atexit
import hashlib
import logging
import os
import pickle
import random
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from rrl.errors import DataError, PartError, UsageError
from rrl.processes.network import choose_interface
from rrl.types import Batch

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

if not torch.cuda.is_available():  # before any import of deepspeed, which would search for devices and print
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

MEETING, DAY = timedelta(minutes=30), timedelta(days=1)
EVERY = 0.05
"""Seconds between looks for the reports of other ranks."""
_objects: Any = None
"""The group for Python objects: gloo, whichever backend tensors use."""
_store: Any = None
"""The store through which processes found each other; any thread may use it."""


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """The number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def device() -> torch.device:
    """This process's accelerator, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", _local_rank())
    return torch.device("cpu")


def start_process_group() -> None:
    """Join the processes that a launcher started, given its environment variables; else form a group of one.

    Idempotent. Ranks wait half an hour for each other to start. Collectives wait for a day: hangs are detected by the
    watchdog, which knows the phase.
    """
    global _objects, _store
    if distributed.is_initialized():
        return
    os.environ.setdefault("LOCAL_RANK", "0")
    cuda = torch.cuda.is_available()
    own = device() if cuda else None
    if own is not None:
        torch.cuda.set_device(own)
    store, number, size = _meeting()
    backend = "nccl" if cuda else "gloo"
    distributed.init_process_group(backend, store=store, rank=number, world_size=size, timeout=DAY, device_id=own)
    if size == 1:  # several leave together, by ``leave_process_group``
        atexit.register(leave_process_group)
    store.set_timeout(DAY)
    _objects, _store = distributed.new_group(backend="gloo", timeout=DAY) if cuda else None, store


def _meeting() -> tuple[Any, int, int]:
    """The store through which processes find each other, this one's rank, and their number."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return distributed.HashStore(), 0, 1  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    choose_interface()
    store, number, size = next(rendezvous("env://", timeout=MEETING))
    return distributed.PrefixStore("rrl", store), number, size  # type: ignore[attr-defined]


def leave_process_group() -> None:
    """Wait for the others, and end the group."""
    if distributed.is_initialized():
        gathered(None)
        distributed.destroy_process_group()


def gathered(mine: Item) -> list[Item]:
    """The items of all ranks, in the order of ranks."""
    if world_size() == 1:
        return [mine]
    everyones: list[Any] = [None] * world_size()
    distributed.all_gather_object(everyones, mine, group=_objects)
    return everyones


def from_first(make: Callable[[], Result]) -> Result:
    """The result or error of ``make`` on rank 0; the others do not call it."""
    result: Result = _result(gathered(_attempt(make) if rank() == 0 else (None, None))[0])
    return result


def spread(items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]]) -> list[Result]:
    """Results of ``work``, one an item and in order; each rank works on its share of the items.

    An error on one rank is raised on all ranks.
    """
    size = world_size()
    if size == 1:
        return list(work(items))
    parts = [_result(part) for part in gathered(_attempt(lambda: list(work(items[rank() :: size]))))]
    return [parts[i % size][i // size] for i in range(len(items))]


def reported(name: str, make: Callable[[], Result]) -> list[Result]:
    """Call ``make`` on each rank; returns the results of all ranks to rank 0, an empty list to the others.

    For threads beside the training one: ranks write to the store, because collectives of two threads would mix. An
    error on one rank is raised on rank 0. ``name`` is that of the occasion; no other may have it at the same time.
    """
    if world_size() == 1:
        return [make()]
    _store.set(f"{name}/{rank()}", pickle.dumps(_attempt(make)))
    if rank() > 0:
        return []
    keys = [f"{name}/{number}" for number in range(world_size())]
    while not _store.check(keys):
        time.sleep(EVERY)
    attempts = [pickle.loads(_store.get(key)) for key in keys]
    for key in keys:
        _store.delete_key(key)
    return [_result(attempt) for attempt in attempts]


def share(batch: Batch) -> Batch:
    """This rank's rows, as many as any other rank's: missing rows are filled with rows of weight 0."""
    size = world_size()
    if size == 1:
        return batch
    mine = torch.arange(len(batch))[rank() :: size]
    missing = -(-len(batch) // size) - len(mine)
    filler = mine.new_full((missing,), len(batch) - 1)  # the last row: the shortest where rows are sorted
    part = batch.rows(torch.cat([mine, filler]))
    weight = part.weight.clone()
    weight[len(mine) :] = 0.0
    return part.with_(weight=weight)


def unshare(columns: Tensor, count: int) -> Tensor:
    """Combine the ranks' results [columns, rows of ``share``, time] into [columns, ``count``, time]."""
    size = world_size()
    whole = torch.zeros(columns.shape[0], count, columns.shape[2])
    for number, part in enumerate(gathered(columns)):
        whole[:, number::size] = part[:, : len(range(number, count, size))]
    return whole


def summed(numbers: Mapping[str, float]) -> dict[str, float]:
    """Each number summed over the ranks, which have the same names."""
    if world_size() == 1:
        return dict(numbers)
    everyones = gathered(dict(numbers))
    return {name: sum(each[name] for each in everyones) for name in numbers}


def largest(numbers: Mapping[str, float]) -> dict[str, float]:
    """The maximum of each number over the ranks."""
    everyones = gathered(dict(numbers))
    return {name: max(each.get(name, 0.0) for each in everyones) for name in numbers}


def agree(what: str, facts: object) -> None:
    """Raise DataError on every rank unless all ranks have the same facts."""
    digests = gathered(hashlib.sha256(repr(facts).encode()).hexdigest()[:8])
    if len(set(digests)) > 1:
        raise DataError(
            f"{what}: ranks have different ones ({', '.join(digests)}); expected the same on all; give every machine "
            "the same files, and let parts draw from generators that they seed in start"
        )


def seed_everything(seed: int) -> None:
    """Seed the global generators, which dropout and other libraries use; this project's code does not."""
    import numpy

    torch.manual_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)


def random_state() -> dict[str, Any]:
    """The states of this process's global generators, which dropout and other libraries use."""
    import numpy

    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    state = {"torch": torch.get_rng_state(), "cuda": cuda}
    return {**state, "python": random.getstate(), "numpy": numpy.random.get_state()}


def restore_random_state(state: dict[str, Any]) -> None:
    import numpy

    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(state["python"])
    numpy.random.set_state(state["numpy"])


def anywhere(fact: bool) -> bool:
    """Whether the fact is true on any rank."""
    return any(gathered(fact))


@contextmanager
def first_on_each_machine() -> Iterator[None]:
    """Run the block in one process of each machine before the others run it; its error is raised on all ranks."""
    fault: Exception | None = None
    if _local_rank() == 0:
        try:
            yield
        except Exception as error:  # raised again on every rank
            fault = error
    for found in gathered(fault):
        if found is not None:
            raise found
    if _local_rank() != 0:
        yield


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def _attempt(make: Callable[[], Any]) -> tuple[Exception | None, Any]:
    try:
        return None, make()
    except Exception as error:  # raised again on every rank, without its traceback
        if not isinstance(error, UsageError) or isinstance(error, PartError):
            log.error("rank %d: %s", rank(), traceback.format_exc())
        return _portable(error), None


def _portable(error: Exception) -> Exception:
    """The error or, where it cannot be pickled, its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # another library's exception may raise anything when it is rebuilt
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _result(attempt: tuple[Exception | None, Any]) -> Any:
    error, result = attempt
    if error is not None:
        raise error
    return result
