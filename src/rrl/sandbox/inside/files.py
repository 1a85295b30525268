"""The files that a process may open, by Linux' Landlock, where it has no separate file system."""

import os
import struct
from collections.abc import Sequence

from rrl.sandbox.inside import kernel

CREATE, ADD, RESTRICT = 444, 445, 446
READ, READ_FOLDER, OF_FILES = 0b1100, 0b1000, 0b110
ALL = {1: 2**13 - 1, 2: 2**14 - 1, 3: 2**15 - 1, 4: 2**15 - 1}
NEWEST = 2**16 - 1
"""All rights on files, by version of Landlock."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def version() -> int:
    """The version of Landlock in this kernel; 0 without it."""
    try:
        return kernel.syscall(CREATE, None, 0, 1)
    except OSError:
        return 0


def prepare(readable: Sequence[str], hidden: Sequence[str], writable: str, descriptor: int) -> None:
    """Make rules that allow only ``readable`` without ``hidden``, and ``writable``.

    They also confine signals and abstract sockets where the kernel can.
    """
    present = version()
    rights = ALL.get(present, NEWEST)
    wanted = struct.pack("=QQQ", rights, 0, 0b11)[: 24 if present >= 6 else 8]
    rules = kernel.syscall(CREATE, wanted, len(wanted), 0)
    for path in (*readable, *DEVICES):
        _allow_but(rules, path, hidden)
    _allow(rules, writable, rights)
    os.dup2(rules, descriptor, inheritable=False)
    os.close(rules)


def to_confine(descriptor: int) -> kernel.Call:
    """A call that imposes these rules on a process."""
    return kernel.to_syscall(RESTRICT, descriptor, 0)


def _allow_but(rules: int, path: str, hidden: Sequence[str]) -> None:
    """Rules only add rights, so that the neighbours of a hidden path are allowed one by one."""
    if path in hidden:
        return
    if not any(each.startswith(f"{path}/") for each in hidden):
        _allow(rules, path, READ)
        return
    _allow(rules, path, READ_FOLDER)
    for name in os.listdir(path):
        _allow_but(rules, f"{path}/{name}", hidden)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a missing file needs no rule
    given = rights if os.path.isdir(path) else OF_FILES if path in DEVICES else OF_FILES & rights
    kernel.syscall(ADD, rules, 1, struct.pack("=Qi", given, place), 0)
    os.close(place)
