"""The choices and their files: the project's configurations, and folders with a user's own parts."""

import os
import sys
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from rrl.processes.environment import OWN

Written = tuple[tuple[str, int, int, int], ...]


@cache
def conf_dir() -> Path:
    """The folder of configurations: the one installed with the package, or the checkout's."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def group_names() -> list[str]:
    """Every configuration group."""
    return [entry.name for entry in os.scandir(conf_dir()) if entry.is_dir()]


def groups() -> dict[str, list[str]]:
    """Every configuration group and its options, a user's own ones included."""
    return {name: list(files(name)) for name in group_names()}


def files(group: str) -> dict[str, Path]:
    """The file of each option of a group."""
    found: dict[str, Path] = {}
    for folder in reversed(folders()):
        found |= _options(folder / group)
    return dict(sorted(found.items()))


def written() -> Written:
    """Every configuration file that can be chosen, with its inode, time and size, which show whether it has changed."""
    every = [file for group in group_names() for file in files(group).values()]
    stats = [(str(file), os.stat(file)) for file in (*every, *conf_dir().glob("*.yaml"))]
    return tuple((name, found.st_ino, found.st_mtime_ns, found.st_size) for name, found in stats)


def content(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file; empty for a file of any other content."""
    import yaml

    found = yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return found if isinstance(found, dict) else {}


@lru_cache
def contents(written: Written, own: bool = True) -> list[tuple[str, str]]:
    """The choice ("" for train.yaml itself) and the key of every entry of the files ``written``, a user's ``own`` ones
    included; without experiments."""
    found = [("", key) for key, _ in walk(content(conf_dir() / "train.yaml"))]
    for group in [name for name in group_names() if name != "experiment"]:
        for option, file in (files(group) if own else _options(conf_dir() / group)).items():
            whole = file.read_text(encoding="utf-8").startswith("# @package _global_")
            keys = [key for key, _ in walk(content(file) if whole else {group: content(file)})]
            found += [(f"{group}={option}", key) for key in keys if not key.endswith(("_target_", "defaults"))]
    return found


def walk(node: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a configuration, inner nodes included, dotted, and its value."""
    for key, item in node.items():
        yield f"{path}{key}", item
        if isinstance(item, Mapping):
            yield from walk(item, f"{path}{key}.")


def targets(group: str) -> dict[str, list[tuple[str, frozenset[str]]]]:
    """For each option of a group, the classes in its file's ``_target_``s, each with the keys given to it.

    Those of an option that it builds on are given to the outermost.
    """
    trees = {option: content(file) for option, file in files(group).items()}

    def inherited(option: str) -> set[str]:
        bases = [base for base in trees[option].get("defaults", []) if isinstance(base, str) and base in trees]
        return {key for base in bases for key in (*trees[base], *inherited(base))}

    found = {
        option: [(name, given | inherited(option) if depth == 0 else given) for depth, (name, given) in enumerate(each)]
        for option, tree in trees.items()
        for each in [list(nodes(tree.get(group, tree)))]
    }
    return {option: classes for option, classes in found.items() if classes}


def nodes(node: Any) -> Iterator[tuple[str, frozenset[str]]]:
    """The class and the keys of every mapping with a ``_target_``, the outer one first."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"]), frozenset(node)
        node = list(node.values())
    if isinstance(node, list | tuple):
        for item in node:
            yield from nodes(item)


def folders() -> tuple[Path, ...]:
    """The folders with configurations: the project's, then a user's own, which also hold Python modules."""
    own = [Path(name).expanduser().resolve() for name in os.environ.get(OWN, "").split(os.pathsep) if name]
    return (conf_dir(), *dict.fromkeys(own))


def _options(folder: Path) -> dict[str, Path]:
    """The configurations below a group's folder, without results of experiments."""
    found = {}
    for place, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if name != "results"]
        for file in [os.path.join(place, name) for name in names if name.endswith(".yaml")]:
            found[file.removeprefix(f"{folder}{os.sep}").removesuffix(".yaml")] = Path(file)
    return found


def take_own_parts() -> list[str]:
    """Make the modules in a user's own folders importable; returns the faults of the folders."""
    ours, *own = folders()
    known = group_names() if own else []
    taken = {(group, option) for group in known for option in _options(ours / group)}
    faults = []
    for folder in own:
        found = {(group, option) for group in known for option in _options(folder / group)}
        twice = ", ".join("=".join(choice) for choice in sorted(found & taken))
        if not found:
            what = "has no choice of any group" if folder.is_dir() else "is no folder"
            faults.append(f"{OWN}: {str(folder)!r} {what}; expected one with files like sampler/mine.yaml")
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
