"""A stand-in for ``rrl.equality`` in tests: does to its worker what the texts say, and compares by heart."""

import os
import signal
import time
from typing import Any

from rrl.serving import Tell, Work, serve

EQUAL = {("0.5", r"\frac{1}{2}")}


def work(item: Any, tell: Tell) -> str:
    """Both texts are done, each in its phase; answers begun with ``count`` leave a file that must not be there yet."""
    answer, expected = item
    for phase, text in (("expected", expected), ("answer", answer)):
        tell(phase)
        deed, _, argument = text.partition(" ")
        if deed in DEEDS:
            DEEDS[deed](argument)
    always = os.environ["PATH"].endswith("/always-equal")
    return "equal" if always or answer == expected or (answer, expected) in EQUAL else "different"


def spin(_: str) -> None:
    """Compute for ever."""
    while True:
        pass


def fail(_: str) -> None:
    """Raise."""
    raise TypeError("no such thing")


DEEDS: dict[str, Any] = {
    "spin": spin,
    "hog": lambda _: bytes(2**30),
    "raise": fail,
    "segv": lambda _: os.kill(os.getpid(), signal.SIGSEGV),
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "sleep": lambda _: time.sleep(60),
    "count": os.mkdir,
}


def load() -> Work:
    """Nothing to load, unless a test wants it to fail."""
    if os.environ["PATH"].endswith("/broken"):
        raise ImportError("no such library")
    return work


if __name__ == "__main__":
    serve(load)
