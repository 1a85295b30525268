"""rrl-report: compare arms over seeds at equal budgets of generated tokens, as a table and as one HTML page."""

import glob
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rrl.cli import shell
from rrl.errors import ConfigError, DataError, nearest

HELP = """
rrl-report compares arms (groups of runs, one per seed) at equal budgets of generated tokens.

  rrl-report runs/sweep-<time>                 the runs in or below a folder, grouped by arm and seed
  rrl-report ppo='runs/ppo-s*' rrl='runs/rrl-s*'     arms by name and pattern
  ... out=report.html                          (or --out report.html) one page: curves, rollouts, tokens, replay,
                                               unfinished runs too; report.json beside it has the same
  ... out=DIR                                  report.json, .md and .tex, curves.png and .svg, into a new folder
  ... baseline=ARM                             the arm to compare the others with (the first)
  ... level=L10 mode=mean@4                    accuracy of one level, or of kind:stratum (all problems; sampled)
  ... metric=actor/entropy                     any other number of metrics.jsonl
  ... tokens=1e5,2e5,3e5                       budgets (thirds of what all runs have generated)
  ... keep=40                                  of a page: megabytes of rollouts that it keeps, before they are packed

It prints the table, and on standard error what is left out and why.
"""
SETTINGS = ("out", "level", "mode", "metric", "tokens", "baseline", "keep")
KEEP = 40.0
"""Megabytes of rollouts on a page, which are packed to a third or less."""
POINTS = 500
"""Rows of a run's metrics on a page."""


def main() -> None:
    sys.exit(shell.run_command(_report, HELP))


def _report(arguments: Sequence[str]) -> None:
    places, arms, settings = _parse_arguments(_with_out(arguments))
    if not _is_page(settings.get("out", "")):
        _compare(places, arms, settings)
        return
    _write_page(places, arms, settings)
    try:
        _compare(places, arms, {key: value for key, value in settings.items() if key != "out"})
    except DataError as error:
        print(error, file=sys.stderr)  # the page is there all the same, and says so too


def _with_out(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``out=`` in place of ``--out FILE`` and ``--out=FILE``."""
    texts = [text.removeprefix("--") if text.startswith("--out=") else text for text in arguments]
    if "--out" not in texts:
        return texts
    at = texts.index("--out")
    if at + 1 == len(texts):
        raise ConfigError("--out: nothing after it; expected a file or folder, as in out=report.html")
    return [*texts[:at], f"out={texts[at + 1]}", *texts[at + 2 :]]


def _is_page(out: str) -> bool:
    return Path(out).suffix.lower() in (".html", ".htm")


def _write_page(places: Sequence[Path], named: Mapping[str, list[Path]], settings: Mapping[str, str]) -> None:
    """Write the page, with all runs in whatever state, and report what is amiss on standard error."""
    from rrl.records.run_directory import writable
    from rrl.study.arms import arms_of, runs_below
    from rrl.study.page.html import write_page

    found = arms_of(list(dict.fromkeys(run for place in places for run in runs_below(place))))
    arms = _ordered({**found, **named}, settings.get("baseline"))
    if not arms:
        raise DataError(f"{', '.join(map(str, places))}: no run in or below it; expected directories of runs")
    page = Path(settings["out"]).expanduser()
    writable(page.parent, "out")
    for line in write_page(arms, page, float(settings.get("keep", KEEP)), POINTS):
        print(line, file=sys.stderr)
    print(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB); the same as JSON: {page.with_suffix('.json')}\n")


def _compare(places: Sequence[Path], named: Mapping[str, list[Path]], settings: Mapping[str, str]) -> None:
    """Print the table of finished runs, and write it and its curves into the folder ``out`` if there is one."""
    from rrl.records.files import whole_folder
    from rrl.records.plots import learning_curves
    from rrl.records.run_directory import writable, write_json
    from rrl.study.arms import find_arms
    from rrl.study.comparable import comparable
    from rrl.study.comparison import Measure, as_table, compare_arms, marks

    found, left_out = find_arms(places) if places else ({}, [])
    measure = Measure(settings.get("metric", "accuracy"), settings.get("mode"), settings.get("level"))
    arms, others = comparable(_ordered({**found, **named}, settings.get("baseline")), measure)
    left_out += others
    budgets = _budgets(settings["tokens"]) if "tokens" in settings else marks(arms, measure)
    result = compare_arms(arms, measure, budgets)
    table = as_table(result)
    if "out" in settings:
        with whole_folder(writable(Path(settings["out"]).expanduser(), "out")) as out:
            write_json(out / "report.json", result)
            (out / "report.md").write_text("\n".join([table.markdown(), *left_out]), encoding="utf-8")
            (out / "report.tex").write_text(table.latex(), encoding="utf-8")
            curves = {arm: [measure.points(folder) for folder in folders] for arm, folders in arms.items()}
            pictures = (out / "curves.png", out / "curves.svg")
            learning_curves({measure.level or "all problems": curves}, measure.heading(), "", *pictures)
    for line in left_out:
        print(line, file=sys.stderr)
    print(table.markdown())


def _parse_arguments(arguments: Sequence[str]) -> tuple[list[Path], dict[str, list[Path]], dict[str, str]]:
    """Folders with runs, the arms by name, and the settings, all checked; raises ConfigError."""
    places = [Path(text).expanduser() for text in arguments if "=" not in text or os.path.isdir(text)]
    named = [text.partition("=")[::2] for text in arguments if "=" in text and not os.path.isdir(text)]
    given = dict(named)
    settings = {key: given[key] for key in SETTINGS if key in given}
    arms = {arm: sorted(map(Path, glob.glob(pattern))) for arm, pattern in given.items() if arm not in SETTINGS}
    faults = [
        f"{place}: no such folder; expected one with runs, or NAME=PATTERN" for place in places if not place.is_dir()
    ]
    faults += _faults([name for name, _ in named], settings)
    faults += [
        f"{arm}: no run matches {given[arm]!r}; expected run directories{nearest(arm, list(SETTINGS))}"
        for arm in arms
        if not arms[arm]
    ]
    if not arms and not places:
        faults.append("no run given; expected a folder with runs, or NAME=PATTERN, as in ppo='runs/ppo-s*'")
    out = settings.get("out", "")
    if _is_page(out) and Path(out).expanduser().is_dir():
        faults.append(f"out: {out!r} is a folder; expected a file for the page; give another name")
    if "out" in settings and not _is_page(out) and Path(out).expanduser().exists():
        faults.append(f"out: {settings['out']!r} exists; expected a new folder; give another name or move it away")
    if faults:
        raise ConfigError(*faults)
    return places, arms, settings


def _faults(names: Sequence[str], settings: dict[str, str]) -> list[str]:
    """Faults of the settings, and repeated names."""
    faults = [f"{name}: given twice; keep one" for name in dict.fromkeys(names) if names.count(name) > 1]
    if "tokens" in settings and not _budgets(settings["tokens"]):
        faults.append(
            f"tokens: expected whole numbers with commas between them, as in 1e5,2e5, got {settings['tokens']!r}"
        )
    if "keep" in settings and not _is_megabytes(settings["keep"]):
        faults.append(f"keep: expected megabytes of rollouts, a number from 0, as in keep=40, got {settings['keep']!r}")
    metric = settings.get("metric", "accuracy")
    unused = [name for name in ("level", "mode") if name in settings and metric != "accuracy"]
    return faults + [
        f"{name}: {settings[name]!r} is of an accuracy, and metric is {metric!r}; keep one of both" for name in unused
    ]


def _ordered(arms: Mapping[str, list[Path]], baseline: str | None) -> dict[str, list[Path]]:
    """The arms with the baseline first."""
    if baseline is None:
        return dict(arms)
    if baseline not in arms:
        raise ConfigError(f"baseline: no arm {baseline!r}; expected one of {', '.join(map(repr, arms))}")
    return {baseline: arms[baseline], **arms}


def _budgets(text: str) -> list[int]:
    """Whole numbers separated by commas (100000, 100_000, 1e5); empty when one of them is invalid."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return []
    return [int(number) for number in numbers] if all(n >= 0 and n.is_integer() for n in numbers) else []


def _is_megabytes(text: str) -> bool:
    try:
        return 0 <= float(text) < math.inf
    except ValueError:
        return False


if __name__ == "__main__":
    main()
