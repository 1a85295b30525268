"""The tables of the study: each rule against PPO and against its own control, paired by seed; and a picture.

``python experiments/study/table.py TASK [STAGE] [RESULTS]`` reads arms.yml and RESULTS/TASK/<stage>.jsonl, which
collect.py wrote (reported; experiments/results/study). Beside it it writes study.json, study.md and study.png, of the
stage ``choosing`` study-choosing.json and so on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import protocol
from collect import RESULTS, lines_in
from picture import picture, pictured
from results import compare, percent

from rrl.errors import DataError
from rrl.records.run_directory import write_json
from rrl.study.comparison import plus_minus, token_count
from rrl.study.tables import Table

GOAL = 0.8
"""Of the bound's lead over the baseline, which a rule should reach."""
YES = {True: "yes", False: "no"}
RECORDED = {"first_solves": ".0f", "unsolved": ".3f", "pass": ".3f", "entropy": ".3f", "replay": ".2f"}
FITTED = {"asymptote": ".3f", "midpoint": ",.0f", "exponent": ".2f"}
"""How numbers are written."""
NONE = "-"
Result = Mapping[str, Any]


def tables(result: Result) -> list[Table]:
    """All tables, the judged level first."""
    marks = list(dict.fromkeys([percent(result["judged_at"]), percent(1.0)]))
    first = next(iter(result["arms"].values()))["accuracy"]
    levels = sorted(first, key=lambda level: level != result["level"])
    return [
        *(accuracies(result, level) for level in levels),
        *(differences(result, mark) for mark in marks),
        *tuned_controls(result, marks),
        goal(result, marks),
        exploration(result, marks),
        beside(result, marks[0]),
        by_work(result, marks[0]),
        sigmoids(result),
    ]


def accuracies(result: Result, level: str) -> Table:
    what = "all problems" if level == "all" else level
    title = (
        f"Held-out accuracy ({result['mode']}) of {what} by share of {token_count(result['budget'])} generated tokens, "
        "mean ± standard deviation over seeds"
    )
    rows = [
        [arm, row["kind"], str(len(row["seeds"])),
         *(plus_minus(row["accuracy"][level][mark]["mean"], row["accuracy"][level][mark]["sd"])
           for mark in result["marks"])]
        for arm, row in result["arms"].items()
        if level in row["accuracy"]
    ]  # fmt: skip
    return Table(title, ["arm", "kind", "seeds", *result["marks"]], rows)


def differences(result: Result, mark: str) -> Table:
    """Paired differences at a mark, with the share of the bound's lead at the judged one."""
    base, judged = result["baseline"], mark == percent(result["judged_at"])
    title = (
        f"Differences at {mark} of the budget ({result['level']}), paired by seed: mean ± half of the 95 % t interval; "
        "p of the exact sign-flip test, of rules with Holm's correction over the rules"
    )
    head = ["arm", "kind", f"minus {base}", "p", "own control", "minus own control", "p"]
    rows = []
    for arm, row in result["arms"].items():
        if arm != base:
            cells = [_tested(row[name], mark) for name in ("minus_baseline", "minus_control")]
            share = [_share(row["share_of_bound"])] if judged else []
            rows.append([arm, row["kind"], *cells[0], row["control"] or NONE, *cells[1], *share])
    return Table(title, [*head, "share of the bound's lead"] if judged else head, rows)


def tuned_controls(result: Result, marks: Sequence[str]) -> list[Table]:
    """Rules and the bound against each control that was tuned as they were; no table where none was run."""
    rows = {arm: row["minus_tuned"] for arm, row in result["arms"].items() if row["minus_tuned"]}
    names = list(dict.fromkeys(name for found in rows.values() for name in found))
    title = (
        f"Minus each control that was tuned by itself, at {' and '.join(marks)} of the budget ({result['level']}), "
        "paired by seed: mean ± half of the 95 % t interval, not corrected for their number"
    )
    cells = [[arm, *(_leads(found.get(name), marks) for name in names)] for arm, found in rows.items()]
    return [Table(title, ["arm", *(f"minus {name}" for name in names)], cells)] if rows else []


def _leads(found: Result | None, marks: Sequence[str]) -> str:
    return (
        NONE if found is None else ", ".join(plus_minus(found[mark]["mean"], found[mark]["half95"]) for mark in marks)
    )


def _tested(found: Result | None, mark: str) -> list[str]:
    if found is None:
        return [NONE, NONE]
    at_mark = found[mark]
    how = f"Holm {at_mark['holm']:.4f}" if "holm" in at_mark else "uncorrected"
    text = f"{at_mark['p']:.4f} ({how}; n = {len(at_mark['seeds'])})"
    return [plus_minus(at_mark["mean"], at_mark["half95"]), text]


def _share(found: Result | None) -> str:
    if found is None:
        return NONE
    interval = "no interval" if found["low"] is None else f"{found['low']:.2f} to {found['high']:.2f}"
    return f"{found['share']:.2f} ({interval})"


def goal(result: Result, marks: Sequence[str]) -> Table:
    """What the study asks of a rule, each by itself."""
    base, share = result["baseline"], f"{GOAL:.0%} of the bound's lead"
    title = (
        f"The goal ({result['level']}): the intervals of a rule's lead over {base} and over its control lie above 0 "
        f"at {marks[0]} of the budget; neither lies below 0 at the end; its share of the bound's lead is {GOAL} or more"
    )
    rows = []
    for arm in result["rules"]:
        row = result["arms"][arm]
        leads = [row["minus_baseline"], row["minus_control"]]
        above = [_side(lead, marks[0]) for lead in leads]
        losses = [_side(lead, marks[-1]) for lead in leads]
        found = row["share_of_bound"]
        met = [
            *(None if side is None else side > 0 for side in above),
            None if None in losses else min(losses) >= 0,
            None if found is None else found["share"] >= GOAL,
        ]
        rows.append([arm, *(NONE if each is None else YES[each] for each in met), YES[all(met)]])
    return Table(title, ["rule", f"above {base}", "above its control", "no loss at the end", share, "all"], rows)


def _side(found: Result | None, mark: str) -> int | None:
    """Whether an interval lies above 0 (1), below (-1), or holds it (0); None where there is no interval."""
    if found is None or found[mark]["half95"] is None:
        return None
    mean, half = found[mark]["mean"], found[mark]["half95"]
    return (mean > half) - (mean < -half)


def exploration(result: Result, marks: Sequence[str]) -> Table:
    title = (
        f"Effort and exploration, means over seeds: tokens to the mean accuracy of {result['baseline']} at the end, "
        f"interpolated, and how many runs reached it; the others at {' and '.join(marks)} of the budget"
    )
    head = ["arm", f"tokens to the end of {result['baseline']}", "first solves from a state",
            "never solved, of those tried", f"pass@k of {result['level']}", "entropy", "replayed starts"]  # fmt: skip
    rows = []
    for arm, row in result["arms"].items():
        reached = [tokens for tokens in row["tokens_to_baseline"] if tokens is not None]
        mean = token_count(round(fmean(reached))) if reached else NONE
        cells = [_both(row[name], marks, form) for name, form in RECORDED.items()]
        cells[2] += "" if row["k"] is None else f" (k = {row['k']})"
        rows.append([arm, f"{mean} ({len(reached)} of {len(row['seeds'])})", *cells])
    return Table(title, head, rows)


def _both(found: Result | None, marks: Sequence[str], form: str) -> str:
    return NONE if found is None else ", ".join(f"{found[mark]:{form}}" for mark in marks)


def beside(result: Result, mark: str) -> Table:
    base = result["baseline"]
    title = (
        f"The same by steps and by seconds of training: accuracy ({result['level']}) at the step, and at the second, "
        f"at which the run of {base} with the same seed stood at {mark} of the budget, minus that of {base} there, and "
        "minus that of the own control"
    )
    rows = [
        [arm, *_beside(row["by_step"], arm == base), *_beside(row["by_seconds"], arm == base)]
        for arm, row in result["arms"].items()
    ]
    heads = [text for axis in ("step", "second") for text in (f"at this {axis}", f"minus {base}", "minus control")]
    return Table(title, ["arm", *heads], rows)


def by_work(result: Result, mark: str) -> Table:
    base = result["baseline"]
    title = (
        f"Calculated: the same ({result['level']}) after the work of the run of {base} up to {mark} of the budget, if "
        "writing, by the token, were this share of it, and all else, by the step, the rest"
    )
    rows = [
        [arm, *(cell for found in row["by_work"].values() for cell in _beside(found, False)[1:])]
        for arm, row in result["arms"].items()
        if arm != base
    ]
    shares = result["arms"][base]["by_work"]
    return Table(title, ["arm", *(f"{share}, minus {other}" for share in shares for other in (base, "control"))], rows)


def _beside(found: Result | None, itself: bool) -> list[str]:
    if found is None:
        return [NONE, NONE, NONE]
    ended = f" ({found['ended']} had ended)" if found["ended"] else ""
    leads = [NONE if itself else _lead(found[f"minus_{other}"]) for other in ("baseline", "control")]
    return [f"{found['accuracy']['mean']:.3f}{ended}", *leads]


def _lead(found: Result | None) -> str:
    return NONE if found is None else plus_minus(found["mean"], found["half95"])


def sigmoids(result: Result) -> Table:
    title = (
        f"Asymptote against speed ({result['level']}): R(C) = R0 + (A - R0) / (1 + (Cmid / C)^B) of the mean curve, "
        "95 % interval by bootstrap over seeds; not identified where the interval of A or Cmid touches a bound: the "
        "curve does not bend enough to tell a high asymptote from a slow rise"
    )
    rows = []
    for arm, row in result["arms"].items():
        found = row["sigmoid"]
        sure = found["identified"]
        cells = [_fitted(found[name], form) if sure else NONE for name, form in FITTED.items()]
        rows.append([arm, *cells, f"{found['error']:.4f}", "yes" if sure else "no"])
    return Table(title, ["arm", "A", "Cmid (tokens)", "B", "error (root mean square)", "identified"], rows)


def _fitted(found: Result, form: str) -> str:
    return f"{found['value']:{form}} ({found['low']:{form}} to {found['high']:{form}})"


def notes(result: Result) -> list[str]:
    """What a reader must know beside the tables."""
    lines = [
        f"Stage {result['stage']} of {result['task']}. Accuracies between evaluations are interpolated linearly. "
        "Holm's correction is over the rules alone, in each column by itself; p-values of controls and of the bound "
        "are not corrected. The interval of a share of the bound's lead is Fieller's; there is none where the bound's "
        "own lead cannot be told from 0, and a dash where it is not above 0.",
        "Code: " + ", ".join(f"{name} ({count} runs)" for name, count in result["code"].items()) + ".",
        "Seconds were measured on: "
        + ", ".join(f"{name} ({count} runs)" for name, count in result["processors"].items())
        + ". They compare only on one machine with the same load.",
    ]
    without = [arm for arm in result["missing"] if arm not in result["arms"]]
    some = [f"{arm}: {', '.join(map(str, seeds))}" for arm, seeds in result["missing"].items() if arm not in without]
    if without:
        lines.append(f"**Incomplete**: no run yet of {', '.join(without)}.")
    if some:
        lines.append(f"**Incomplete**: these arms have no run with these seeds yet: {'; '.join(some)}.")
    return lines


def main(task: str, stage: str = "reported", results: str = str(RESULTS)) -> None:
    """Write the files, print the tables."""
    folder = Path(results, task)
    name = "study" if stage == "reported" else f"study-{stage}"
    try:
        about, lines = protocol.read(task).at(stage), lines_in(folder / f"{stage}.jsonl")
        result = compare(about, lines, stage)
        names = pictured(about, result, lines_in(folder / "choosing.jsonl"))
    except DataError as error:
        raise SystemExit(str(error)) from None
    text = "\n".join([*(table.markdown() for table in tables(result)), *(f"{note}\n" for note in notes(result))])
    write_json(folder / f"{name}.json", result)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    picture(about, lines, names, folder / f"{name}.png")
    print(text)


if __name__ == "__main__":
    protocol.run(main, __doc__)
