"""The table of a reproduction: ours beside the published figure, with intervals over seeds and paired differences."""

import glob
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rrl.config.choices import conf_dir
from rrl.config.saved import read_config
from rrl.records.files import read_object, write_whole
from rrl.records.run_directory import write_json
from rrl.study.comparison import summary
from rrl.study.reproduce import ARMS, Target
from rrl.study.sweep_files import last_line
from rrl.study.tables import Table

NAMES = {
    "sft": "SFT", "ppo": "PPO", "gsi": "GSI", "ppocoder": "PPOCoder", "rltf": "RLTF", "rrl": "RRL",
    "redraw": "re-draw", "random_cut": "random cut",
}  # fmt: skip
OURS = (
    "Ours: greedy responses; mean ± half of the 95 % interval over seeds (Student's t). SFT is one model, with which "
    "all seeds begin; its interval is over problems (Wilson). Differences are paired by seed, with the same interval."
)
JUDGED = (
    "Ours is the share of wins: an answer that the judge prefers in both orders to SFT's; helpful and harmless are "
    "wins of these prompts. SFT itself is compared with the answers of the data set."
)
SIDES = ("tie", "lose", "helpful", "harmless")
"""Columns of a dialogue's table: of all questions, and wins of each level."""
OFFICIAL = {"gsm8k": "gsm8k", "math": "math", "code": "apps_plus", "dialogue": "hh"}
"""The data that the published figures are of, by ``data.name``."""


def write_table(target: Target) -> str:
    """Write table.json, table.md and table.tex from the measurements that are there; returns the text."""
    content = table(target)
    made = as_table(content)
    text = "\n".join([made.markdown(), *remarks(content)])
    write_json(target.folder / "table.json", content)
    write_whole(target.folder / "table.md", text.encode())
    write_whole(target.folder / "table.tex", made.latex().encode())
    return text


def write_page(folder: Path, arms: Sequence[str], show: Callable[[str], None]) -> None:
    """Have rrl-report write report.html about these arms; the table stands without it."""
    patterns = {arm: f"{glob.escape(str(folder))}/{arm}-s*" for arm in arms}
    given = [f"{arm}={pattern}" for arm, pattern in patterns.items() if glob.glob(pattern)]
    page, log = folder / "report.html", folder / "logs" / "report.log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "rrl.cli.report", *given, f"out={page}"]
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    show(f"{page}" if code == 0 else f"the page is not made: {last_line(log)} ({log})")


def table(target: Target) -> dict[str, Any]:
    """All numbers in points; None where something is not there yet."""
    published = json.loads((conf_dir() / "experiment" / "reproduce" / "published.json").read_text(encoding="utf-8"))
    about = published[target.task]
    arms = {arm: _arm(target, arm) for arm in ("sft", *ARMS[target.task])}
    for arm, row in arms.items():  # all seeds begin with one model after supervised fine-tuning: it has no pairs
        others = ("ppo", "redraw")
        row["minus"] = {other: None if arm == "sft" else _difference(row, arms[other]) for other in others}
    for arm, row in arms.items():
        row["published"], row["tag"] = about["cells"].get(arm, [None, None])
    common = {name: published[name] for name in ("source", "tags", "runs")}
    return {"task": target.task, "scale": target.scale, "title": about["title"], **common, "arms": arms,
            "notes": _notes(target)}  # fmt: skip


def _arm(target: Target, arm: str) -> dict[str, Any]:
    """What was measured of an arm, by seed."""
    parts, tokens = dict[str, dict[str, Any]](), []
    for seed in [seed for other, seed in target.runs() if other == arm]:
        run = target.run(arm, seed)
        found, _ = read_object(target.folder / f"evaluate-{run}.json")
        if found:
            parts[str(seed)] = _judged(found) if target.judged else _measured(found)
            tokens.append(read_object(target.folder / run / "result.json")[0]["tokens_generated"])
    values = {seed: part["points"] for seed, part in parts.items()}
    return {
        "by_seed": parts,
        "ours": summary(list(values.values())) if values else None,
        "tokens": fmean(tokens) if tokens else None,
        "problems": max((part["problems"] for part in parts.values()), default=None),
    }


def _measured(found: Mapping[str, Any]) -> dict[str, Any]:
    greedy = found["greedy"]
    interval = [100 * end for end in greedy["interval95"]]
    return {"points": 100 * greedy["accuracy"], "interval95": interval, "problems": greedy["n_problems"]}


def _judged(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of the questions that the judge could judge."""
    shares = {name: 100 * (found[name]["share"] or 0.0) for name in ("win", "tie", "lose")}
    interval = [100 * end for end in found["win"]["interval95"] or (0.0, 1.0)]
    levels = {level: 100 * (part["win"]["share"] or 0.0) for level, part in found["levels"].items()}
    return {"points": shares["win"], "interval95": interval, "problems": found["n"], **shares, **levels}


def _difference(row: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any] | None:
    """Paired by seed; None where an arm is the other one or lacks a seed."""
    ours, theirs = row["by_seed"], other["by_seed"]
    if row is other or not ours or ours.keys() != theirs.keys():
        return None
    return summary([part["points"] - theirs[seed]["points"] for seed, part in ours.items()])


def _notes(target: Target) -> list[str]:
    """What makes the numbers differ from published ones."""
    notes, folder = [], target.folder / "sft"
    config = read_config(folder) if (folder / "config.yaml").is_file() else {}
    name = config.get("data", {}).get("name", OFFICIAL[target.task])
    if target.scale == "rehearsal":
        notes.append("A rehearsal with a tiny random model: every number shows that its step works, and nothing else.")
    if name != OFFICIAL[target.task]:
        notes.append(f"The problems are those of {name}, not of {OFFICIAL[target.task]}.")
    if config.get("task", {}).get("split_rows"):
        notes.append("Training and test rows are both from the test files (task.split_rows).")
    if target.limit is not None:
        notes.append(f"Only the first {target.limit} test problems of each level are measured (limit={target.limit}).")
    return notes


def as_table(content: Mapping[str, Any]) -> Table:
    """The numbers as cells."""
    judged = content["task"] == "dialogue"
    counts = ["minus PPO", "minus re-draw", "test problems", "tokens generated"]
    head = ["arm", "published", "ours", *(SIDES if judged else []), *counts]
    rows = [_row(NAMES[arm], row, judged) for arm, row in content["arms"].items()]
    return Table(f"# {content['title']}, in points ({content['scale']})", head, rows)


def remarks(content: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, a paragraph each."""
    tags = "; ".join(f"[{tag}] {meaning}" for tag, meaning in content["tags"].items())
    published = f"Published: {content['source']}; {content['runs']}. {tags}."
    warnings = [f"**{note}**" for note in content["notes"]]
    return [f"{text}\n" for text in (*warnings, published, OURS, *([JUDGED] if content["task"] == "dialogue" else []))]


def _row(name: str, row: Mapping[str, Any], judged: bool) -> list[str]:
    published = "-" if row["tag"] is None else f"{row['published'] or ''} [{row['tag']}]".strip()
    sides = [_mean([part.get(side, 0.0) for part in row["by_seed"].values()]) for side in SIDES] if judged else []
    differences = [_plus_minus(row["minus"][other], "+") for other in ("ppo", "redraw")]
    counts = ["-" if row[key] is None else f"{row[key]:,.0f}" for key in ("problems", "tokens")]
    return [name, published, _ours(name, row), *sides, *differences, *counts]


def _ours(name: str, row: Mapping[str, Any]) -> str:
    if name == NAMES["sft"] and row["ours"] is not None:
        (part,) = row["by_seed"].values()
        return f"{part['points']:.1f} [{part['interval95'][0]:.1f}, {part['interval95'][1]:.1f}]"
    return _plus_minus(row["ours"], "")


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.1f}" if values else "-"


def _plus_minus(found: Mapping[str, Any] | None, sign: str) -> str:
    if found is None:
        return "-"
    mean, seeds = f"{found['mean']:{sign}.1f}", len(found["values"])
    return f"{mean} (1 seed)" if seeds == 1 else f"{mean} ± {found['half95']:.1f} ({seeds} seeds)"
