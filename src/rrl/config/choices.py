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
    names = [folder.name for folder in conf_dir().iterdir() if folder.is_dir()]
    return {name: sorted({option for folder in folders() for option in _options(folder / name)}) for name in names}


def written() -> tuple[tuple[str, int, int, int], ...]:
    """Every configuration file that can be chosen, with its inode, time and size, which show whether it has changed."""
    known = groups()
    names = [f"{group}/{option}" for group, options in known.items() for option in options]
    names += [file.stem for file in conf_dir().glob("*.yaml")]
    files = [folder / f"{name}.yaml" for folder in folders() for name in names]
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
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
    root = folder.resolve()
    files = [file.relative_to(root) for file in root.glob("**/*.yaml")]
    return sorted(file.with_suffix("").as_posix() for file in files if "results" not in file.parts)


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
