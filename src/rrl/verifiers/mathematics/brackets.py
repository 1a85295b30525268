"""The brackets around tokens: where they are closed, and the parts that are in none."""

import re
from collections.abc import Sequence

Tokens = Sequence[str]

BRACKETS = ("(", "[", "{", r"\{", r"\langle")
_OPENING = (*BRACKETS, r"\lfloor", r"\lceil")
_CLOSING = (")", "]", "}", r"\}", r"\rangle", r"\rfloor", r"\rceil")


def depths(words: Tokens) -> list[int]:
    """How many brackets are open behind each token."""
    found, depth = list[int](), 0
    for word in words:
        depth += word in _OPENING or word.startswith(r"\begin")
        depth -= word in _CLOSING or word.startswith(r"\end")
        found.append(depth)
    return found


def closing(words: Tokens) -> int:
    """The place where the bracket that begins the words is closed; -1 if it is not."""
    return next((place for place, depth in enumerate(depths(words)) if depth == 0), -1)


def split(words: Tokens, signs: Sequence[str]) -> list[list[str]]:
    """The parts between these signs where they are in no bracket."""
    parts = [list[str]()]
    for word, depth in zip(words, depths(words), strict=True):
        if depth == 0 and word in signs:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


_LEADING = re.compile(r"[1-9]\d{0,2}(?:,\d{3})*")
_GROUP = re.compile(r"\d{3}(?:\.\d+)?")


def without_thousands(words: Tokens) -> list[str]:
    """Without the commas that are in no bracket and separate groups of three digits."""
    left = list[str]()
    for word, depth in zip(words, depths(words), strict=True):
        groups = left[-1:] == [","] and _LEADING.fullmatch("".join(left[-2:-1])) and _GROUP.fullmatch(word)
        if groups and depth == 0:
            left[-2:] = [f"{left[-2]},{word}"]
        else:
            left.append(word)
    return [word.replace(",", "") if word[0].isdigit() else word for word in left]
