"""What tuning tried and found: for each arm its trials, their spread, and the best setting, from collect.py's lines.

``python experiments/study/tuning.py TASK [RESULTS]`` reads RESULTS/TASK/tuning.jsonl (experiments/results/study), and
writes tuning.json and tuning.md beside it. tuned.json there says which settings were taken; where these are not the
best of the lines, as after another sitting, both are named.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import protocol
from collect import RESULTS, Line, lines_in
from results import by_arm, curve_of, percent

from rrl.errors import DataError
from rrl.records.run_directory import write_json
from rrl.study.comparison import at
from rrl.study.tables import Table


def tried(about: protocol.Protocol, lines: Sequence[Line], taken: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """By arm: its settings, best first, with the accuracy at the judged share of the budget, a mean over seeds.

    ``taken`` are the overrides that each arm is run with; None is said of an arm that is not there. A setting that was
    tried again with the same seed counts as another trial. Raises DataError for runs that ended
    before that share.
    """
    place = about.judged * about.budget
    short = [
        f"tuning: {line['run']} ended at {line['tokens'][-1]:,} tokens; expected {place:,.0f} or more"
        for line in lines
        if line["tokens"][-1] < place
    ]
    if short or not lines:
        raise DataError(*short or [f"tuning: no run of {about.task}; expected one or more; collect.py collects them"])
    arms = {}
    for arm in by_arm(about, lines):
        own = [line for line in lines if line["arm"] == arm]
        common = set.intersection(*(set(line["overrides"]) for line in own))
        settings = defaultdict[str, dict[int, Line]](dict)
        for line in own:
            settings[line["config"]][line["seed"]] = line
        rows = [
            {
                "setting": [text for text in next(iter(runs.values()))["overrides"] if text not in common],
                "taken": set(taken[arm]) <= set(next(iter(runs.values()))["overrides"]) if arm in taken else None,
                "seeds": sorted(runs),
                "accuracy": fmean(at(curve_of(line, about.level), place) for line in runs.values()),
            }
            for runs in settings.values()
        ]
        most = max(Counter(line["seed"] for line in own).values())
        arms[arm] = {"trials": most, "runs": len(own), "settings": sorted(rows, key=lambda row: -row["accuracy"])}
    missing = [name for name, arm in about.arms.items() if arm.tuned == name and name not in arms]
    agreed = {"level": about.level, "judged_at": about.judged, "trials": about.trials}
    return {"task": about.task, **agreed, "missing": missing, "arms": arms}


def as_table(result: dict[str, Any]) -> Table:
    """One line an arm; an arm with another number of trials than agreed is marked."""
    title = (
        f"Tuning on {result['task']}: {result['trials']} trials of each arm were agreed; accuracy ({result['level']}) "
        f"at {percent(result['judged_at'])} of the budget on the tuning seeds, which are never reported"
    )
    rows = []
    for arm, found in result["arms"].items():
        accuracies = [row["accuracy"] for row in found["settings"]]
        best = " ".join(found["settings"][0]["setting"]) or "as it is"
        count = f"{found['trials']}" + ("" if found["trials"] == result["trials"] else " (**not as agreed**)")
        spread = f"{min(accuracies):.3f} to {max(accuracies):.3f}"
        rows.append([arm, count, str(found["runs"]), spread, best, _taken(found["settings"])])
    head = ["arm", "trials", "runs", "worst to best setting", "best setting", "taken"]
    return Table(title, head, rows)


def _taken(settings: Sequence[dict[str, Any]]) -> str:
    """Whether it is the best one, and else which."""
    if settings[0]["taken"] in (True, None):
        return "the best" if settings[0]["taken"] else "-"
    other = next((row for row in settings if row["taken"]), None)
    return "none of these" if other is None else f"{other['accuracy']:.3f}: {' '.join(other['setting'])}"


def main(task: str, results: str = str(RESULTS)) -> None:
    """Write both files and print the table."""
    folder = Path(results, task)
    try:
        taken = protocol.tuned(folder / protocol.TUNED)
        result = tried(protocol.read(task), lines_in(folder / "tuning.jsonl"), taken)
    except DataError as error:
        raise SystemExit(str(error)) from None
    text = as_table(result).markdown()
    if result["missing"]:
        text += f"\n**Incomplete**: not tuned yet: {', '.join(result['missing'])}.\n"
    write_json(folder / "tuning.json", result)
    (folder / "tuning.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    protocol.run(main, __doc__)
