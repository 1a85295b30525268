"""The results of an audit as Markdown tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def as_markdown(result: Mapping[str, Any]) -> str:
    """States, calibration and log-probabilities of early prefixes, each where there is any, and the tokens spent."""
    rows = [(run["run"], row) for run in result["runs"] for row in run["checkpoints"]]
    of_states = [(run, row) for run, row in rows if "solvable" in row]
    with_critic = [(run, row) for run, row in of_states if "calibration" in row]
    prefixes, tokens = result["prefixes"], result["tokens"]
    sections = {
        f"States: {result['settings']['continuations']} continuations of each and of its prompt": _states(of_states),
        "Calibration of the critic: groups of states by its value": _calibration(with_critic),
        f"Log-probability (nats) of a token of the first {prefixes['count']} states of {prefixes['of']}": _likely(rows),
    }
    tables = [(title, list(lines)) for title, lines in sections.items()]
    texts = ["\n".join([f"## {title}", "", *lines]) for title, lines in tables if len(lines) > HEAD]
    spent = f"{tokens['generated']:,} tokens generated, {tokens['scored']:,} scored; 95 % intervals over problems."
    return "\n\n".join([*texts, spent])


HEAD = 2
"""Lines at the top of a table."""
Rows = Sequence[tuple[str, Mapping[str, Any]]]
"""Names of runs and what was found at their checkpoints."""


def _states(rows: Rows) -> Iterator[str]:
    heads = ("states", "solvable", "from prompts", "success", "success from prompts", "gain", "rank correlation")
    names = ("solvable", "solvable_from_prompt", "success", "success_from_prompt", "gain", "rank_correlation")
    yield from head("run", "step", "done", *heads)
    for run, row in rows:
        cells = [number(row.get(name)) for name in names]
        yield line(run, row["step"], f"{row['done']:.0%}", f"{len(row['states'])} of {row['held']}", *cells)


def _calibration(rows: Rows) -> Iterator[str]:
    yield from head("run", "step", "states", "mean value", "mean success")
    for run, row in rows:
        for group in row["calibration"]:
            yield line(run, row["step"], group["count"], f"{group['foretold']:.3f}", f"{group['found']:.3f}")


def _likely(rows: Rows) -> Iterator[str]:
    yield from head("run", "step", "log-probability", "change since its first checkpoint")
    for run, row in rows:
        yield line(run, row["step"], f"{row['logprob']:.3f}", number(row["change"], signed=True))


def head(*names: str) -> Iterator[str]:
    """The first lines of a table."""
    yield line(*names)
    yield "| --- " * len(names) + "|"


def line(*cells: object) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def number(found: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """As in 0.500 [0.400, 0.600]; a dash where there is none."""
    if found is None or found["value"] is None:
        return "-"
    form = "+.3f" if signed else ".3f"
    ends = found["interval95"]
    return f"{found['value']:{form}}" + ("" if ends is None else f" [{ends[0]:{form}}, {ends[1]:{form}}]")
