"""The report of rrl-doctor: what is usable on this machine, and reasons and remedies for what is not."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Literal

from rrl.records.texts import one_line

Status = Literal["ok", "limited", "missing"]


@dataclass(frozen=True)
class Finding:
    """The result of a check; ``needed`` means that the built-in task cannot run without it.

    Unless the state is ok, ``why`` is the reason or consequence and ``remedy`` the fix, a command where there is one.
    """

    what: str
    state: Status
    detail: str
    needed: bool
    why: str
    remedy: str


Check = Callable[[], Sequence[Finding]]


def fine(what: str, detail: str, *, needed: bool = False) -> Finding:
    """It can be used."""
    return Finding(what, "ok", detail, needed, why="", remedy="")


def limited(what: str, detail: str, why: str, remedy: str, *, needed: bool = False) -> Finding:
    """It can be used, with a limitation."""
    return Finding(what, "limited", detail, needed, why, remedy)


def missing(what: str, detail: str, why: str, remedy: str, *, needed: bool = False) -> Finding:
    """It cannot be used."""
    return Finding(what, "missing", detail, needed, why, remedy)


def examine(checks: Mapping[str, Check]) -> list[Finding]:
    """The findings of all checks, in order, run two at a time; the failure of a check is a finding, too."""

    def guarded(what: str) -> Sequence[Finding]:
        try:
            return checks[what]()
        except Exception as error:  # no failure may stop the report
            return [limited(what, "could not be examined", one_line(error), "")]

    with ThreadPoolExecutor(max_workers=2) as pool:
        return [finding for findings in pool.map(guarded, checks) for finding in findings]


def usable(findings: Iterable[Finding]) -> bool:
    """Whether the built-in task can run here."""
    return not lacking(findings)


def lacking(findings: Iterable[Finding]) -> list[str]:
    """The needed things that are missing."""
    return [finding.what for finding in findings if finding.needed and finding.state == "missing"]


def report_json(findings: Sequence[Finding]) -> str:
    return json.dumps({"usable": usable(findings), "findings": [asdict(finding) for finding in findings]}, indent=2)


def report_text(findings: Sequence[Finding]) -> str:
    """The report as text: a table, then reasons and remedies, then the verdict."""
    width = max(len(finding.what) for finding in findings)
    table = [f"{finding.what:{width}}  {finding.state:7}  {finding.detail}" for finding in findings]
    faults = [
        line
        for finding in findings
        if finding.state != "ok"
        for line in (f"{finding.what} is {finding.state}: {finding.why}", finding.remedy and f"  {finding.remedy}")
        if line
    ]
    missing = lacking(findings)
    verdict = f"rrl cannot run here yet: {', '.join(missing)}" if missing else "rrl can run here: try rrl-train"
    return "\n".join([*table, "", *faults, *([""] if faults else []), verdict])
