"""Verifies dumped rollouts again, and compares the feedback of the present verifier with the recorded one."""

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
"""Characters shown from the end of a response."""
MOST_TOKENS = 1_000_000
"""Of one response; a dump with more is damaged."""


@dataclass(frozen=True, kw_only=True)
class Dumped:
    """A rollout from a dump, its place there, and its recorded verdict and score."""

    place: str
    rollout: Rollout
    verdict: Verdict
    score: float


@dataclass(frozen=True, kw_only=True)
class Rescored:
    """The result: one ``feedback`` for each of ``rows``, and place and reason of each ``unreadable`` line."""

    rows: Sequence[Dumped]
    feedback: Sequence[Feedback]
    unreadable: Sequence[str]

    @property
    def changed(self) -> list[tuple[Dumped, Feedback]]:
        """Rows with a changed verdict or score."""
        return [
            (row, new)
            for row, new in zip(self.rows, self.feedback, strict=True)
            if row.verdict is not new.verdict or not math.isclose(row.score, new.score, abs_tol=1e-6)
        ]

    def transitions(self) -> dict[str, dict[str, int]]:
        """Counts by recorded and present verdict."""
        pairs = Counter((row.verdict, new.verdict) for row, new in zip(self.rows, self.feedback, strict=True))
        return {old.value: {new.value: pairs[old, new] for new in Verdict} for old in Verdict}

    def as_mapping(self) -> dict[str, Any]:
        return {
            "rollouts": len(self.rows),
            "score": {"old": fmean(row.score for row in self.rows), "new": fmean(new.score for new in self.feedback)},
            "transitions": self.transitions(),
            "changed": [_change(row, new) for row, new in self.changed],
            "unreadable": list(self.unreadable),
        }


def rescore(task: Task, files: Sequence[Path]) -> Rescored:
    """Every readable row of the dumps, verified by ``task``. Raises DataError when there is none."""
    rows: list[Dumped] = []
    unreadable: list[str] = []
    for file in files:
        for number, line in enumerate(_read_dump(file).split("\n"), start=1):
            if line.strip():
                try:
                    rows.append(_dumped(json.loads(line), f"{file}, line {number}"))
                except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                    unreadable.append(f"{file}, line {number}: {_reason(error)}")
    if not rows:
        faults = unreadable[:10] or [f"{file}: empty" for file in files[:10]]
        raise DataError(*faults, "remedy: give a dump of rollouts as a run writes it, rollouts/step-*.jsonl")
    rollouts = [row.rollout for row in rows]
    try:
        border.begin(task)(rollouts)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the dumps are not of the task {type(task).__name__}: it cannot read their answers ({error}); give "
            "from_run=RUN, or the task of the dumps"
        ) from error
    return Rescored(rows=rows, feedback=border.feedback(task, rollouts), unreadable=unreadable)


def as_table(result: Rescored, shown: int) -> str:
    """The result as text: transitions, the ``shown`` largest changes of a score, unreadable lines."""
    data = result.as_mapping()
    changed = sorted(data["changed"], key=lambda row: -abs(row["new_score"] - row["old_score"]))
    names = [verdict.value for verdict in Verdict]
    rows = [("was \\ is", *names), *((old, *map(str, data["transitions"][old].values())) for old in names)]
    lines = ["  ".join([row[0].ljust(11), *(cell.rjust(11) for cell in row[1:])]) for row in rows]
    means = f"{data['score']['old']:.4f} -> {data['score']['new']:.4f}"
    lines += ["", f"{data['rollouts']} rollouts; mean score {means}; {len(changed)} changed"]
    lines += [_change_text(row) for row in changed[:shown]]
    lines += [f"... and {len(changed) - shown} more"] if len(changed) > shown else []
    lines += [f"unreadable: {fault}" for fault in result.unreadable]
    return "\n".join(lines)


def _read_dump(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); expected a dump of rollouts") from error


def _dumped(row: Any, place: str) -> Dumped:
    """A row of any version: unknown fields of an example are dropped, missing ones get their defaults."""
    if not isinstance(row, Mapping):
        raise ValueError(f"expected an object, got {type(row).__name__}")
    if not isinstance(row["problem"], Mapping):
        raise ValueError(f"problem: expected an object, got {type(row['problem']).__name__}")
    known = {field.name for field in fields(Example)}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row["problem"].items()}
    example = Example(**{name: value for name, value in values.items() if name in known})
    texts = [getattr(example, name) for name in ("id", "level", "question", "reference", "answer")]
    for text in (*texts, row["response"]):
        if not isinstance(text, str):
            raise ValueError(f"'response': expected a string, got {type(text).__name__}")
    actions = (0,) * _token_number(row.get("tokens", 1))  # no verifier reads the tokens, but their number matters
    nothing = (0.0,) * len(actions)
    prefix = tuple(row.get("prefix_tokens", ()))
    state = State(Problem(example, (), ()), prefix, row.get("replayed_from", row.get("origin")))
    finished, version = bool(row["finished"]), int(row.get("version", 0))
    rollout = Rollout(state, actions, nothing, nothing, finished, row["response"], version)
    score = float(row["score"])
    if not math.isfinite(score):
        raise ValueError(f"score: expected a finite number, got {score}")
    return Dumped(place=place, rollout=rollout, verdict=Verdict(row["verdict"]), score=score)


def _token_number(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        raise ValueError(f"tokens: expected a whole number from 0 to {MOST_TOKENS}, got {value!r}")
    return value


def _reason(error: Exception) -> str:
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


def _change_text(change: Mapping[str, Any]) -> str:
    scores = f"{change['old']} {change['old_score']:g} -> {change['new']} {change['new_score']:g}"
    return f"{change['id']}: {scores}: ...{' '.join(change['response_tail'].split())!r}"
