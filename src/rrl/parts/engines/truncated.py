"""The reference engine on a truncated distribution: nucleus and top-k sampling."""

from dataclasses import dataclass, replace

from rrl.parts.engines.static import AutoHF
from rrl.ranges import between, check_ranges
from rrl.types import Sampling


@dataclass(kw_only=True)
class TruncatedHF(AutoHF):
    """Draws among the likeliest tokens only.

    These are the ``top_k`` likeliest (0: off), and of them the fewest whose probability is ``top_p`` together (1: off;
    Holtzman et al. 2020, arXiv 1904.09751). In training the policy is then compared with a distribution it did not draw
    from, so that PPO's ratio is wrong: use it to evaluate.
    """

    top_p: float
    top_k: int

    is_exact = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, between(1e-9, 1, "top_p"), between(0, 10**9, "top_k"))

    def cautions(self) -> list[str]:
        """Sampling that explores nothing, and sampling from another distribution than the policy's."""
        if self.top_k == 1:
            return ["top_k: 1 draws the likeliest token alone, so that nothing is explored"]
        names = [name for name, cuts in (("top_p", self.top_p < 1), ("top_k", self.top_k > 0)) if cuts]
        return [
            f"{name}: {getattr(self, name)} draws from a part of the distribution, and training compares with the "
            "whole; use engine=hf to train"
            for name in names
        ]

    @property
    def sampling(self) -> Sampling:
        return replace(super().sampling, top_p=self.top_p, top_k=self.top_k)
