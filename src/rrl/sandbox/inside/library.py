"""Lets programs import Python's library where their user may not enter a folder above it."""

import os
import sys


def open_door(number: int) -> None:
    """Import modules through an open descriptor from now on: that needs no access to the folders above."""
    library = os.path.dirname(os.__file__)
    place = os.open(library, os.O_PATH | os.O_DIRECTORY)
    os.dup2(place, number, inheritable=False)
    os.close(place)

    def moved(path: str) -> str:
        return path.replace(library, f"/proc/self/fd/{number}", 1) if path.startswith(library) else path

    for paths in (sys.path, *(getattr(module, "__path__", None) for module in list(sys.modules.values()))):
        if isinstance(paths, list):
            paths[:] = map(moved, paths)
    sys.path_importer_cache.clear()
