"""What can be chosen, and where it lies: our configurations, and the folders with parts of a user's own."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rrl.processes.environment import OWN


def conf_dir() -> Path:
    """The folder of configurations: the one that was installed with the package, or the checkout's."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def groups() -> dict[str, list[str]]:
    """Every configuration group and its options, a user's own ones included."""
    names = [folder.name for folder in conf_dir().iterdir() if folder.is_dir()]
    return {name: sorted({option for folder in folders() for option in _options(folder / name)}) for name in names}


def written() -> tuple[tuple[str, int, int, int], ...]:
    """Every configuration that can be chosen, with what tells that its file has changed: inode, time and size."""
    known = groups()
    names = [f"{group}/{option}" for group, options in known.items() for option in options]
    names += [file.stem for file in conf_dir().glob("*.yaml")]
    files = [folder / f"{name}.yaml" for folder in folders() for name in names]
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    return tuple((name, found.st_ino, found.st_mtime_ns, found.st_size) for name, found in stats)


def targets(group: str) -> dict[str, list[tuple[str, frozenset[str]]]]:
    """Of each option of a group the classes that its own file names in ``_target_``, each with the keys it gives."""
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
    """The folders with configurations: ours, then a user's own. A folder of a user's also holds Python modules."""
    own = [Path(name).expanduser().resolve() for name in os.environ.get(OWN, "").split(os.pathsep) if name]
    return (conf_dir(), *dict.fromkeys(own))


def _options(folder: Path) -> list[str]:
    """Configurations below a group's folder; results of experiments are none."""
    root = folder.resolve()
    files = [file.relative_to(root) for file in root.glob("**/*.yaml")]
    return sorted(file.with_suffix("").as_posix() for file in files if "results" not in file.parts)


def take_own_parts() -> list[str]:
    """Let the modules in a user's own folders be imported; returns what is wrong with the folders."""
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
    """The override that lets Hydra find a user's own configurations."""
    own = [str(folder).replace("'", "\\'") for folder in folders()[1:] if folder.is_dir()]
    return "hydra.searchpath=[" + ",".join(f"'file://{folder}'" for folder in own) + "]"
