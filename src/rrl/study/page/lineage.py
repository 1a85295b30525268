"""Where replayed states came from and what became of them: from states.jsonl, or inferred from dumped rollouts."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
State = dict[str, Any]
Step = tuple[int, Row]
"""A rollout of training, with its step."""
COMMON: dict[str, Any] = {"step": int, "key": str}
EVENTS: dict[str, Any] = {
    "stored": {
        "problem": str, "rollout": int | None, "parent": str | None, "source": str | None, "cut": int | None,
        "score": int | float | None,
    },
    "visited": {"row": int, "verdict": str},
    "forgotten": {"reason": str | None},
}  # fmt: skip
"""What each kind of event has beside ``COMMON``, and of which kind it is."""


def lineage(folder: Path, rows: Sequence[Step], problems: Mapping[str, int]) -> dict[str, Any]:
    """A run's states of these problems, and the first right rollout of each problem that began at one.

    A state has ``key``, ``p`` (its problem's number), ``parent`` (the state that its origin began at), ``source``,
    ``origin`` ([step, row] of the rollout it was cut from), ``cut`` (tokens), ``score``, ``stored`` (step), ``visits``
    ([step, row, verdict] each) and ``forgotten`` ([step, reason]). ``recorded`` says whether states.jsonl has it; else
    it is inferred: its visits are the dumped rollouts that name it, its origin is the last dumped rollout before the
    first of them whose response begins with its prefix. ``torn`` counts lines of states.jsonl that are no event of this
    version. ``rows`` are the run's kept rollouts in order.
    """
    counts: Counter[str] = Counter()
    states = _recorded(_events(folder / "states.jsonl", counts), problems)
    if not counts["events"]:
        states = _inferred(rows)
    for _, row in rows:
        state = states.get(str(row.get("replayed_from")))
        if state is not None:
            state["prefix"] = row.get("prefix", "")
    known = list(states.values())
    return {
        "recorded": bool(counts["events"]),
        "torn": counts["torn"],
        "states": known,
        "first_solves": _first_solves(rows, known),
    }


def _events(path: Path, counts: Counter[str]) -> Iterator[Row]:
    """The events of a file; counts them, and the torn lines that are none."""
    if path.is_file():
        with path.open("rb") as file:
            for line in file:
                event = _event(line)
                counts["torn" if event is None else "events"] += 1
                if event is not None:
                    yield event


def _event(line: bytes) -> Row | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    known = EVENTS.get(str(event.get("event"))) if isinstance(event, dict) else None
    if known is None:
        return None
    sound = all(isinstance(event.get(key), kind) for key, kind in {**COMMON, **known}.items())
    return event if sound else None


def _recorded(events: Iterable[Row], problems: Mapping[str, int]) -> dict[str, State]:
    """The states by key, as their events tell."""
    states: dict[str, State] = {}
    for event in events:
        if event["event"] == "stored" and event.get("problem") in problems:
            origin = None if event.get("rollout") is None else [event["step"], event["rollout"]]
            states[event["key"]] = {
                "key": event["key"],
                "p": problems[event["problem"]],
                **{name: event.get(name) for name in ("parent", "source", "cut", "score")},
                "origin": origin,
                "stored": event["step"],
                "visits": [],
                "forgotten": None,
            }
        elif event["event"] == "visited" and event["key"] in states:
            states[event["key"]]["visits"].append([event["step"], event["row"], event["verdict"]])
        elif event["event"] == "forgotten" and event["key"] in states:
            states[event["key"]]["forgotten"] = [event["step"], event.get("reason")]
    return states


def _inferred(rows: Sequence[Step]) -> dict[str, State]:
    """The states by key, as the rollouts tell that name them."""
    states: dict[str, State] = {}
    before: dict[int, list[Step]] = {}
    for step, row in rows:
        key = row.get("replayed_from")
        if key is not None:
            state = states.setdefault(key, _new_state(key, step, row, before.get(row["p"], [])))
            state["visits"].append([step, row["r"], row["verdict"]])
        before.setdefault(row["p"], []).append((step, row))
    return states


def _new_state(key: str, step: int, row: Row, before: Sequence[Step]) -> State:
    prefix = row.get("prefix", "")
    origins = [(s, r) for s, r in before if s < step and prefix and r["response"].startswith(prefix)]
    at, origin = origins[-1] if origins else (None, {})
    return {
        "key": key,
        "p": row["p"],
        "parent": origin.get("replayed_from"),
        "source": None,
        "origin": [at, origin["r"]] if origins else None,
        "cut": len(row.get("prefix_tokens", [])),
        "score": None,
        "stored": None,
        "visits": [],
        "forgotten": None,
    }


def _first_solves(rows: Sequence[Step], states: Sequence[State]) -> list[dict[str, Any]]:
    """For each problem its first right rollout, where that began at a state."""
    right = [(step, row["r"], row["p"], row.get("replayed_from")) for step, row in rows if row["verdict"] == "right"]
    right += [(s, r, state["p"], state["key"]) for state in states for s, r, verdict in state["visits"]
              if verdict == "right"]  # fmt: skip
    first: dict[int, tuple[int, int, int, str | None]] = {}
    for each in sorted(right, key=lambda found: found[:2]):
        first.setdefault(each[2], each)
    solved = [each for each in first.values() if each[3] is not None]
    return [{"p": p, "step": step, "row": row, "key": key} for step, row, p, key in solved]
