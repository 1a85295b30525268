"""Several continuations of one remembered state: how many starts they take of a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from rrl.ranges import at_least_one, check_ranges
from rrl.types import State


@dataclass(frozen=True, kw_only=True)
class Siblings:
    """Rollouts from each start: ``n`` from a fresh one, ``n_replayed`` from a replayed one.

    A step has as many rollouts as if all of its starts were fresh; where the last start's do not fit, it has fewer.
    """

    n: int
    n_replayed: int

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("n", "n_replayed"))

    def of(self, state: State) -> int:
        """Rollouts from this start."""
        return self.n_replayed if state.replayed else self.n

    def replayed_for(self, fresh: int) -> int:
        """The replayed starts that take the rollouts of so many fresh ones; the last may have fewer."""
        return ceil(fresh * self.n / self.n_replayed)

    def fresh_for(self, replayed: int) -> int:
        """The fresh starts whose rollouts so many replayed ones take in full."""
        return replayed * self.n_replayed // self.n

    def written(self, states: Sequence[State], count: int) -> list[State]:
        """The starts of a step of ``count``, each as often as it is written from."""
        return [state for state in states for _ in range(self.of(state))][: count * self.n]

    def fill(self, states: Sequence[State], count: int) -> bool:
        """Whether these starts, and not fewer, have the rollouts of ``count`` fresh ones."""
        whole = sum(map(self.of, states))
        return bool(states) and whole - self.of(states[-1]) < count * self.n <= whole

    def got(self, states: Sequence[State]) -> str:
        """These starts, for a report."""
        return f"{len(states)} starts for {sum(map(self.of, states))} rollouts"

    def expected(self, count: int) -> str:
        """The starts that would do, for a report."""
        return (
            f"starts for {count * self.n} rollouts, {self.n_replayed} from each replayed one (siblings.n_replayed), of "
            "which the last may get fewer; a sampler that replays has to take siblings (docs/adding-a-part.md)"
        )
