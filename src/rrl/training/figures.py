"""The figures of judged responses to held-out problems: accuracy, pass@k, majority, length, and what spoils them."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from rrl.training.intervals import accuracy
from rrl.training.pass_at_k import bootstrap, budgets, majority, pass_at_k
from rrl.types import Judged, Verdict

SPOILT = 0.25
"""The share of responses that are cut off or unparseable, and not right, above which a figure is in doubt."""
NO_VOTE = "the verifier states no answer that could be compared with others"
Answers = Sequence[Judged]
"""All responses to one problem, in the order in which they were written."""


def report(answers: Sequence[Answers], seed: int) -> dict[str, Any]:
    """The figures of all problems together, by level and by stratum, and the totals of the verdicts.

    Responses that the verifier failed on are in no accuracy; a level or stratum of which nothing was judged is left
    out. ``seed`` fixes the resamples.
    """
    flat = [judged for row in answers for judged in row]
    known = _known(flat)
    heard = [row for row in answers if _known(row)]
    examples = [row[0].rollout.state.problem.example for row in heard]
    kinds = sorted({kind for example in examples for kind in example.strata})

    def by(names: Sequence[str | None], order: Callable[[str], Any]) -> dict[str, Any]:
        found = sorted({name for name in names if name is not None}, key=order)
        return {
            name: _figures([row for row, own in zip(heard, names, strict=True) if own == name], seed) for name in found
        }

    return {
        **_figures(answers, seed),
        "score": fmean(judged.feedback.score for judged in known) if known else 0.0,
        "error_frac": 1 - len(known) / len(flat),
        "levels": by([example.level for example in examples], lambda level: (len(level), level)),
        "strata": {kind: by([example.strata.get(kind) for example in examples], str) for kind in kinds},
        "verdicts": {verdict.value: sum(j.feedback.verdict is verdict for j in flat) for verdict in Verdict},
    }


def doubts(mode: str, answers: Sequence[Answers]) -> list[str]:
    """A warning where more than ``SPOILT`` of the judged responses are not right and cut off or unparseable."""
    known = _known([judged for row in answers for judged in row])
    cut = [not judged.rollout.finished and not judged.feedback.solved for judged in known]
    unread = [judged.feedback.verdict is Verdict.UNPARSEABLE for judged in known]
    spoilt = sum(map(max, cut, unread))
    if spoilt <= SPOILT * len(known):
        return []
    share = len(known) / 100
    return [
        f"{mode}: {spoilt / share:.0f} % of the responses are not right and were cut off by the length limit "
        f"({sum(cut) / share:.0f} %) or state no readable answer ({sum(unread) / share:.0f} %), so that the accuracy "
        "may say more of length and format than of ability; raise data.max_response_length, or check template, "
        "engine.stop and the format of answers"
    ]


def _figures(answers: Sequence[Answers], seed: int) -> dict[str, Any]:
    """The figures of some problems, of which none, some or all have several responses."""
    judged = [known for row in answers if (known := _known(row))]
    flat = [each for row in answers for each in row]
    several = max(map(len, answers)) > 1
    return {
        **accuracy([[float(each.feedback.solved) for each in row] for row in judged]),
        **({"pass@k": _passes(judged, seed), "maj@n": _vote(judged, seed)} if several else {}),
        "length": fmean(len(each.rollout.actions) for each in flat),
        "truncated": fmean(not each.rollout.finished for each in flat),
        "unparseable": fmean(each.feedback.verdict is Verdict.UNPARSEABLE for each in flat),
    }


def _known(row: Answers) -> list[Judged]:
    """Those that the verifier could judge."""
    return [judged for judged in row if judged.feedback.verdict is not Verdict.ERROR]


def _passes(judged: Sequence[Answers], seed: int) -> dict[str, Any]:
    """pass@k for each k, over the problems with at least k judged responses."""
    counts = [(len(row), sum(each.feedback.solved for each in row)) for row in judged]
    return {
        str(k): _mean([pass_at_k(n, right, k) for n, right in counts if n >= k], seed)
        for k in budgets(max((n for n, _ in counts), default=0))
    }


def _vote(judged: Sequence[Answers], seed: int) -> dict[str, Any]:
    """The share of problems whose most frequent answer is right; None where answers cannot be compared."""
    if not judged or not all("parsed" in each.feedback.evidence for row in judged for each in row):
        return {"value": None, "reason": NO_VOTE}
    return _mean([_elected(row) for row in judged], seed)


def _elected(row: Answers) -> float:
    """1 where the majority's answer is right, else 0."""
    stated = [_form(judged) for judged in row]
    answer = majority(stated)
    return 0.0 if answer is None else float(row[stated.index(answer)].feedback.solved)


def _form(judged: Judged) -> str | None:
    """The answer as it is compared: as its verifier writes equal ones alike, else as it was read."""
    evidence = judged.feedback.evidence
    answer = evidence.get("form", evidence["parsed"])
    return None if answer is None else " ".join(str(answer).split())


def _mean(values: Sequence[float], seed: int) -> dict[str, Any]:
    """The mean over problems with its interval by bootstrap."""
    mean = fmean(values) if values else 0.0
    return {"value": mean, "interval95": bootstrap(values, seed), "n_problems": len(values)}
