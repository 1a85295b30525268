"""The choices and their files: the project's configurations, and folders with a user's own parts."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rrl.processes.environment import OWN


def conf_dir() -> Path:
    """The folder of configurations: the one installed with the package, or the checkout's."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def groups() -> dict[str, list[str]]:
    """Every configuration group and its options, a user's own ones included."""
    places = folders()
    names = [folder.name for folder in places[0].iterdir() if folder.is_dir()]
    return {name: sorted({option for folder in places for option in _options(folder / name)}) for name in names}


def written() -> tuple[tuple[str, int, int, int], ...]:
    """Every configuration file that can be chosen, with its inode, time and size, which show whether it has changed."""
    places = folders()
    names = [f"{group}/{option}" for group, options in groups().items() for option in options]
    names += [file.stem for file in places[0].glob("*.yaml")]
    files = [f"{folder}/{name}.yaml" for folder in places for name in names]
    stats = [(file, os.stat(file)) for file in files if os.path.isfile(file)]
    return tuple((name, found.st_ino, found.st_mtime_ns, found.st_size) for name, found in stats)


def targets(group: str) -> dict[str, list[tuple[str, frozenset[str]]]]:
    """For each option of a group, the classes in its file's ``_target_``s, each with the keys given to it."""
    import yaml

    found = {}
    for folder in folders():
        for option in _options(folder / group):
            node = yaml.safe_load((folder / group / f"{option}.yaml").read_text(encoding="utf-8")) or {}
            classes = list(_nodes(node.get(group, node)))
            if classes:
                found[option] = classes
    return found


def _nodes(node: Any) -> Iterator[tuple[str, frozenset[str]]]:
    """The class and the keys of every mapping with a ``_target_``, the outer one first."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"]), frozenset(node)
        for item in node.values():
            yield from _nodes(item)


def folders() -> tuple[Path, ...]:
    """The folders with configurations: the project's, then a user's own, which also hold Python modules."""
    own = [Path(name).expanduser().resolve() for name in os.environ.get(OWN, "").split(os.pathsep) if name]
    return (conf_dir(), *dict.fromkeys(own))


def _options(folder: Path) -> list[str]:
    """Configurations below a group's folder, without results of experiments."""
    found = []
    for place, inner, files in os.walk(folder):
        inner[:] = [name for name in inner if name != "results"]
        below = Path(place).relative_to(folder)
        found += [(below / name).with_suffix("").as_posix() for name in files if name.endswith(".yaml")]
    return sorted(found)


def take_own_parts() -> list[str]:
    """Make the modules in a user's own folders importable; returns the faults of the folders."""
    ours, *own = folders()
    known = groups()
    taken = {(group, option) for group in known for option in _options(ours / group)}
    faults = []
    for folder in own:
        found = {(group, option) for group in known for option in _options(folder / group)}
        twice = ", ".join("=".join(choice) for choice in sorted(found & taken))
        if not found:
            faults.append(f"{OWN}: {str(folder)!r} has no choice of any group; expected files like sampler/mine.yaml")
        if twice:
            faults.append(f"{OWN}: {str(folder)!r} has {twice}, which is there already; give it another name")
        taken |= found
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    return faults


def search_path() -> str:
    """The override by which Hydra finds a user's own configurations."""
    own = [str(folder).replace("'", "\\'") for folder in folders()[1:] if folder.is_dir()]
    return "hydra.searchpath=[" + ",".join(f"'file://{folder}'" for folder in own) + "]"
