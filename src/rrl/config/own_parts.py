"""The files of a user's own parts, by content: what a result depends on beside this project and its packages."""

import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rrl.config.choices import folders


def own_files(config: Any) -> dict[str, str]:
    """SHA-256 of the modules that parts of a user's own were imported from, by name, and of their YAML, by path.

    Those are the modules in the folders of RRL_PARTS and, of a package elsewhere that a ``_target_`` names, those that
    are loaded; of an installed package the one module, for the manifest has the versions of packages.
    """
    ours, *own = folders()
    named = {target.rpartition(".")[0] for target in _targets(config) if not target.startswith("rrl.")}
    loaded = _modules() if own or named else {}
    found = {name: file for name, file in loaded.items() if _is_own(name, file, own, named)}
    groups = [folder.name for folder in ours.iterdir() if folder.is_dir()]
    for folder in own:
        files = [file for group in groups for file in (folder / group).glob("**/*.yaml")]
        found |= {file.relative_to(folder).as_posix(): file for file in files}
    return {name: hashlib.sha256(found[name].read_bytes()).hexdigest() for name in sorted(found)}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is to be told of a run that goes on with other files than it began with; ``before`` may be of long ago."""
    other = [name for name, digest in before.items() if now.get(name, digest) != digest]
    gone = [name for name in before if name not in now]
    told = [*(f"{name} has changed" for name in other), *(f"{name} is gone" for name in gone)]
    if not told:
        return []
    return [
        f"parts of your own: {', '.join(told)} since the run began; it goes on with what is there now, by the keys in "
        "its config.yaml; bring the files back, or begin a new run, if the result is to be one that can be repeated"
    ]


def _targets(node: Any) -> Iterator[str]:
    """Every class that a configuration names."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for item in node.values():
            yield from _targets(item)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _targets(item)


def _modules() -> dict[str, Path]:
    """Every loaded module that is a file of Python."""
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return {name: Path(file).resolve() for name, file in files.items() if file and file.endswith(".py")}


def _is_own(name: str, file: Path, folders: list[Path], named: set[str]) -> bool:
    if any(folder in file.parents for folder in folders) or name in named:
        return file.is_file()
    packages = {module.partition(".")[0] for module in named}
    return name.partition(".")[0] in packages and not str(file).startswith(_installed()) and file.is_file()


@cache
def _installed() -> tuple[str, ...]:
    """Where Python and its packages are."""
    return tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib"))
