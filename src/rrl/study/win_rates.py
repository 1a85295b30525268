"""Win, tie and lose: what verdicts in both orders come to, by level, with intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from rrl.training.intervals import wilson
from rrl.types import Comparison, Judgement, Preference

RULE = (
    "An answer wins when it is preferred in both orders and loses when the other one is; everything else is a tie, "
    "equal answers among it (these are not put before the judge). A question whose judgement failed in either order "
    "is an error: counted apart, in no share. Intervals are Wilson's, at 95 %."
)


class MatchResult(str, Enum):
    """How a question ended for our side."""

    WIN = "win"
    TIE = "tie"
    LOSE = "lose"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with an answer of each side."""

    id: str
    level: str
    question: str
    ours: str
    theirs: str

    @property
    def equal(self) -> bool:
        """Whether there is nothing to compare."""
        return self.ours.strip() == self.theirs.strip()

    def in_both_orders(self) -> list[Comparison]:
        """Ours first, then ours second; none where there is nothing to compare."""
        if self.equal:
            return []
        return [
            Comparison(self.question, self.ours, self.theirs),
            Comparison(self.question, self.theirs, self.ours),
        ]


@dataclass(frozen=True, slots=True)
class Match:
    """An answered question with its verdicts: ours first (``forward``), ours second (``backward``)."""

    answered: Answered
    forward: Judgement
    backward: Judgement

    @property
    def outcome(self) -> MatchResult:
        """By ``RULE``."""
        verdicts = (self.forward.preference, self.backward.preference)
        if Preference.ERROR in verdicts:
            return MatchResult.ERROR
        ends = {
            (Preference.FIRST, Preference.SECOND): MatchResult.WIN,
            (Preference.SECOND, Preference.FIRST): MatchResult.LOSE,
        }
        return ends.get(verdicts, MatchResult.TIE)

    @property
    def followed(self) -> Preference | None:
        """The position that won in both orders, whichever answer stood there; None when there is no such one."""
        both = self.forward.preference is self.backward.preference
        by_position = both and self.forward.preference in (Preference.FIRST, Preference.SECOND)
        return self.forward.preference if by_position else None

    def row(self) -> dict[str, Any]:
        """Plain data for a file of judgements."""
        about = {**asdict(self.answered), "outcome": self.outcome.value}
        return {**about, "ours_first": asdict(self.forward), "theirs_first": asdict(self.backward)}


def matches(answered: Sequence[Answered], judge: Callable[[list[Comparison]], list[Judgement]]) -> list[Match]:
    """Every question judged in both orders, those of one question side by side."""
    verdicts = iter(judge([comparison for each in answered for comparison in each.in_both_orders()]))
    equal = Judgement(Preference.TIE, "the answers are equal")
    return [
        Match(each, equal, equal) if each.equal else Match(each, next(verdicts), next(verdicts)) for each in answered
    ]


def tally(played: Sequence[Match]) -> dict[str, Any]:
    """Counts and shares of all matches, and the same by level."""
    levels = sorted({match.answered.level for match in played})
    by_level = {level: _tally([match for match in played if match.answered.level == level]) for level in levels}
    return {**_tally(played), "levels": by_level}


def _tally(played: Sequence[Match]) -> dict[str, Any]:
    ends = [match.outcome for match in played]
    count = {outcome: ends.count(outcome) for outcome in MatchResult}
    win, tie, lose = (count[outcome] for outcome in (MatchResult.WIN, MatchResult.TIE, MatchResult.LOSE))
    return {
        "n": win + tie + lose,
        "errors": count[MatchResult.ERROR],
        "equal": sum(match.answered.equal for match in played),
        "win": _share(win, win + tie + lose),
        "tie": _share(tie, win + tie + lose),
        "lose": _share(lose, win + tie + lose),
        "win_rate_ties_half": _share(win + tie / 2, win + tie + lose),
        "win_rate_decided": _share(win, win + lose),
        "position_bias": _position_bias(played),
    }


def _position_bias(played: Sequence[Match]) -> dict[str, Any]:
    """How often the verdict stayed with the position when the answers changed places."""
    judged = [match for match in played if match.outcome is not MatchResult.ERROR and not match.answered.equal]
    first, second = (sum(m.followed is place for m in judged) for place in (Preference.FIRST, Preference.SECOND))
    return {**_share(first + second, len(judged)), "first": first, "second": second}


def _share(count: float, n: int) -> dict[str, Any]:
    """A share with its interval, both None of nothing."""
    if n == 0:
        return {"count": count, "of": 0, "share": None, "interval95": None}
    return {"count": count, "of": n, "share": count / n, "interval95": wilson(count / n, n)}


COLUMNS = {
    "win": "win",
    "tie": "tie",
    "lose": "lose",
    "win_rate_ties_half": "ties half",
    "win_rate_decided": "of decided",
    "position_bias": "position bias",
}


def table(result: Mapping[str, Any]) -> str:
    """What ``tally`` found, a row a level, for people."""
    head = ["", "n", *COLUMNS.values(), "errors"]
    rows = [head, *(_row(level, part) for level, part in result["levels"].items()), _row("all", result)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _row(name: str, part: Mapping[str, Any]) -> list[str]:
    return [name, str(part["n"]), *(_cell(part[key]) for key in COLUMNS), str(part["errors"])]


def _cell(part: Mapping[str, Any]) -> str:
    if part["share"] is None:
        return "-"
    low, high = part["interval95"]
    return f"{part['share']:.3f} [{low:.3f}, {high:.3f}]"
