"""Win, tie and loss rates from verdicts in both orders, by level, with intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from rrl.records.texts import aligned, with_interval
from rrl.training.intervals import wilson
from rrl.types import Comparison, Judgement, Preference

RULE = (
    "An answer wins when it is preferred in both orders and loses when the other one is; everything else is a tie, "
    "including equal answers (which the judge does not see). A question with a failed judgement in either order is an "
    "error: counted separately, in no share. Intervals are Wilson's, at 95 %."
)


class MatchResult(str, Enum):
    """The result of a question for our side."""

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
        """Whether both answers are the same."""
        return self.ours.strip() == self.theirs.strip()

    def in_both_orders(self) -> list[Comparison]:
        """Ours first, then ours second; none for equal answers."""
        orders = () if self.equal else ((self.ours, self.theirs), (self.theirs, self.ours))
        return [Comparison(self.question, first, second) for first, second in orders]


@dataclass(frozen=True, slots=True)
class JudgedQuestion:
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
        if verdicts == (Preference.FIRST, Preference.SECOND):
            return MatchResult.WIN
        return MatchResult.LOSE if verdicts == (Preference.SECOND, Preference.FIRST) else MatchResult.TIE

    @property
    def followed(self) -> Preference | None:
        """The position that won in both orders, whichever answer was there; None without one."""
        both = self.forward.preference is self.backward.preference
        by_position = both and self.forward.preference in (Preference.FIRST, Preference.SECOND)
        return self.forward.preference if by_position else None

    def row(self) -> dict[str, Any]:
        """A row of judgements.jsonl."""
        about = {**asdict(self.answered), "outcome": self.outcome.value}
        return {**about, "ours_first": asdict(self.forward), "theirs_first": asdict(self.backward)}


def matches(answered: Sequence[Answered], judge: Callable[[list[Comparison]], list[Judgement]]) -> list[JudgedQuestion]:
    """Every question judged in both orders."""
    verdicts = iter(judge([comparison for each in answered for comparison in each.in_both_orders()]))
    equal = Judgement(Preference.TIE, "the answers are equal")
    return [
        JudgedQuestion(each, equal, equal) if each.equal else JudgedQuestion(each, next(verdicts), next(verdicts))
        for each in answered
    ]


def tally(played: Sequence[JudgedQuestion]) -> dict[str, Any]:
    """Counts and shares of all matches, and the same by level."""
    levels = sorted({match.answered.level for match in played})
    by_level = {level: _tally([match for match in played if match.answered.level == level]) for level in levels}
    return {**_tally(played), "levels": by_level}


def _tally(played: Sequence[JudgedQuestion]) -> dict[str, Any]:
    ends = [match.outcome for match in played]
    count = {outcome: ends.count(outcome) for outcome in MatchResult}
    win, tie, lose = (count[outcome] for outcome in (MatchResult.WIN, MatchResult.TIE, MatchResult.LOSE))
    return {
        "n": win + tie + lose,
        "errors": count[MatchResult.ERROR],
        "equal": sum(match.answered.equal for match in played),
        "win": _with_interval(win, win + tie + lose),
        "tie": _with_interval(tie, win + tie + lose),
        "lose": _with_interval(lose, win + tie + lose),
        "win_rate_ties_half": _with_interval(win + tie / 2, win + tie + lose),
        "win_rate_decided": _with_interval(win, win + lose),
        "position_bias": _position_bias(played),
    }


def _position_bias(played: Sequence[JudgedQuestion]) -> dict[str, Any]:
    """How often the same position won in both orders."""
    judged = [match for match in played if match.outcome is not MatchResult.ERROR and not match.answered.equal]
    first, second = (sum(m.followed is place for m in judged) for place in (Preference.FIRST, Preference.SECOND))
    return {**_with_interval(first + second, len(judged)), "first": first, "second": second}


def _with_interval(count: float, n: int) -> dict[str, Any]:
    """A share with its interval, both None for n = 0."""
    share, interval = (count / n, wilson(count / n, n)) if n else (None, None)
    return {"count": count, "of": n, "share": share, "interval95": interval}


COLUMNS = {
    "win": "win", "tie": "tie", "lose": "lose", "win_rate_ties_half": "ties half", "win_rate_decided": "of decided",
    "position_bias": "position bias",
}  # fmt: skip


def table(result: Mapping[str, Any]) -> str:
    """The result of ``tally`` as text, a row for each level."""
    head = ["", "n", *COLUMNS.values(), "errors"]
    rows = [_table_row(level, part) for level, part in result["levels"].items()]
    return aligned([head, *rows, _table_row("all", result)], left=len(head))


def _table_row(name: str, part: Mapping[str, Any]) -> list[str]:
    shares = (part[key] for key in COLUMNS)
    texts = ("-" if x["share"] is None else with_interval(x["share"], x["interval95"]) for x in shares)
    return [name, str(part["n"]), *texts, str(part["errors"])]
