"""rrl-report: compare arms over seeds at equal budgets of generated tokens."""

import glob
import sys
from collections.abc import Sequence
from pathlib import Path

from rrl.cli import shell
from rrl.errors import ConfigError, nearest

HELP = """
rrl-report compares arms (groups of runs, one per seed) at equal budgets of generated tokens.

  rrl-report runs/sweep-<time>                 the runs in or below a folder, grouped by arm and seed
  rrl-report ppo='runs/ppo-s*' rrl='runs/rrl-s*'     arms by name and pattern
  ... baseline=ARM                             the arm to compare the others with (the first)
  ... level=L10 mode=mean@4                    accuracy of one level, or of kind:stratum (all problems; sampled)
  ... metric=actor/entropy                     any other number of metrics.jsonl
  ... tokens=1e5,2e5,3e5                       budgets (thirds of what all runs have generated)
  ... out=DIR                                  report.json, report.md and curves.png, into a new folder

It prints the table.
"""
SETTINGS = ("out", "level", "mode", "metric", "tokens", "baseline")


def main() -> None:
    sys.exit(shell.run_command(_report, HELP))


def _report(arguments: Sequence[str]) -> None:
    from rrl.records.plots import learning_curves
    from rrl.records.run_directory import writable, write_json
    from rrl.study.arms import find_arms
    from rrl.study.comparison import Measure, as_markdown, compare_arms, marks

    places, arms, settings = _parse_arguments(arguments)
    found, left_out = find_arms(places) if places else ({}, [])
    arms = _ordered({**found, **arms}, settings.get("baseline"))
    measure = Measure(settings.get("metric", "accuracy"), settings.get("mode"), settings.get("level"))
    budgets = _budgets(settings["tokens"]) if "tokens" in settings else marks(arms, measure)
    result = compare_arms(arms, measure, budgets)
    table = "\n".join([as_markdown(result), *left_out])
    if "out" in settings:
        out = writable(Path(settings["out"]).expanduser(), "out")
        write_json(out / "report.json", result)
        (out / "report.md").write_text(table, encoding="utf-8")
        curves = {arm: [measure.points(folder) for folder in folders] for arm, folders in arms.items()}
        learning_curves({measure.level or "all problems": curves}, measure.heading(), "", out / "curves.png")
    print(table)


def _parse_arguments(arguments: Sequence[str]) -> tuple[list[Path], dict[str, list[Path]], dict[str, str]]:
    """Folders with runs, the arms by name, and the settings, all checked; raises ConfigError."""
    places = [Path(text).expanduser() for text in arguments if "=" not in text or Path(text).is_dir()]
    named = [text.partition("=")[::2] for text in arguments if "=" in text and not Path(text).is_dir()]
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
    if "out" in settings and Path(settings["out"]).expanduser().exists():
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
    metric = settings.get("metric", "accuracy")
    unused = [name for name in ("level", "mode") if name in settings and metric != "accuracy"]
    return faults + [
        f"{name}: {settings[name]!r} is of an accuracy, and metric is {metric!r}; keep one of both" for name in unused
    ]


def _ordered(arms: dict[str, list[Path]], baseline: str | None) -> dict[str, list[Path]]:
    """The arms with the baseline first."""
    if baseline is None:
        return arms
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


if __name__ == "__main__":
    main()
