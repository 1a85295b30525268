"""Calls of Linux that Python's library lacks; each raises OSError when the kernel refuses it."""

import ctypes
import os
import struct
from collections.abc import Callable

NEW_MOUNTS, NEW_NAMES, NEW_IPC, NEW_USERS, NEW_PIDS, NEW_NET = 2**17, 2**26, 2**27, 2**28, 2**29, 2**30
READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXECUTION = 1, 2, 4, 8
REMOUNT, BIND, RECURSIVE, PRIVATE = 2**5, 2**12, 2**14, 2**18
DETACH = 2
DIES_WITH_PARENT, DUMPABLE, SECCOMP, SUBREAPER, NO_NEW_PRIVILEGES = 1, 4, 22, 36, 38
_CAPABILITIES = 0x20080522
NUMBER = struct.Struct("=I")
# a call must not release the interpreter's lock: its changes must hold for the fork that follows
_libc = ctypes.PyDLL(None, use_errno=True)


Call = Callable[[], int]


def _prepared(name: str, *arguments: int | bytes | None) -> Call:
    """A prepared call, so that a process that was just forked has little left to do for it."""
    function = getattr(_libc, name)
    given = [ctypes.c_ulong(each) if isinstance(each, int) else ctypes.c_char_p(each) for each in arguments]

    def call() -> int:
        result: int = function(*given)
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, f"{name}: {os.strerror(error)}")
        return result

    return call


def _call(name: str, *arguments: int | bytes | None) -> int:
    return _prepared(name, *arguments)()


def unshare(what: int) -> None:
    """Leave these namespaces for new ones."""
    _call("unshare", what)


def join_pids(namespace: int) -> None:
    """Put processes that are forked from now on into the process namespace of this descriptor."""
    _call("setns", namespace, NEW_PIDS)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount; ``kind`` and ``options`` as for mount(8)."""
    _call("mount", source.encode(), target.encode(), kind.encode(), flags, options.encode())


def bind_read_only(source: str, target: str) -> None:
    """Mount ``source`` at ``target``, read-only."""
    mount(source, target, "", BIND | RECURSIVE)
    had = os.statvfs(target).f_flag  # what is forbidden there already must stay so; the first flags are those of mounts
    mount(
        "", target, "", REMOUNT | BIND | READ_ONLY | NO_SETUID | had & 0b1111 | had & 0b11 << 10 | (had >> 12 & 1) << 21
    )


def unmount(target: str) -> None:
    """Detach a mount at once, even in use."""
    _call("umount2", target.encode(), DETACH)


def pivot_root(new: str, old: str) -> None:
    """Make ``new`` the root and put the old one at ``old``."""
    _call("syscall", {"x86_64": 155, "aarch64": 41}[os.uname().machine], new.encode(), old.encode())


def control(option: int, *arguments: int) -> None:
    """prctl(2)."""
    to_control(option, *arguments)()


def to_control(option: int, *arguments: int) -> Call:
    """The same, prepared."""
    return _prepared("prctl", option, *arguments, *[0] * (4 - len(arguments)))


class Filter:
    """Decides on each system call of a process; ``anybody`` in ``program`` stands for the number of the process."""

    def __init__(self, program: bytes, anybody: bytes) -> None:
        self._code = ctypes.create_string_buffer(program, len(program))
        self._places = [place for place in range(0, len(program), 4) if program[place : place + 4] == anybody]
        head = struct.pack("@HP", len(program) // 8, ctypes.addressof(self._code))
        self._head = ctypes.create_string_buffer(head, len(head))
        self._impose = to_control(SECCOMP, 2, ctypes.addressof(self._head))

    def impose(self) -> None:
        """Apply it to this process, from now on."""
        for place in self._places:
            NUMBER.pack_into(self._code, place, os.getpid())
        self._impose()


def to_drop_capabilities() -> Call:
    """A call that drops all privileges of this process."""
    return _prepared("capset", struct.pack("=Ii", _CAPABILITIES, 0), struct.pack("=6I", *[0] * 6))


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """A system call that the C library may not know."""
    return to_syscall(number, *arguments)()


def to_syscall(number: int, *arguments: int | bytes | None) -> Call:
    """The same, prepared."""
    return _prepared("syscall", number, *arguments)
