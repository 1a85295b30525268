"""Judges dumped rollouts again, and tells what the present verifier sees otherwise than the one of then."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from rrl.contracts import border
from rrl.errors import DataError
from rrl.interfaces import Task
from rrl.types import Example, Feedback, Problem, Rollout, State, Verdict

TAIL = 80
"""Characters at the end of a response that are shown."""

MOST_TOKENS = 1_000_000
"""Of one response; a dump that says more is damaged."""


@dataclass(frozen=True, kw_only=True)
class Dumped:
    """A rollout from a dump, with where it stands and the verdict of then."""

    place: str
    rollout: Rollout
    verdict: Verdict
    score: float


@dataclass(frozen=True, kw_only=True)
class Rescored:
    """What came of judging again: one ``feedback`` for each of ``rows``; ``unreadable`` lines tell place and reason."""

    rows: Sequence[Dumped]
    feedback: Sequence[Feedback]
    unreadable: Sequence[str]

    @property
    def changed(self) -> list[tuple[Dumped, Feedback]]:
        """Rows whose verdict or score is another one."""
        return [
            (row, new)
            for row, new in zip(self.rows, self.feedback, strict=True)
            if row.verdict is not new.verdict or not math.isclose(row.score, new.score, abs_tol=1e-6)
        ]

    def transitions(self) -> dict[str, dict[str, int]]:
        """Counts by the verdict of then and the present one."""
        pairs = Counter((row.verdict, new.verdict) for row, new in zip(self.rows, self.feedback, strict=True))
        return {old.value: {new.value: pairs[old, new] for new in Verdict} for old in Verdict}

    def as_mapping(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rollouts": len(self.rows),
            "score": {"old": fmean(row.score for row in self.rows), "new": fmean(new.score for new in self.feedback)},
            "transitions": self.transitions(),
            "changed": [_change(row, new) for row, new in self.changed],
            "unreadable": list(self.unreadable),
        }


def rescore(task: Task, files: Sequence[Path]) -> Rescored:
    """Every readable row of the dumps judged by ``task``. Raises DataError when there is none."""
    rows: list[Dumped] = []
    unreadable: list[str] = []
    for file in files:
        for number, line in enumerate(_text(file).split("\n"), start=1):
            if line.strip():
                try:
                    rows.append(_dumped(json.loads(line), f"{file}, line {number}"))
                except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                    unreadable.append(f"{file}, line {number}: {_why(error)}")
    if not rows:
        told = unreadable[:10] or [f"{file}: empty" for file in files[:10]]
        raise DataError(*told, "remedy: give a dump of rollouts as a run writes it, rollouts/step-*.jsonl")
    rollouts = [row.rollout for row in rows]
    try:
        border.begin(task)(rollouts)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the dumps are not of the task {type(task).__name__}: their answers cannot be read as its own ({error}); "
            "give from_run=RUN, or the task that they are of"
        ) from error
    return Rescored(rows=rows, feedback=border.feedback(task, rollouts), unreadable=unreadable)


def as_table(result: Rescored, shown: int) -> str:
    """What a person reads: transitions, ``shown`` rows whose score changed most, lines that could not be read."""
    told = result.as_mapping()
    changed = sorted(told["changed"], key=lambda row: -abs(row["new_score"] - row["old_score"]))
    names = [verdict.value for verdict in Verdict]
    rows = [("was \\ is", *names), *((old, *map(str, told["transitions"][old].values())) for old in names)]
    lines = ["  ".join([row[0].ljust(11), *(cell.rjust(11) for cell in row[1:])]) for row in rows]
    score = told["score"]
    lines += [
        "",
        f"{told['rollouts']} rollouts; mean score {score['old']:.4f} -> {score['new']:.4f}; {len(changed)} changed",
    ]
    lines += [_line(row) for row in changed[:shown]]
    lines += [f"... and {len(changed) - shown} more"] if len(changed) > shown else []
    lines += [f"unreadable: {fault}" for fault in result.unreadable]
    return "\n".join(lines)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); expected a dump of rollouts") from error


def _dumped(row: Any, place: str) -> Dumped:
    """A row of any version: fields of an example that we do not know are left out, new ones have their defaults."""
    if not isinstance(row, Mapping):
        raise ValueError(f"expected an object, got {type(row).__name__}")
    if not isinstance(row["problem"], Mapping):
        raise ValueError(f"problem: expected an object, got {type(row['problem']).__name__}")
    known = {field.name for field in fields(Example)}
    example = Example(**{name: _plain(value) for name, value in row["problem"].items() if name in known})
    for name in ("id", "level", "question", "reference", "answer"):
        _string(getattr(example, name))
    actions = (0,) * _count(row.get("tokens", 1))  # no verifier reads the tokens, but their number counts
    nothing = (0.0,) * len(actions)
    prefix = tuple(row.get("prefix_tokens", ()))
    state = State(Problem(example, (), ()), prefix, row.get("origin"))
    finished, version = bool(row["finished"]), int(row.get("version", 0))
    rollout = Rollout(state, actions, nothing, nothing, finished, _string(row["response"]), version)
    score = float(row["score"])
    if not math.isfinite(score):
        raise ValueError(f"score: expected a finite number, got {score}")
    return Dumped(place=place, rollout=rollout, verdict=Verdict(row["verdict"]), score=score)


def _count(value: Any) -> int:
    """The number of tokens of a response."""
    if not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        raise ValueError(f"tokens: expected a whole number from 0 to {MOST_TOKENS}, got {value!r}")
    return value


def _plain(value: Any) -> Any:
    """What JSON made of a tuple, as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"'response': expected a string, got {type(value).__name__}")
    return value


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON ({error.msg} at column {error.colno})"
    return f"no {error} in it" if isinstance(error, KeyError) else str(error)


def _change(row: Dumped, new: Feedback) -> dict[str, Any]:
    return {
        "place": row.place,
        "id": row.rollout.state.problem.id,
        "old": row.verdict.value,
        "new": new.verdict.value,
        "old_score": row.score,
        "new_score": new.score,
        "expected": row.rollout.state.problem.example.answer,
        "response_tail": row.rollout.response[-TAIL:],
        "evidence": dict(new.evidence),
    }


def _line(change: Mapping[str, Any]) -> str:
    scores = f"{change['old']} {change['old_score']:g} -> {change['new']} {change['new_score']:g}"
    return f"{change['id']}: {scores}: ...{' '.join(change['response_tail'].split())!r}"
