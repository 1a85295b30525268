"""The visible accelerators, and leases of them, so that no two jobs of a user on a host share one."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


def visible_devices() -> list[str]:
    """The devices of CUDA_VISIBLE_DEVICES where it is set, else all of this machine."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        import torch

        return [str(number) for number in range(torch.cuda.device_count())]
    names = [name.strip() for name in given.split(",")]
    end = next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))  # CUDA stops there
    return names[:end]


@dataclass(frozen=True)
class Lease:
    """Leased devices, each with a lock file that stays locked while any process holds its descriptor."""

    devices: tuple[str, ...]
    descriptors: tuple[int, ...]

    def close(self) -> None:
        """Return the devices; a child that inherited the descriptors keeps them until it ends."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def take(devices: Sequence[str], count: int) -> Lease | None:
    """Lease ``count`` of the devices, or return None while fewer are free; ValueError when there are not so many.

    One lock makes this all or nothing, so that two jobs never wait for each other. The end of a process frees its own.
    """
    if count > len(devices):
        raise ValueError(f"expected at most {len(devices)} devices, got {count}")
    folder = Path(tempfile.gettempdir()) / f"rrl-devices-{os.getuid()}"  # some shared file systems have no locks
    folder.mkdir(mode=0o700, exist_ok=True)
    gate = _open_lock(folder / "gate.lock")
    fcntl.flock(gate, fcntl.LOCK_EX)
    try:
        return _lease(folder, devices, count)
    finally:
        os.close(gate)


def wait_for(devices: Sequence[str], count: int, stopped: Callable[[], bool], pause: float) -> Lease | None:
    """A lease as soon as so many of the devices are free (empty without devices); None once ``stopped``.

    They are tried every ``pause`` seconds.
    """
    while not stopped():
        lease = take(devices, count) if devices else Lease((), ())
        if lease is not None:
            return lease
        time.sleep(pause)
    return None


def _lease(folder: Path, devices: Sequence[str], count: int) -> Lease | None:
    # The name has the SLURM job: different devices of two jobs on one host may both have the number 0.
    allocation = os.environ.get("SLURM_JOB_ID", "host")
    taken: dict[str, int] = {}
    for device in devices:
        descriptor = _locked(folder / f"{allocation}-{device.replace('/', '_')}.lock") if len(taken) < count else None
        if descriptor is not None:
            taken[device] = descriptor
    lease = Lease(tuple(taken), tuple(taken.values()))
    if len(taken) == count:
        return lease
    lease.close()
    return None


def _locked(path: Path) -> int | None:
    """The descriptor of the locked file, or None when another process holds it."""
    descriptor = _open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
