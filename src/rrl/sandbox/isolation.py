"""Chooses an isolation that works on this machine, by starting it, and tests what programs reach under it."""

import os
import socket
from collections.abc import Mapping
from contextlib import closing
from typing import Literal

from rrl.errors import DataError
from rrl.processes.warm_child import Lost
from rrl.sandbox.inside.request import packed
from rrl.sandbox.limits import Limits
from rrl.sandbox.outcome import run_of
from rrl.sandbox.server import Server
from rrl.sandbox.start import Level

Isolation = Literal["auto", "bubblewrap", "namespaces", "rlimits"]
LEVELS: tuple[Level, ...] = ("bubblewrap", "namespaces", "rlimits")
"""From the best to the worst."""
REMEDY = {
    "bubblewrap": "apt-get install bubblewrap, in a container that may make namespaces; or isolation=auto",
    "namespaces": "a container that may make namespaces (sysctl user.max_user_namespaces); or isolation=auto",
    "rlimits": "see the message",
}
NO_MORE = "this user may have no more processes: raise ulimit -u, or lower sandbox.workers"
SCARCE = {
    "Resource temporarily unavailable": NO_MORE,
    "Too many open files": "this process may have no more files open: raise ulimit -n, or lower sandbox.workers",
    "Cannot allocate memory": "this machine or container is out of memory: lower sandbox.workers",
    "No space left on device": "the folder for temporary files is full: make room there, or set TMPDIR",
}
"""The remedy by the kernel's message, for any isolation."""
CANARY = packed("def sing():\n    return 1\n", "sing", [])
"""A known-good program."""
TRIAL = """
import os, socket

def trial(paths, pid, port):
    def reaches(attempt):
        try:
            attempt()
        except BaseException:
            return False
        return True
    return {
        "files": any(reaches(lambda: open(path, "rb")) for path in paths),
        "writing": any(reaches(lambda: open(f"{path}/rrl-trial", "w")) for path in ("/tmp", "/var/tmp", "/dev/shm")),
        "network": reaches(lambda: socket.create_connection(("127.0.0.1", port), 1)),
        "processes": reaches(lambda: os.kill(pid, 0)),
        "forks": reaches(lambda: os.fork() or os._exit(0)),
    }
"""
REACHES = {
    "files": "the files of this machine that its user may read",
    "writing": "folders that everybody may write in, such as /tmp",
    "network": "the network",
    "processes": "other processes",
    "forks": "processes of its own, each with the memory limit for itself",
}
"""What a program reaches where a trial succeeds."""
Facts = Mapping[str, bool]


def choose(limits: Limits, isolation: Isolation) -> tuple[Level, Mapping[str, str]]:
    """The best level under which a program runs, and the reasons why better ones fail.

    DataError when none works, or not the requested one.
    """
    reasons: dict[str, str] = {}
    for level in LEVELS if isolation == "auto" else (isolation,):
        try:
            _try(level, limits)
            return level, reasons
        except OSError as error:
            reasons[level] = str(error)
    beyond = limits.beyond()
    found = [
        f"sandbox isolation {level!r} does not work: {why}" + ("" if beyond else f"; {_remedy(level, why)}")
        for level, why in reasons.items()
    ]
    raise DataError(*found, *beyond)


def _try(level: Level, limits: Limits) -> None:
    with closing(Server(level, limits)) as server:
        run = run_of(*server.ask(CANARY), limits, prints=False)
    if run.value != 1:
        raise Lost(f"a program that only returns 1 ended with {run.status}: {run.error}: {run.message}")


def _remedy(level: str, why: str) -> str:
    scarce = [remedy for words, remedy in SCARCE.items() if words in why]
    small = ["raise sandbox.limits"] if "a program that only returns 1" in why else []
    return (scarce + small + [REMEDY[level]])[0]


def reached(limits: Limits, level: Level) -> Facts:
    """What a program reaches, as found by a trial program."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        paths = ["/etc/passwd", "/etc/hostname", os.path.abspath(__file__)]
        given = [paths, os.getpid(), listener.getsockname()[1]]
        with closing(Server(level, limits)) as server:
            run = run_of(*server.ask(packed(TRIAL, "trial", given)), limits, prints=False)
    if run.status != "ended":
        raise Lost(f"the trial ended with {run.status}: {run.error} {run.message}")
    facts: Facts = run.value
    return facts


def described(level: Level, reasons: Mapping[str, str], facts: Facts) -> str:
    """The isolation in words."""
    kept = [words for name, words in REACHES.items() if not facts[name]]
    open_to = [words for name, words in REACHES.items() if facts[name]]
    lines = [
        f"isolation {level}: limits on time, memory, threads, open files, file size and output",
        f"kept from programs: {'; '.join(kept) or 'nothing'}",
        f"not kept from programs: {'; '.join([*open_to, 'the kernel itself, the time and the noise of others'])}",
    ]
    return "\n".join([*lines, *(f"{better} does not work: {why}" for better, why in reasons.items())])
