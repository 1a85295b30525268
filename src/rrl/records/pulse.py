"""Counts the pieces of work that this process has done: a count that stands says that work is stuck, not slow."""

_done = 0


def beat(count: int = 1) -> None:
    """So many more are done: forward passes of a model, programs run, answers judged."""
    global _done
    _done += count


def beats() -> int:
    """How many are done since the process began."""
    return _done
