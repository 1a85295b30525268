"""Counts the pieces of work that this process has done: a constant count means that work is stuck, not slow."""

_done = 0


def beat(count: int = 1) -> None:
    """Count more work: forward passes of a model, programs run, answers judged."""
    global _done
    _done += count


def beats() -> int:
    """The work done since the process began."""
    return _done
