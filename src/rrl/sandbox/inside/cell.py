"""Where the processes of programs are forked, and what each is denied."""

import os
import resource
import signal
from collections.abc import Mapping
from typing import Any

from rrl.sandbox.inside import calls, files, kernel, root
from rrl.sandbox.inside.orphans import end_orphans

BOX = "/box"
RULES = 1001
"""The descriptor of the rules on files."""


class Cell:
    """The surroundings of programs: ``settings`` as the parent gives them, see rrl.sandbox.start."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.limits: Mapping[str, Any] = settings["limits"]
        self._own_root = settings["isolation"] != "rlimits"
        self._user: int | None = settings["user"] if os.geteuid() == 0 else None
        self._visible, self._hidden = list(settings["visible"]), list(settings["hidden"])
        self._calls = calls.program() if settings["filtered"] and calls.known() else b""
        self._confines = settings["filtered"] and not self._own_root and files.version() > 0
        self._box = BOX if self._own_root else settings["folder"] + BOX
        self._pids = self._enter(settings["isolation"])
        self._rlimits = self._most()
        kernel.control(kernel.NO_NEW_PRIVILEGES, 1)  # no file that is run lends its owner's privileges from now on
        self._furnish()

    def _enter(self, isolation: str) -> int:
        """Go where programs are to be; the descriptor of the process namespace there."""
        if isolation == "namespaces":
            return root.enter(self._visible, self._hidden)
        if isolation == "rlimits":
            kernel.control(kernel.SUBREAPER, 1)
            return -1
        pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        kernel.unmount("/proc")
        kernel.unmount(os.path.dirname(os.path.abspath(__file__)))
        return pids

    def readable(self, path: str) -> bool:
        """Whether programs can load modules from there."""
        if self._own_root or self._user is None:
            return True
        while len(path) > 1:
            path = os.path.dirname(path)
            if not os.stat(path).st_mode & 1:
                return False
        return True

    def fork(self) -> int:
        """As os.fork; the child has process numbers of its own where that is possible."""
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
        for what, most in self._rlimits:
            resource.setrlimit(what, (most, most))
        if self._confines:
            files.confine(RULES)
            os.close(RULES)
        if self._user is not None:
            os.setgroups([])
            os.setresgid(self._user, self._user, self._user)
            os.setresuid(self._user, self._user, self._user)
        elif self._own_root:
            kernel.drop_capabilities()
        kernel.control(kernel.DIES_WITH_PARENT, signal.SIGKILL)
        if self._calls:
            kernel.seccomp(calls.belonging_to(os.getpid(), self._calls))

    def _most(self) -> tuple[tuple[int, int], ...]:
        given = self.limits
        return (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_CPU, max(1, -int(-given["cpu_seconds"] // 1))),
            (resource.RLIMIT_NOFILE, given["open_files"]),
            (resource.RLIMIT_FSIZE, given["file_mb"] * 2**20),
            (resource.RLIMIT_NPROC, self._most_processes()),
            (resource.RLIMIT_AS, given["memory_mb"] * 2**20),
        )

    def _most_processes(self) -> int:
        """The kernel counts all threads of a user, among which are others than the program's unless it has its own."""
        given = int(self.limits["processes"])
        if self._user is not None:
            return given
        if self._own_root:
            return given + 2  # the server and the first process of its namespace
        return resource.getrlimit(resource.RLIMIT_NPROC)[0]

    def clear(self, pid: int) -> None:
        """After the program: none of its processes and none of its files are left."""
        if not self._own_root:
            end_orphans(pid, self._user)
        if os.stat(self._box).st_ctime_ns != self._furnished:
            self._empty()
            self._furnish()

    def _furnish(self) -> None:
        owner, group = os.geteuid(), os.getegid()
        if self._user is not None:
            owner = group = self._user
        if self._own_root:
            most = self.limits["file_mb"]
            options = f"size={most}m,nr_inodes={64 * most},mode=711,uid={owner},gid={group}"
            kernel.mount("box", BOX, "tmpfs", kernel.NO_SETUID | kernel.NO_DEVICES, options)
        else:
            os.makedirs(self._box, 0o700, exist_ok=True)
            os.chown(self._box, owner, group)
        self._furnished = os.stat(self._box).st_ctime_ns
        if self._confines:
            files.prepare(self._visible, self._hidden, self._box, RULES)

    def _empty(self) -> None:
        if self._own_root:
            kernel.unmount(BOX)
        elif os.spawnvp(os.P_WAIT, "rm", ["rm", "-rf", self._box]) != 0:
            os.spawnvp(os.P_WAIT, "chmod", ["chmod", "-R", "u+rwx", self._box])
            os.spawnvp(os.P_WAIT, "rm", ["rm", "-rf", self._box])

    def leave(self) -> None:
        """At the end of the server."""
        if not self._own_root:
            self._empty()
            os.rmdir(os.path.dirname(self._box))
