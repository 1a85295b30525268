"""Where a response may be cut: after a token, a line or a sentence."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

CutPoints = Literal["token", "line", "sentence"]
_ENDS = {"line": re.compile(r"\n[ \t]*$"), "sentence": re.compile(r"[.!?][\"')\]]*\s*$|\n[ \t]*$")}


class Cutter:
    """Finds the tokens of one tokenizer that end a line or a sentence.

    A sentence also ends where a line does; a full stop inside a number counts only when its token ends with it and
    the next token does not begin with a digit.
    """

    def __init__(self, tokenizer: Any, cut_points: CutPoints) -> None:
        self._cut_points = cut_points
        self._text: Callable[[int], str] = cache(lambda token: tokenizer.decode([token]))

    def legal(self, tokens: Sequence[int]) -> list[int]:
        """The lengths k, 0 < k < len(tokens), at which ``tokens[:k]`` is a state to replay."""
        return [k for k in range(1, len(tokens)) if self._ends(tokens[k - 1], tokens[k])]

    def _ends(self, token: int, following: int) -> bool:
        if self._cut_points == "token":
            return True
        if not _ENDS[self._cut_points].search(self._text(token)):
            return False
        inside_number = self._text(token).endswith(".") and self._text(following)[:1].isdigit()
        return not inside_number


def spread_out(legal: Sequence[int], count: int) -> list[int]:
    """``count`` of these points at even distances, or all of them where there are no more."""
    places = {(2 * number + 1) * len(legal) // (2 * count) for number in range(count)} if legal else set()
    return [legal[place] for place in sorted(places)]
