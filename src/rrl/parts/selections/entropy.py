"""Go back to where the policy was least certain of the next token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from rrl.interfaces import Selection
from rrl.ranges import between, check_ranges, refuse
from rrl.types import TokenScores


@dataclass(frozen=True, kw_only=True)
class HighestEntropy(Selection):
    """Cuts where the entropy (nats) of the next token is highest, within a window of the response.

    ``window`` are two shares of its length. With ``top_value`` only the legal points of the window with the highest
    values count: that share of them, at least one (None: all, without a critic). PROS (OpenReview lz1SRTcnUb, ICLR
    2026) cuts solved responses so, in the window [1/4, 3/4], with a critic among the top tenth.
    """

    window: tuple[float, float]
    top_value: float | None
    min_explained_variance: float | None = field()  # without the default of Selection

    needs_entropies = True

    def __post_init__(self) -> None:
        begin, end = self.window
        expected = "window: expected two rising shares from 0 to 1, as [0.25, 0.75]"
        check_ranges(self, between(0, 1, "top_value"))
        gated = self.min_explained_variance is not None and not self.needs_critic
        refuse(
            {
                f"{expected}, got {[begin, end]}": not 0 <= begin < end <= 1,
                "min_explained_variance: expected null, since no critic is read; or give top_value": gated,
            }
        )

    @property
    def needs_critic(self) -> bool:
        return self.top_value is not None

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none when there is no legal point in the window."""
        begin, end = (share * len(response.logprobs) for share in self.window)
        inside = [cut for cut in legal if begin <= cut <= end]
        if self.top_value is not None:
            most = max(1, int(self.top_value * len(inside)))
            inside = sorted(inside, key=lambda cut: response.values[cut], reverse=True)[:most]
        return [max(inside, key=lambda cut: (self.score(response, cut), -cut))] if inside else []

    def score(self, response: TokenScores, cut: int) -> float:
        """The entropy there."""
        return response.entropies[cut]
