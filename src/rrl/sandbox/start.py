"""The command of a server for each kind of isolation, and the part of this machine that it sees."""

import json
import os
import secrets
import shutil
import sys
import sysconfig
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rrl.sandbox.inside.root import BOX, DEVICES, OPEN, STREAMS
from rrl.sandbox.limits import Limits

Level = Literal["bubblewrap", "namespaces", "rlimits"]
INSIDE = Path(__file__).parent / "inside"
PLACE = "/harness/rrl/sandbox/inside"
"""The place of the server's own files under bubblewrap while it starts."""
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store", "/etc/ld.so.cache")
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "MALLOC_ARENA_MAX": "1", "LD_BIND_NOW": "1"}
"""The whole environment of a server. Sets of texts have a fixed order, files are UTF-8, threads share one heap (the C
library would give each its own 64 MB of address space), and symbols are bound once, not in each program."""
SPACES = ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
OF_ROOT = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL")
"""Root's privileges that the server needs to make namespaces, change users and end programs, which get none."""
FIRST_USER, USERS = 2**30, 2**24
FEW_USERS = (61184, 4000)
"""Unused numbers of users (first, count) in a container with 65,536 of them."""


def command(level: Level, limits: Limits, folder: str, *, filtered: bool, own_user: bool) -> list[str]:
    """The command of a server; see rrl.sandbox.server."""
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    visible = _visible(python)
    hidden = _hidden()
    settings = {
        "limits": asdict(limits), "isolation": level, "folder": folder, "visible": visible, "hidden": hidden,
        "filtered": filtered, "user": _user() if own_user else None,
    }  # fmt: skip
    home = PLACE if level == "bubblewrap" else str(INSIDE)
    serve = [python, "-S", "-s", f"{home}/serve.py", json.dumps(settings)]
    return [*_bubblewrap(visible, hidden), *serve] if level == "bubblewrap" else serve


def clearing(folder: str) -> list[str]:
    """The command that removes a server's folder."""
    return [os.path.realpath(sys.executable), "-S", "-s", "-I", str(INSIDE / "clearing.py"), folder]


def _visible(python: str) -> list[str]:
    """The paths that programs may read: this interpreter and the system's libraries."""
    own = (python, f"{sys.base_prefix}/lib", f"{sys.base_exec_prefix}/lib")
    return [path for path in dict.fromkeys((*own, *LIBRARIES)) if os.path.exists(path)]


def _hidden() -> list[str]:
    """The folders of installed packages: this project may be among them, and its files hold answers."""
    library = sysconfig.get_path("stdlib")
    folders = (f"{library}/site-packages", f"{library}/dist-packages", "/usr/lib/python3/dist-packages")
    return [folder for folder in folders if os.path.isdir(folder)]


def _bubblewrap(visible: list[str], hidden: list[str]) -> list[str]:
    """The server is root in it if this process is, else a nameless user; it may make namespaces either way."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise FileNotFoundError("bwrap is not installed")
    words = [bwrap, *SPACES, "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    words += [] if os.geteuid() == 0 else ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    for capability in OF_ROOT if os.geteuid() == 0 else OF_ROOT[:1]:
        words += ["--cap-add", capability]
    for folder in dict.fromkeys(
        str(folder) for path in (*visible, *DEVICES) for folder in reversed(Path(path).parents)
    ):
        words += ["--perms", "0755", "--dir", folder]  # the default would copy modes that keep other users out
    for path in visible:
        words += ["--ro-bind", path, path]
    for path in DEVICES:
        words += ["--dev-bind", path, path]
    for path in hidden:
        words += ["--tmpfs", path, "--remount-ro", path]
    for path, place in STREAMS.items():
        words += ["--symlink", OPEN + place, path]
    return [*words, "--ro-bind", str(INSIDE), PLACE, "--proc", "/proc", "--dir", BOX, "--remount-ro", "/", "--"]


def _user() -> int:
    """An unused user, for root, so that limits on processes count this server's programs alone."""
    user = FIRST_USER + secrets.randbelow(USERS)
    ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    if any(first <= user < first + count for first, _, count in ranges):
        return user
    return FEW_USERS[0] + secrets.randbelow(FEW_USERS[1])
