"""State reset: the first part of the reference is given, and the policy writes on from there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rrl.contracts.guiding import Guidance
from rrl.cuts import CutPoints, Cutter
from rrl.interfaces import Render
from rrl.types import Problem, State


@dataclass(kw_only=True)
class StateReset(Guidance):
    """Forces a prefix of the reference, which stays in the answer (Ding et al., arXiv 2411.00750).

    With ``cut_points`` line (or sentence) the prefix has 1, 2, ... lines, never the last one, try by try; with token
    it has these ``shares`` of the reference's tokens, rounded down, but at least one. Lines are given once more at
    full length, as in the published code, before they begin again at 1; shares come in the order in which they are
    written. A reference without an inner line end is cut by shares.
    """

    cut_points: CutPoints
    shares: tuple[float, ...]

    needs = frozenset({"references"})

    def __post_init__(self) -> None:
        if not self.shares or not all(0 < share < 1 for share in self.shares):
            raise ValueError(f"shares: expected numbers between 0 and 1, got {list(self.shares)}")

    def start(self, tokenizer: Any, render: Render, longest_prompt: int, longest_response: int) -> None:
        """Begin with this tokenizer; a prefix leaves at least one token to write."""
        self._cutter, self._longest = Cutter(tokenizer, self.cut_points), longest_response

    def state(self, problem: Problem, attempt: int) -> State | None:
        """The problem with a prefix of its reference."""
        stages = self._stages(problem.reference)
        if not stages:
            return None
        name, length = stages[attempt % len(stages)]
        return State(problem, problem.reference[:length], help=name)

    def _stages(self, reference: Sequence[int]) -> list[tuple[str, int]]:
        """The name and length of each prefix, in the order of tries; none is the whole reference but its end token."""
        whole = len(reference) - 1
        cuts = [] if self.cut_points == "token" else [cut for cut in self._cutter.legal(reference) if cut < whole]
        stages = [(f"{self.cut_points}{number}", cut) for number, cut in enumerate(cuts, start=1)]
        # 0.29 * 100 is 28.999999999999996
        shares = [(f"share{share:g}", max(1, int(share * whole + 1e-9))) for share in self.shares]
        stages = [*stages, *stages[-1:]] or shares
        return [(name, length) for name, length in stages if length < min(whole, self._longest)]
