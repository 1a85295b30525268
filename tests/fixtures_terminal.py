"""A terminal for tests: a process on a pseudo-terminal, and the screen that its output makes."""

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
from typing import Any


def on_terminal(program: str, width: int, **environment: str) -> list[str]:
    """The screen, scrolled lines included, after the Python program has run on a terminal of this width."""
    master, slave = os.openpty()
    resize(slave, width)
    given: dict[str, Any] = {"stdin": slave, "stdout": slave, "stderr": slave}
    child = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "TERM": "xterm", **environment}, **given
    )
    output = b""
    while child.poll() is None or select.select([master], [], [], 0.2)[0]:  # ours is open, so that nothing is dropped
        if select.select([master], [], [], 0.2)[0]:
            output += os.read(master, 2**16)
    assert child.returncode == 0, output.decode()
    os.close(slave)
    os.close(master)
    return screen(output.decode(), width)


def resize(terminal: int, width: int) -> None:
    """Give the terminal so many columns."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))


def screen(output: str, width: int) -> list[str]:
    """What output leaves on a screen: carriage returns, line ends, wrapping, and the cursor's way up."""
    rows, row, column = [""], 0, 0
    for piece in output.replace("\x1b[A", "\x00").replace("\x1b[K", "\x01"):
        if piece == "\r":
            column = 0
        elif piece == "\x00":
            row = max(0, row - 1)
        elif piece == "\x01" and row < len(rows):
            rows[row] = rows[row][:column]
        elif piece == "\n" or column == width:
            row, column = row + 1, 0
        if piece >= " ":
            rows += [""] * (row + 1 - len(rows))
            rows[row] = rows[row][:column].ljust(column) + piece + rows[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in rows]
