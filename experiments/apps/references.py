"""The judge of APPS held against the data's own solutions, and against solutions with one mistake.

    python experiments/apps/references.py <folder or file> [--out DIR] [--mutants 5] [key=value ...]

Writes references.json: which of the first three solutions of each problem pass, and how many mutants of passing ones
(``mutation.py``; so many of each reference, drawn with a seed) pass too, by operator and by number of tests.
Expected on the 153 problems described in docs/apps.md: at least 142 first solutions and 149 of the first three; cost:
some 15 minutes of 2 cores, nearly all of it mutants that do not end.
"""

import argparse
import ast
import difflib
import json
import random
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mutation import OPERATORS, Mutant, mutants

from rrl.config.check import load
from rrl.parts.tasks.apps import APPS
from rrl.parts.tasks.coding import Item, rendered
from rrl.types import Example, Problem, Rollout, State, Verdict
from rrl.verifiers.programs import ProgramEvidence

TRIED = 3


def main() -> None:
    """Judge, and write what came of it."""
    arguments = _arguments()
    warnings.simplefilter("ignore", SyntaxWarning)  # of the solutions, as in "1if"
    _, parts = load("train", ["task=apps", f"data.path={arguments.path}", *arguments.overrides])
    task = parts.task
    assert isinstance(task, APPS)
    rows, _ = task.rows("train")
    items = [task.item(row, number, "train") for number, row in enumerate(rows)]
    start = time.monotonic()
    report = references(task, items)
    passing = {name: tried.index("passed") for name, tried in report["outcomes"].items() if "passed" in tried}
    chosen = [(item, passing[item.name]) for item in items if item.name in passing]
    report["mutation"] = mutation(task, chosen, arguments) if arguments.mutants else {}
    report["seconds"] = round(time.monotonic() - start)
    report["sandbox"] = task.judge.sandbox.describe()
    task.judge.sandbox.close()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "references.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    summary = {key: value for key, value in report.items() if key not in ("outcomes", "mutation")}
    print(json.dumps(summary | {k: v for k, v in report["mutation"].items() if k != "survivors"}, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--out", type=Path, default=Path("experiments/results/apps"))
    parser.add_argument("--mutants", type=int, default=5, help="of each reference")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", help="as for rrl-train, e.g. sandbox.limits.cpu_seconds=4")
    return parser.parse_intermixed_args()


def references(task: APPS, items: Sequence[Item]) -> dict[str, Any]:
    """The outcomes of the first solutions of each problem."""
    judged = _judge(task, [(item, source) for item in items for source in item.solutions[:TRIED]])
    outcomes: dict[str, list[str]] = {item.name: [] for item in items}
    exceptions: dict[str, Any] = {}
    for item, _, evidence in judged:
        outcomes[item.name].append(evidence.outcome.value)
        if len(outcomes[item.name]) == 1 and evidence.outcome.value != "passed":
            exceptions[item.name] = _told(evidence)
    return {
        "problems": len(items),
        "tests": sum(len(item.suite.inputs) for item in items),
        "first_passes": sum(tried[:1] == ["passed"] for tried in outcomes.values()),
        f"one_of_{TRIED}_passes": sum("passed" in tried for tried in outcomes.values()),
        "exceptions": {name: {"outcomes": outcomes[name], "first": told} for name, told in exceptions.items()},
        "outcomes": outcomes,
    }


def mutation(task: APPS, passing: Sequence[tuple[Item, int]], arguments: argparse.Namespace) -> dict[str, Any]:
    """What becomes of mutants of the solutions that pass."""
    rng = random.Random(arguments.seed)
    drawn = [
        (item, mutant)
        for item, number in passing
        for mutant in _draw(list(mutants(item.solutions[number])), arguments.mutants, rng)
    ]
    judged = _judge(task, [(item, mutant.source) for item, mutant in drawn])
    rows = [(item, mutant, evidence) for (item, mutant), (_, _, evidence) in zip(drawn, judged, strict=True)]
    solutions = {item.name: item.solutions[number] for item, number in passing}
    lived = [(item, mutant) for item, mutant, evidence in rows if evidence.outcome.value == "passed"]
    return {
        "mutants": len(rows),
        "references": len({item.name for item, _, _ in rows}),
        "seed": arguments.seed,
        "outcomes": dict(Counter(evidence.outcome.value for _, _, evidence in rows)),
        "survived": len(lived),
        "survived_share": round(len(lived) / len(rows), 4),
        "by_operator": _shares([m.operator for _, m, _ in rows], [m.operator for _, m in lived], list(OPERATORS)),
        "by_tests": _shares([_many(i) for i, _, _ in rows], [_many(i) for i, _ in lived], ["1", "2-9", "10+"]),
        "survivors": [_survivor(item.name, mutant, solutions[item.name]) for item, mutant in lived],
    }  # fmt: skip


def _survivor(name: str, mutant: Mutant, solution: str) -> dict[str, Any]:
    """Where it differs from the solution, as both are written without comments and blank lines."""
    pair = [ast.unparse(ast.parse(solution)).split("\n"), mutant.source.split("\n")]
    lines = [line for line in difflib.unified_diff(*pair, n=0, lineterm="") if line[:3] not in ("---", "+++")]
    return {"problem": name, "operator": mutant.operator, "line": mutant.line, "change": lines}


def _draw(found: list[Mutant], count: int, rng: random.Random) -> list[Mutant]:
    """As many different operators as there are, then more of the same."""
    rng.shuffle(found)
    firsts = {mutant.operator: mutant for mutant in reversed(found)}
    chosen = list(firsts.values())
    rng.shuffle(chosen)
    return (chosen + [mutant for mutant in found if mutant not in chosen])[:count]


def _judge(task: APPS, programs: Sequence[tuple[Item, str]]) -> list[tuple[Item, str, ProgramEvidence]]:
    rollouts = [_rollout(item, source) for item, source in programs]
    feedback = task.verify(rollouts)
    assert all(f.solved == (f.verdict is Verdict.RIGHT) for f in feedback)
    return [
        (item, source, ProgramEvidence.of(f.evidence)) for (item, source), f in zip(programs, feedback, strict=True)
    ]


def _rollout(item: Item, source: str) -> Rollout:
    example = Example(item.name, item.level, item.statement, "", item.suite.as_text())
    return Rollout(State(Problem(example, (), ())), (), (), (), True, rendered(source), 0)


def _told(evidence: ProgramEvidence) -> dict[str, Any]:
    names = ("outcome", "passed", "total", "error", "line", "message")
    return {name: evidence.as_mapping()[name] for name in names}


def _many(item: Item) -> str:
    tests = len(item.suite.inputs)
    return "1" if tests == 1 else "2-9" if tests < 10 else "10+"


def _shares(of_all: Sequence[str], of_lived: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, float]]:
    counts, lived = Counter(of_all), Counter(of_lived)
    return {
        name: {"mutants": counts[name], "survived": lived[name], "share": round(lived[name] / counts[name], 4)}
        for name in names
        if counts[name]
    }


if __name__ == "__main__":
    main()
