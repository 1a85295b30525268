"""Which valid name is most like a misspelt one."""

import difflib
from collections.abc import Sequence


def nearest(name: str, valid: Sequence[str]) -> str:
    """``"; did you mean 'x'?"`` with the valid name closest to ``name``, or a list of all when none is close."""
    near = closest(name, valid)
    if near:
        return f"; did you mean {near!r}?"
    return f"; valid: {', '.join(sorted(valid))}" if len(valid) <= 20 else ""


def closest(name: str, valid: Sequence[str]) -> str | None:
    """The valid name most like ``name``, if any is like it."""
    best = max(valid, key=lambda candidate: likeness(name, candidate), default="")
    return best if best and likeness(name, best) >= 0.6 else None


def likeness(name: str, candidate: str) -> float:
    """How alike two names are, 0 to 1; a single word of the candidate may do, at a small discount."""
    words = [ratio(name, word) for word in candidate.split("_")]
    return max(ratio(name, candidate), 0.95 * max(words))


def ratio(name: str, candidate: str) -> float:
    return difflib.SequenceMatcher(None, name, candidate).ratio()
