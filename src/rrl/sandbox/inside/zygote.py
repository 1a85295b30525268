"""Forks the processes of programs, from a memory that never holds a request nor anything that a program wrote.

What is forked inherits all that its parent ever had in its heap, freed or not. So this process is forked itself before
the first request, and does not read: the descriptors from which a program gets its request, and to which it writes,
pass through it, and its messages are numbers of the kernel's.
"""

import os
import signal
import socket
import struct
from collections.abc import Sequence

from rrl.sandbox.inside import child, kernel
from rrl.sandbox.inside.cell import Cell

NUMBER = struct.Struct("=q")
END = struct.Struct("=qd")
"""How a process ended: its exit code, and its seconds of processor time."""
START, ENDED, COLLECT = b"S", b"E", b"C"
MOST = 5
"""Descriptors of one process: its program, input, output, errors and report."""


class Zygote:
    """The other side of it, of who watches."""

    def __init__(self, cell: Cell, keep: int) -> None:
        """It ends when this process does; ``keep`` is the line to the parent, which is not for it."""
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        watcher = os.getpid()
        if os.fork() == 0:
            try:
                os.close(keep)
                self._line.close()
                _serve(theirs, cell, watcher)
            finally:
                os._exit(0)
        theirs.close()

    def fileno(self) -> int:
        """Of what is ready when the process has ended."""
        return self._line.fileno()

    def start(self, descriptors: Sequence[int]) -> int:
        """Have a process forked that gets these; its number."""
        socket.send_fds(self._line, [START], list(descriptors))
        return int(NUMBER.unpack(self._receive())[0])

    def collect(self) -> tuple[int, float]:
        """Wait for its end: exit code and processor time. Until then its number is not reused."""
        self._receive()
        self._line.send(COLLECT)
        code, seconds = END.unpack(self._receive())
        return code, seconds

    def _receive(self) -> bytes:
        message = self._line.recv(END.size)
        if not message:
            raise EOFError("the process that forks programs is gone")
        return message


def _serve(line: socket.socket, cell: Cell, watcher: int) -> None:
    kernel.control(kernel.DIES_WITH_PARENT, signal.SIGKILL)
    cell.adopt()
    while os.getppid() == watcher:  # else the watcher ended before this process could be notified
        start, descriptors, _, _ = socket.recv_fds(line, len(START), MOST)
        if not start:
            return
        pid = cell.fork()
        if pid == 0:
            child.become(cell, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        line.send(NUMBER.pack(pid))
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        line.send(ENDED)
        line.recv(len(COLLECT))
        _, status, usage = os.wait4(pid, 0)
        cell.end_processes(pid)
        line.send(END.pack(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime))
