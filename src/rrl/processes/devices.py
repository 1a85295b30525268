"""Which accelerators there are, and lending them to jobs so that no two jobs of a user on a host share one."""

import fcntl
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


def visible() -> list[str]:
    """The devices of CUDA_VISIBLE_DEVICES where it is set, else all of this machine; [] without any."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        import torch

        return [str(number) for number in range(torch.cuda.device_count())]
    names = [name.strip() for name in given.split(",")]
    end = next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))  # CUDA stops there
    return names[:end]


@dataclass(frozen=True)
class Lease:
    """Devices that are lent. Each lives in a lock file that stays locked as long as a process holds its descriptor."""

    devices: tuple[str, ...]
    descriptors: tuple[int, ...]

    def close(self) -> None:
        """Give the devices back; a child that inherited the descriptors keeps them until it ends."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def take(devices: Sequence[str], count: int) -> Lease | None:
    """Borrow ``count`` of the devices, or None while fewer are free. Raises ValueError when there are not so many.

    All are taken or none, under one lock, so that two jobs never wait for each other. A process that dies gives back.
    """
    if count > len(devices):
        raise ValueError(f"expected at most {len(devices)} devices, got {count}")
    folder = _folder()
    gate = _open(folder / "gate.lock")
    fcntl.flock(gate, fcntl.LOCK_EX)
    try:
        return _take(folder, devices, count)
    finally:
        os.close(gate)


def _folder() -> Path:
    """The folder of locks on this host's own disk: not every shared file system knows locks."""
    folder = Path(tempfile.gettempdir()) / f"rrl-devices-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _take(folder: Path, devices: Sequence[str], count: int) -> Lease | None:
    taken: dict[str, int] = {}
    for device in devices:
        if len(taken) == count:
            break
        descriptor = _locked(folder / _file(device))
        if descriptor is not None:
            taken[device] = descriptor
    lease = Lease(tuple(taken), tuple(taken.values()))
    if len(taken) == count:
        return lease
    lease.close()
    return None


def _file(device: str) -> str:
    """A lock's name. Two allocations of a cluster on one host may both call their own, different device 0."""
    allocation = os.environ.get("SLURM_JOB_ID", "host")
    return f"{allocation}-{device.replace('/', '_')}.lock"


def _locked(path: Path) -> int | None:
    """The descriptor of the locked file, or None when another process holds it."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
