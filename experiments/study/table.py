"""The table of the study: each rule against PPO and against its own re-draw, paired by seed.

``python experiments/study/table.py FOLDER OUT [LEVEL]`` reads the sweeps of ``make study`` in FOLDER, and writes
study.json and study.md into OUT. LEVEL is a level of held-out problems (all).
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rrl.records.files import modes, whole_rows
from rrl.records.run_directory import write_json
from rrl.study.arms import find_arms
from rrl.study.comparison import Measure, at, evaluations, plus_minus, seed_of, summary, token_count, tokens_to
from rrl.study.paired import holm, sign_flip_test
from rrl.study.tables import Table

MARKS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the budget at which accuracies are compared; tests are made at JUDGED."""
JUDGED = 0.6
BASELINE = "sampler=problems"
CONTROLS = {
    "sampler=retrospective": "sampler=redraw",
    "sampler=allocation": "sampler=allocation sampler.schedule.share=0",
    "sampler=pass_rate": "sampler=pass_rate_redraw",
}
"""The control of an arm is named as the arm, with these words in the place of those."""
Curves = dict[int, list[tuple[float, float]]]


def control_of(arm: str, arms: Sequence[str]) -> str | None:
    """The arm with the same problems from their prompts; None for one that has none, as a control itself."""
    words = arm.split()
    for word, other in CONTROLS.items():
        if word in words and len(set(other.split()) & set(words)) < len(other.split()):
            wanted = {*(each for each in words if each != word), *other.split()}
            return next((name for name in arms if set(name.split()) == wanted), None)
    return None


def compare(folder: Path, level: str | None) -> dict[str, Any]:
    """All numbers of the study as plain data."""
    found, left_out = find_arms([folder])
    measure = Measure("accuracy", None, level)
    curves: dict[str, Curves] = {
        arm: {seed_of(run): [point[:2] for point in measure.points(run)] for run in runs} for arm, runs in found.items()
    }
    baseline = next((arm for arm in curves if BASELINE in arm.split()), None)
    if baseline is None:
        raise SystemExit(f"{folder}: no arm with {BASELINE}; expected PPO among {', '.join(curves)}")
    budget = min(curve[-1][0] for rows in curves.values() for curve in rows.values())
    goal = fmean(at(curve, int(budget)) for curve in curves[baseline].values())
    rows = {
        arm: {
            "seeds": sorted(own),
            "values": {
                f"{mark:.0%}": summary([at(own[seed], int(mark * budget)) for seed in sorted(own)]) for mark in MARKS
            },
            "tokens_to_ppo": [tokens_to(own[seed], goal) for seed in sorted(own)],
            "control": control_of(arm, list(curves)),
            **last_of(found[arm]),
        }
        for arm, own in curves.items()
    }
    for name, others in (
        ("minus_ppo", dict.fromkeys(rows, baseline)),
        ("minus_control", {a: r["control"] for a, r in rows.items()}),
    ):
        differences = {
            arm: difference(curves[arm], curves.get(other or ""), JUDGED * budget)
            for arm, other in others.items()
            if arm != other
        }
        tested = [arm for arm, each in differences.items() if each is not None]
        for arm, p in zip(tested, holm([differences[arm]["p"] for arm in tested]), strict=True):
            rows[arm][name] = {**differences[arm], "holm": p}
    return {
        "level": level,
        "budget": budget,
        "judged_at": JUDGED,
        "baseline": baseline,
        "arms": rows,
        "left_out": left_out,
    }


def difference(own: Curves, other: Curves | None, tokens: float) -> dict[str, Any] | None:
    """Paired by seed at a budget; None where there is no other arm, or without a seed in common."""
    seeds = sorted(set(own) & set(other or {}))
    if other is None or not seeds:
        return None
    values = [at(own[seed], int(tokens)) - at(other[seed], int(tokens)) for seed in seeds]
    return {**summary(values), "seeds": seeds, "p": sign_flip_test(values)}


def last_of(runs: Sequence[Path]) -> dict[str, Any]:
    """Means over runs of what their last records say: first solves in all, unsolved problems, entropy, pass@k.

    None is what an arm does not count.
    """
    rows = [whole_rows(run / "metrics.jsonl") for run in runs]
    ends = [evaluations(run)[-1] for run in runs]
    passes = [end[modes(end)[0]].get("pass@k") or {} for end in ends]
    most = max((int(k) for each in passes for k in each), default=0)
    return {
        "first_solves": _mean(_total(each, "replay/first_solves") for each in rows),
        "unsolved": _mean(each[-1].get("explore/unsolved_frac") for each in rows),
        "entropy": _mean(each[-1].get("actor/entropy") for each in rows),
        "k": most,
        "pass@k": fmean(each[str(most)]["value"] for each in passes) if most else None,
    }


def _total(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    found = [row[name] for row in rows if row.get(name) is not None]
    return sum(found) if found else None


def _mean(values: Iterable[float | None]) -> float | None:
    """None where any is: of an arm that does not count this."""
    numbers = list(values)
    known = [number for number in numbers if number is not None]
    return fmean(known) if known and len(known) == len(numbers) else None


def as_table(result: Mapping[str, Any]) -> Table:
    """One line an arm."""
    judged = f"{result['judged_at']:.0%}"
    head = ["arm", "seeds", *next(iter(result["arms"].values()))["values"], f"minus PPO at {judged}", "p (Holm)",
            f"minus its control at {judged}", "p (Holm)", "tokens to PPO's end", "first solves", "pass@k",
            "entropy"]  # fmt: skip
    rows = []
    for arm, row in result["arms"].items():
        tests = [cell for name in ("minus_ppo", "minus_control") for cell in tested(row.get(name))]
        reached = [tokens for tokens in row["tokens_to_ppo"] if tokens is not None]
        budget = f"{token_count(round(fmean(reached)))} ({len(reached)} of {len(row['seeds'])})" if reached else "-"
        most = "-" if row["pass@k"] is None else f"{row['pass@k']:.3f} (k = {row['k']})"
        means = [f"{cell['mean']:.3f}" for cell in row["values"].values()]
        rows.append(
            [
                arm,
                str(len(row["seeds"])),
                *means,
                *tests,
                budget,
                "-" if row["first_solves"] is None else f"{row['first_solves']:.0f}",
                most,
                "-" if row["entropy"] is None else f"{row['entropy']:.3f}",
            ]
        )
    level = "all problems" if result["level"] is None else result["level"]
    budget = token_count(int(result["budget"]))
    return Table(f"Held-out accuracy of {level} by share of {budget} generated tokens, means over seeds", head, rows)


def tested(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return ["", ""]
    return [plus_minus(found["mean"], found["half95"]), f"{found['p']:.3f} ({found['holm']:.3f})"]


def main(folder: str, out: str, level: str | None = None) -> None:
    """Write both files and print the table."""
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    result = compare(Path(folder), level)
    text = "\n".join([as_table(result).markdown(), *result["left_out"]])
    write_json(target / f"study{'' if level is None else '-' + level}.json", result)
    (target / f"study{'' if level is None else '-' + level}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
