"""Removes a folder with any contents: without recursion, long paths, or permissions on its contents.

It is also a program, ``python clearing.py FOLDER``, for callers that must not wait.
"""

import contextlib
import os
import sys
import time

ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
Place = tuple[int, int]
"""A folder's identity: its device and inode."""


def empty(folder: str) -> None:
    """Remove its contents, going down and up step by step; the working directory is ``/`` afterwards."""
    places, left = [_enter(folder)], [_folders()]
    while left[-1] or len(left) > 1:
        if left[-1]:
            places.append(_enter(left[-1][-1]))
            left.append(_folders())
        else:
            del places[-1], left[-1]
            if _enter("..") != places[-1]:  # the folder has been moved: the parent is a foreign one
                raise OSError(f"{folder}: folders in it are moved while it is cleared")
            os.rmdir(left[-1].pop())
    os.chdir("/")


def remove(folder: str) -> None:
    """Remove it and its contents, if it exists; OSError where that fails."""
    with contextlib.suppress(FileNotFoundError):
        empty(folder)
        os.rmdir(folder)


def _enter(folder: str) -> Place:
    try:
        place = os.open(folder, ENTER)
    except PermissionError:  # the program has removed the permission
        os.chmod(folder, 0o700)
        place = os.open(folder, ENTER)
    try:
        found = os.fstat(place)
        if found.st_mode & 0o700 != 0o700 and found.st_uid == os.geteuid():
            os.fchmod(place, 0o700)
        os.fchdir(place)
    finally:
        os.close(place)
    return found.st_dev, found.st_ino


def _folders() -> list[str]:
    """The folders here that are not empty; everything else is removed."""
    return [name for name in os.listdir(".") if not _gone(name)]


def _gone(name: str) -> bool:
    try:
        os.unlink(name)
    except IsADirectoryError:
        try:
            os.rmdir(name)
        except OSError:
            return False
    return True


def _remove_at_last(folder: str) -> None:
    """Retry while processes that are about to end still write there."""
    for _ in range(20):
        try:
            return remove(folder)
        except OSError:
            time.sleep(0.1)
    remove(folder)


if __name__ == "__main__":
    _remove_at_last(sys.argv[1])
