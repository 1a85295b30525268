"""Calls of Linux that Python's library lacks; each raises OSError when the kernel refuses it."""

import ctypes
import os
import struct

NEW_MOUNTS, NEW_NAMES, NEW_IPC, NEW_USERS, NEW_PIDS, NEW_NET = 2**17, 2**26, 2**27, 2**28, 2**29, 2**30
READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXECUTION = 1, 2, 4, 8
REMOUNT, BIND, RECURSIVE, PRIVATE = 2**5, 2**12, 2**14, 2**18
DETACH = 2
DIES_WITH_PARENT, DUMPABLE, SECCOMP, SUBREAPER, NO_NEW_PRIVILEGES = 1, 4, 22, 36, 38
_CAPABILITIES = 0x20080522
# a call must not let go of the interpreter's lock: what it changes holds for a fork that follows
_libc = ctypes.PyDLL(None, use_errno=True)


def _call(name: str, *arguments: int | bytes | None) -> int:
    given = [ctypes.c_ulong(each) if isinstance(each, int) else ctypes.c_char_p(each) for each in arguments]
    result = int(getattr(_libc, name)(*given))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def unshare(what: int) -> None:
    """Leave these namespaces for new ones."""
    _call("unshare", what)


def join_pids(namespace: int) -> None:
    """Processes that are forked from now on belong to the process namespace of this descriptor."""
    _call("setns", namespace, NEW_PIDS)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount; ``kind`` and ``options`` as for mount(8)."""
    _call("mount", source.encode(), target.encode(), kind.encode(), flags, options.encode())


def bind_read_only(source: str, target: str) -> None:
    """Show ``source`` at ``target``, where nothing of it can be changed."""
    mount(source, target, "", BIND | RECURSIVE)
    had = os.statvfs(target).f_flag  # what is forbidden there already must stay so; the first flags are those of mounts
    mount(
        "", target, "", REMOUNT | BIND | READ_ONLY | NO_SETUID | had & 0b1111 | had & 0b11 << 10 | (had >> 12 & 1) << 21
    )


def unmount(target: str) -> None:
    """Take a mount away at once, whoever uses it."""
    _call("umount2", target.encode(), DETACH)


def pivot_root(new: str, old: str) -> None:
    """Make ``new`` the root and put the old one at ``old``."""
    _call("syscall", {"x86_64": 155, "aarch64": 41}[os.uname().machine], new.encode(), old.encode())


def control(option: int, *arguments: int) -> None:
    """prctl(2)."""
    _call("prctl", option, *arguments, *[0] * (4 - len(arguments)))


def seccomp(program: bytes) -> None:
    """Have a filter decide on each system call of this process from now on."""
    code = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    control(SECCOMP, 2, ctypes.addressof(head))


def drop_capabilities() -> None:
    """Give up all privileges of this process."""
    _call("capset", struct.pack("=Ii", _CAPABILITIES, 0), struct.pack("=6I", *[0] * 6))


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """A system call that the C library may not know."""
    return _call("syscall", number, *arguments)
