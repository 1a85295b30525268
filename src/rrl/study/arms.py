"""The arms of a comparison, found below folders: runs that differ only in their seed."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rrl.config.choices import walk
from rrl.errors import DataError
from rrl.records.files import read_object, read_yaml
from rrl.records.status import read_state

ASIDE = ("seed", "run", "records", "logger", "launcher", "search")
"""Keys of a configuration in which runs of one arm may differ."""
NOT_NAMING = re.compile(r"(seed|resume|run\.\w+|records|logger[.\w]*|launcher[.\w]*)=")
"""Overrides that do not distinguish arms."""
LONGEST = 120
"""Characters of a name that is made of values."""


def find_arms(places: Sequence[Path]) -> tuple[dict[str, list[Path]], list[str]]:
    """The finished runs in or below these folders by arm, and a line for each run that is left out.

    Runs belong to one arm when their configurations differ only in ``ASIDE``. Arms are named by the overrides that not
    all of them have. Raises DataError where there is no finished run.
    """
    runs = [run for place in places for run in runs_below(place)]
    states = {run: _state(run) for run in runs}
    left_out = [f"left out: {run} ({state})" for run, state in states.items() if state != "finished"]
    arms = arms_of([run for run, state in states.items() if state == "finished"])
    if not arms:
        where = ", ".join(map(str, places))
        raise DataError(f"{where}: no finished run in or below it; expected directories of runs", *left_out)
    return arms, left_out


def arms_of(runs: Sequence[Path]) -> dict[str, list[Path]]:
    """The runs by arm, in whatever state they are."""
    groups: dict[str, list[Path]] = {}
    for run in runs:
        own = {key: value for key, value in _config(run).items() if key not in ASIDE}
        groups.setdefault(json.dumps(own, sort_keys=True, default=str), []).append(run)
    return dict(zip(_arm_names(list(groups.values())), groups.values(), strict=True))


def _config(run: Path) -> dict[str, Any]:
    """A run's configuration, references to secrets as they are; empty where it cannot be read."""
    config, _ = read_yaml(run / "config.yaml")
    return config if isinstance(config, dict) else {}


def _state(run: Path) -> str:
    """The run's own state, or ``pruned`` where a search ended it."""
    state = read_state(run).state
    job, _ = read_object(run.parent / "jobs" / f"{run.name}.json")
    return "pruned" if state == "interrupted" and job.get("state") == "pruned" else state


def runs_below(place: Path) -> list[Path]:
    """The directories of runs in or below a folder, in natural order: 2 before 10."""
    if (place / "config.yaml").is_file():
        return [place]
    inner = [path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return [run for path in sorted(inner, key=_natural) for run in runs_below(path)]


def _natural(path: Path) -> list[tuple[int, str]]:
    """A sort key with the numbers of a name as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name) if part]


def _arm_names(groups: Sequence[Sequence[Path]]) -> list[str]:
    """A name for each group of runs: the overrides of its first run, else its values or, of many, its folder."""
    overrides = [_overrides(group[0]) for group in groups]
    algos = [str(_config(group[0]).get("algo", group[0].name)) for group in groups]
    names = [_distinct(own, overrides) or algo for own, algo in zip(overrides, algos, strict=True)]
    if len(set(names)) == len(names):
        return names
    values = [_values_as_overrides(_config(group[0])) for group in groups]
    names = [_distinct(own, values) for own in values]
    return names if max(map(len, names)) <= LONGEST else [str(group[0]) for group in groups]


def _distinct(own: Sequence[str], all_of_them: Sequence[Sequence[str]]) -> str:
    return " ".join(text for text in own if not all(text in other for other in all_of_them))


def _overrides(run: Path) -> list[str]:
    """The overrides of a run's command line that distinguish arms."""
    command = read_object(run / "manifest.json")[0].get("command")
    command = [text for text in command if isinstance(text, str)] if isinstance(command, list) else []
    return [text for text in command[1:] if "=" in text and not NOT_NAMING.match(text)]


def _values_as_overrides(config: Mapping[str, Any]) -> list[str]:
    own = {key: value for key, value in config.items() if key not in ASIDE}
    return [f"{key}={value}" for key, value in walk(own) if not isinstance(value, Mapping)]
