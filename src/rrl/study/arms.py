"""Which runs are alike: the arms of a comparison, found below folders, each with a run a seed."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rrl.config.compose import walk
from rrl.config.saved import read_config
from rrl.errors import DataError
from rrl.records.status import read_state

ASIDE = ("seed", "run", "logger", "launcher", "search")
"""Keys of a configuration in which runs of one arm may differ."""
NOT_NAMING = re.compile(r"(seed|resume|run\.\w+|logger[.\w]*|launcher[.\w]*)=")
"""Overrides that say nothing of an arm."""


def find_arms(places: Sequence[Path]) -> tuple[dict[str, list[Path]], list[str]]:
    """The finished runs in or below these folders by arm, and a line for each run that is left out.

    Runs are of one arm when their configurations differ in nothing but ``ASIDE``. Arms are named by the overrides that
    not all of them have. Raises DataError where there is none.
    """
    runs = [run for place in places for run in runs_below(place)]
    states = {run: read_state(run).state for run in runs}
    left_out = [f"left out: {run} ({state})" for run, state in states.items() if state != "finished"]
    groups: dict[str, list[Path]] = {}
    for run in dict.fromkeys(runs):
        if states[run] == "finished":
            groups.setdefault(_configuration(run), []).append(run)
    if not groups:
        where = ", ".join(map(str, places))
        raise DataError(f"{where}: no finished run in or below it; expected directories of runs", *left_out)
    return dict(zip(_names(list(groups.values())), groups.values(), strict=True)), left_out


def runs_below(place: Path) -> list[Path]:
    """The directories of runs in or below a folder, 2 before 10."""
    if (place / "config.yaml").is_file():
        return [place]
    inner = [path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return [run for path in sorted(inner, key=_natural) for run in runs_below(path)]


def _natural(path: Path) -> list[tuple[int, str]]:
    """A name's numbers as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name) if part]


def _configuration(run: Path) -> str:
    """What a run was trained by, as text; equal for two seeds of one arm."""
    return json.dumps({key: value for key, value in read_config(run).items() if key not in ASIDE}, sort_keys=True)


def _names(groups: Sequence[Sequence[Path]]) -> list[str]:
    """A name for each group of runs, by the overrides of its first or, where these do not tell, by its values."""
    told = [_overrides(group[0]) for group in groups]
    names = [_distinct(own, told) for own in told]
    if len(set(names)) == len(names) and ("" not in names or len(names) == 1):
        return [name or str(read_config(group[0])["algo"]) for name, group in zip(names, groups, strict=True)]
    values = [_values(read_config(group[0])) for group in groups]
    return [_distinct(own, values) for own in values]


def _distinct(own: Sequence[str], all_of_them: Sequence[Sequence[str]]) -> str:
    return " ".join(text for text in own if not all(text in other for other in all_of_them))


def _overrides(run: Path) -> list[str]:
    """What the command line of a run said of its arm."""
    path = run / "manifest.json"
    command = json.loads(path.read_text(encoding="utf-8"))["command"] if path.is_file() else []
    return [text for text in command[1:] if "=" in text and not NOT_NAMING.match(text)]


def _values(config: Mapping[str, Any]) -> list[str]:
    """Every value of a configuration as an override."""
    own = {key: value for key, value in config.items() if key not in ASIDE}
    return [f"{key}={value}" for key, value in walk(own) if not isinstance(value, Mapping)]
