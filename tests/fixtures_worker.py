"""A worker for the tests of pools: does what the item says, good or bad."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from rrl.serving import Tell, Work, serve


def work(item: Any, tell: Tell) -> Any:
    """``item`` is a deed and its argument."""
    deed, argument = item
    tell(f"doing {deed}")
    return DEEDS[deed](argument)


def spin(argument: Any) -> None:
    """Compute for ever, in Python."""
    while True:
        pass


def burn(seconds: float) -> None:
    """Compute for so much processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def hog(megabytes: int) -> int:
    """Take memory and give it back."""
    return len(bytes(megabytes * 2**20)) // 2**20


def fail(text: str) -> None:
    """Raise."""
    raise ArithmeticError(text)


def once(path: str) -> str:
    """Be killed at the first try; the path remembers it."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return "second try"
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def torn(_: Any) -> None:
    """Say half an answer, on the channel that ``serve`` has opened, and then nothing."""
    os.write(3, b'{"end": "do')
    time.sleep(60)


DEEDS: dict[str, Any] = {
    "echo": lambda argument: argument,
    "pid": lambda argument: os.getpid(),
    "environment": lambda argument: sorted(os.environ),
    "modules": lambda argument: argument in __import__("sys").modules,
    "print": lambda text: print(text, flush=True),
    "spin": spin,
    "burn": burn,
    "power": lambda exponent: 7**exponent % 10,  # compiled code that never lets go of the interpreter
    "sleep": time.sleep,
    "torn": torn,
    "hog": hog,
    "fail": fail,
    "exit": os._exit,
    "signal": lambda number: os.kill(os.getpid(), number),
    "once": once,
    "write": lambda path: Path(path).write_text("x"),
}


def load() -> Work:
    """Nothing to load, unless a test wants it to fail, to be slow, or not to survive its first starts.

    The last entry of PATH says so; a folder that is called ``killed-3`` or ``failing-3`` counts the starts.
    """
    wish = Path(os.environ["PATH"].split(":")[-1])
    if wish.name == "broken":
        raise ImportError("no such library")
    if wish.name == "slow":
        time.sleep(0.4)
    name, _, times = wish.name.rpartition("-")
    if name in ("killed", "failing"):
        tries = len(list(wish.iterdir()))
        (wish / str(tries)).mkdir()
        if tries < int(times):
            os.kill(os.getpid(), signal.SIGKILL) if name == "killed" else fail("not now")
    return work


if __name__ == "__main__":
    serve(load)
