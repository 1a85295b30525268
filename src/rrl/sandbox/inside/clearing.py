"""Removes a folder, whatever stands in it: this takes no recursion, no long paths and no permissions of what it holds.

It is also a program of its own: ``python clearing.py FOLDER``, for who would not be held up by it.
"""

import contextlib
import os
import sys

ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def empty(folder: str) -> None:
    """Leave nothing in it."""
    os.chmod(folder, 0o700)
    top = os.open(folder, ENTER)
    try:
        while names := os.listdir(top):
            for name in names:
                _dissolve(top, name)
    finally:
        os.close(top)


def remove(folder: str) -> None:
    """It and all that is in it, if it is there; OSError where that cannot be."""
    with contextlib.suppress(FileNotFoundError):
        empty(folder)
        os.rmdir(folder)


def _dissolve(top: int, name: str) -> None:
    """Remove a file, or a folder once the folders in it have been moved beside it."""
    if _unlinked(top, name):
        return
    place = os.open(name, ENTER, dir_fd=top)
    try:
        for inner in os.listdir(place):
            if not _unlinked(place, inner):
                os.rename(inner, os.urandom(16).hex(), src_dir_fd=place, dst_dir_fd=top)
    finally:
        os.close(place)
    os.rmdir(name, dir_fd=top)


def _unlinked(folder: int, name: str) -> bool:
    """Whether it is gone; if not, it is a folder, which now can be entered and emptied."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        os.chmod(name, 0o700, dir_fd=folder)
        return False
    return True


if __name__ == "__main__":
    remove(sys.argv[1])
