"""Go back to where going on succeeds about half of the time, found out by going on from a few points and judging."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from rrl.cuts import spread_out
from rrl.interfaces import Author, Found, Selection
from rrl.parts.selections.examining import chosen, costs, share
from rrl.ranges import at_least_one, check_ranges
from rrl.types import Metrics, State, TokenScores, Verdict


@dataclass(kw_only=True)
class Verified(Selection):
    """Cuts where the estimated success is nearest one half, among candidates from which some continuation succeeds.

    Candidates are ``candidates`` of the legal points, evenly spread, of at most ``failures`` failed responses a step.
    Each is continued ``continuations`` times by the policy, and the task judges; the share of successes is the
    estimate, the Monte-Carlo value of VinePPO (arXiv 2410.01679). Those that the task cannot judge are left out.
    Of two candidates equally near the later one is taken. What is written counts as generated, and is not learnt from.
    """

    candidates: int
    continuations: int
    failures: int
    _author: Author | None = field(init=False, default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("candidates", "continuations", "failures"))

    def start(self, author: Author) -> None:
        self._author = author

    def expense(self, longest: int) -> int:
        return self.failures * self.candidates * self.continuations * longest

    def examine(
        self, responses: Sequence[State], legal: Sequence[Sequence[int]], rng: Random
    ) -> tuple[list[Found], Metrics]:
        """The estimated success of each candidate."""
        assert self._author is not None, "the rule has started"
        tried = chosen(legal, self.failures, rng)
        places = [(number, cut) for number in tried for cut in spread_out(legal[number], self.candidates)]
        repeated = [place for place in places for _ in range(self.continuations)]
        states = [State(responses[number].problem, responses[number].prefix[:cut]) for number, cut in repeated]
        judged = self._author.judged(states, rng.getrandbits(62))
        found: list[Found] = [{} for _ in responses]
        solved = defaultdict[tuple[int, int], list[bool]](list)
        for place, each in zip(repeated, judged, strict=True):
            if each.feedback.verdict is not Verdict.ERROR:
                solved[place].append(each.feedback.solved)
        for (number, cut), results in solved.items():
            found[number][cut] = sum(results) / len(results)
        able = sum(any(found[number].values()) for number in tried)
        return found, {
            **costs(len(tried), [each.rollout for each in judged]),
            "replay/recoverable_frac": share(able, len(tried)),
            "replay/candidate_success/mean": share(sum(map(sum, solved.values())), sum(map(len, solved.values()))),
        }

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """One cut, or none where no continuation of a candidate succeeds or the response was not examined."""
        able = [cut for cut in legal if response.found.get(cut, 0) > 0]
        return [max(able, key=lambda cut: (self.score(response, cut), cut))] if able else []

    def score(self, response: TokenScores, cut: int) -> float:
        """Less the distance of the estimate from one half."""
        return -abs(response.found[cut] - 0.5)
