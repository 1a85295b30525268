"""A separate file system, network and process namespace for the server, without bubblewrap."""

import os
import signal
import sys
from collections.abc import Sequence

from rrl.sandbox.inside import kernel

BOX = "/run/box"
"""The folder of programs. Rules on files are about the one above it, so that they hold for whatever is mounted here."""
HERE = "/tmp"
"""Where the new root is put together, visible to this process alone."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
STREAMS = {"/dev/fd": "", "/dev/stdin": "/0", "/dev/stdout": "/1", "/dev/stderr": "/2"}
"""Names of what a process has open, and where below ``OPEN`` it is."""
OPEN = "/proc/self/fd"


def enter(visible: Sequence[str], hidden: Sequence[str]) -> int:
    """Go on in a process that sees ``visible`` but ``hidden`` read-only, an empty /run/box, and nothing else.

    Returns a descriptor of its process namespace.
    """
    user, group = os.geteuid(), os.getegid()
    spaces = kernel.NEW_MOUNTS | kernel.NEW_PIDS | kernel.NEW_NET | kernel.NEW_IPC | kernel.NEW_NAMES
    kernel.unshare(spaces if user == 0 else spaces | kernel.NEW_USERS)
    if user != 0:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    first = os.fork()
    if first != 0:
        _stand_by(first)
    kernel.control(kernel.DIES_WITH_PARENT, signal.SIGKILL)
    pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    kernel.mount("none", "/", "", kernel.RECURSIVE | kernel.PRIVATE)
    sources = {path: os.open(path, os.O_PATH) for path in (*visible, *DEVICES) if os.path.exists(path)}
    kernel.mount("root", HERE, "tmpfs", kernel.NO_SETUID | kernel.NO_DEVICES, "mode=755,size=1m")
    for path, source in sources.items():
        _show(source, path)
    for path in hidden:
        kernel.mount("hidden", HERE + path, "tmpfs", kernel.READ_ONLY, "mode=755")
    for path, place in STREAMS.items():
        os.symlink(OPEN + place, HERE + path)
    for name in (BOX[1:], "old", "proc"):
        os.makedirs(f"{HERE}/{name}", exist_ok=True)
    safe = kernel.READ_ONLY | kernel.NO_SETUID | kernel.NO_DEVICES | kernel.NO_EXECUTION
    kernel.mount("proc", f"{HERE}/proc", "proc", safe)
    kernel.pivot_root(HERE, f"{HERE}/old")
    os.chdir("/")
    kernel.unmount("/old")
    os.rmdir("/old")
    kernel.mount("", "/", "", kernel.REMOUNT | kernel.BIND | kernel.READ_ONLY | kernel.NO_SETUID | kernel.NO_DEVICES)
    return pids


def _stand_by(first: int) -> None:
    """The process that does not belong to the new namespace ends with the one that does."""
    kernel.control(kernel.DIES_WITH_PARENT, signal.SIGKILL)
    os.close(0)
    _, status = os.waitpid(first, 0)
    sys.stderr.flush()
    os._exit(os.waitstatus_to_exitcode(status) & 255)


def _show(source: int, path: str) -> None:
    open_path = f"/proc/self/fd/{source}"
    if os.path.isdir(open_path):
        os.makedirs(HERE + path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(HERE + path), exist_ok=True)
        _write(HERE + path, "")
    kernel.bind_read_only(open_path, HERE + path)
    os.close(source)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
