"""What is usable on this machine and, for what is not, why, and how to mend it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "limited", "missing"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found of one thing: ``needed`` is what the embedded task cannot run without.

    ``why`` says what follows when it is not ok, ``mend`` what to do about it, a command where there is one.
    """

    what: str
    state: Status
    detail: str
    needed: bool
    why: str
    mend: str


Check = Callable[[], Sequence[Finding]]


def fine(what: str, detail: str, *, needed: bool = False) -> Finding:
    """It can be used."""
    return Finding(what=what, state="ok", detail=detail, needed=needed, why="", mend="")


def limited(what: str, detail: str, why: str, mend: str, *, needed: bool = False) -> Finding:
    """It can be used, with something to know."""
    return Finding(what=what, state="limited", detail=detail, needed=needed, why=why, mend=mend)


def missing(what: str, detail: str, why: str, mend: str, *, needed: bool = False) -> Finding:
    """It cannot be used."""
    return Finding(what=what, state="missing", detail=detail, needed=needed, why=why, mend=mend)


def examine(checks: Mapping[str, Check]) -> list[Finding]:
    """What each check finds, in order, two at a time; one that fails itself has found something, too."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = pool.map(lambda check: _guarded(*check), checks.items())
        return [finding for findings in found for finding in findings]


def _guarded(what: str, check: Check) -> Sequence[Finding]:
    try:
        return check()
    except Exception as error:  # the report goes on, whatever is broken here
        told = " ".join(f"{type(error).__name__}: {error}".split())
        return [limited(what, "could not be examined", told, "")]


def usable(findings: Iterable[Finding]) -> bool:
    """Whether the embedded task can run here."""
    return not lacking(findings)


def lacking(findings: Iterable[Finding]) -> list[str]:
    """What is needed and missing."""
    return [finding.what for finding in findings if finding.needed and finding.state == "missing"]


def as_json(findings: Sequence[Finding]) -> str:
    """The report for a program."""
    return json.dumps({"usable": usable(findings), "findings": [asdict(finding) for finding in findings]}, indent=2)


def as_text(findings: Sequence[Finding]) -> str:
    """The report for a person: a table, then what is not ok, then the verdict."""
    width = max(len(finding.what) for finding in findings)
    table = [f"{finding.what:{width}}  {finding.state:7}  {finding.detail}" for finding in findings]
    ill = [line for finding in findings if finding.state != "ok" for line in _remedy(finding)]
    missing = lacking(findings)
    verdict = f"rrl cannot run here yet: {', '.join(missing)}" if missing else "rrl can run here: try rrl-train"
    return "\n".join([*table, "", *ill, *([""] if ill else []), verdict])


def _remedy(finding: Finding) -> list[str]:
    lines = [f"{finding.what} is {finding.state}: {finding.why}"]
    return [*lines, f"  {finding.mend}"] if finding.mend else lines
