"""The surroundings of programs: where their processes are forked, and what is denied to each."""

import os
import resource
import signal
import time
from collections.abc import Mapping
from typing import Any

from rrl.sandbox.inside import calls, clearing, files, kernel, library, root
from rrl.sandbox.inside.orphans import end_orphans
from rrl.sandbox.inside.root import BOX

HIGHEST = 1000
"""The descriptor of a program's report, where so many files may be open: too high for programs to meet by chance."""


class Cell:
    """The surroundings of programs: ``settings`` as the parent gives them, see rrl.sandbox.start."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.limits: Mapping[str, Any] = settings["limits"]
        self._own_root = settings["isolation"] != "rlimits"
        self._user: int | None = settings["user"] if os.geteuid() == 0 else None
        self._filter = calls.filter_of_programs() if settings["filtered"] and calls.known() else None
        self._confines = settings["filtered"] and files.version() > 0
        self._box = BOX if self._own_root else settings["folder"] + "/box"
        self.report = _raise_open_files()
        self._rules, self._library = self.report + 1, self.report + 2
        self._pids = self._enter(settings)
        os.umask(0o022)
        kernel.control(kernel.NO_NEW_PRIVILEGES, 1)  # set-user-ID files give no privileges from now on
        kernel.control(kernel.DUMPABLE, 0)  # no core files, and no access for processes of the same user
        self._furnish()
        if self._confines:
            writable = os.path.dirname(BOX) if self._own_root else self._box
            files.prepare(settings["visible"], settings["hidden"], writable, self._rules)
        self._most = self._limits()
        self._follow_rules = files.to_confine(self._rules)
        self._drop_capabilities = kernel.to_drop_capabilities()
        self._die_with_parent = kernel.to_control(kernel.DIES_WITH_PARENT, signal.SIGKILL)

    def _enter(self, settings: Mapping[str, Any]) -> int:
        """Enter the root of programs; the descriptor of their process namespace."""
        if settings["isolation"] == "namespaces":
            return root.enter(settings["visible"], settings["hidden"])
        if settings["isolation"] == "rlimits":
            os.makedirs(os.path.dirname(self._box))
            os.chmod(os.path.dirname(self._box), 0o711)
            return -1
        kernel.unmount(os.path.dirname(os.path.abspath(__file__)))
        return os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def open_library(self) -> None:
        """Let programs import from Python's library where their user may not enter; call it after all imports here."""
        if not self._own_root and self._user is not None and not _everybody_enters(os.__file__):
            library.open_door(self._library)

    def adopt(self) -> None:
        """In the process that forks programs: their orphans become children of this process."""
        if not self._own_root:
            kernel.control(kernel.SUBREAPER, 1)

    def fork(self) -> int:
        """As os.fork; the child has its own process namespace where that is possible."""
        if not self._own_root:
            return os.fork()
        kernel.unshare(kernel.NEW_PIDS)
        pid = os.fork()
        if pid != 0:
            kernel.join_pids(self._pids)
        return pid

    def confine(self) -> None:
        """In the child: give up every privilege, for good."""
        os.chdir(self._box)
        computed = int(time.process_time() + self.limits["cpu_seconds"]) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (computed, computed))  # a fallback: the watcher stops programs earlier
        for what, most in self._most:
            resource.setrlimit(what, most)
        if self._confines:
            self._follow_rules()
            os.close(self._rules)
        if self._user is not None:
            os.setgroups([])
            os.setresgid(self._user, self._user, self._user)
            os.setresuid(self._user, self._user, self._user)
        elif self._own_root:
            self._drop_capabilities()
        self._die_with_parent()
        if self._filter is not None:
            self._filter.impose()

    def _limits(self) -> list[tuple[int, tuple[int, int]]]:
        given = self.limits
        most = {
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_NOFILE: given["open_files"],
            resource.RLIMIT_FSIZE: given["file_mb"] * 2**20,
            resource.RLIMIT_NPROC: self._most_processes(),
            resource.RLIMIT_AS: given["memory_mb"] * 2**20,
        }
        return [(what, (value, value)) for what, value in most.items()]

    def _most_processes(self) -> int:
        """The kernel counts all threads of a user, which are the program's alone only where it has its own user."""
        given = int(self.limits["processes"])
        if self._user is not None:
            return given
        if self._own_root:
            return given + 3  # the watcher, the forker, and the first process of the namespace
        return resource.getrlimit(resource.RLIMIT_NPROC)[0]

    def end_processes(self, pid: int) -> None:
        """End all processes of the program."""
        if not self._own_root:
            end_orphans(pid, self._user)

    def clear(self) -> None:
        """Remove all files of the program."""
        if os.stat(self._box).st_ctime_ns != self._furnished or os.listdir(self._box):
            if self._own_root:
                kernel.unmount(BOX)
            else:
                clearing.empty(self._box)
            self._furnish()

    def _furnish(self) -> None:
        owner, group = os.geteuid(), os.getegid()
        if self._user is not None:
            owner = group = self._user
        if self._own_root:
            most = self.limits["file_mb"]
            options = f"size={most}m,nr_inodes={64 * most},mode=755,uid={owner},gid={group}"
            kernel.mount("box", BOX, "tmpfs", kernel.NO_SETUID | kernel.NO_DEVICES, options)
        else:
            os.makedirs(self._box, exist_ok=True)
            os.chmod(self._box, 0o700)
            os.chown(self._box, owner, group)
        self._furnished = os.stat(self._box).st_ctime_ns

    def leave(self) -> None:
        """Remove the server's folder."""
        if not self._own_root:
            clearing.remove(os.path.dirname(self._box))


def _raise_open_files() -> int:
    """Raise the limit on open files; returns a descriptor for reports, with two more free after it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    number = HIGHEST if hard == resource.RLIM_INFINITY else min(HIGHEST, hard - 3)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number + 3), hard))
    return number


def _everybody_enters(path: str) -> bool:
    while len(path) > 1:
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & 1:
            return False
    return True
