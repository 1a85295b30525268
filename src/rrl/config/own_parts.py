"""The files of a user's own parts and their digests: results depend on them as on this project and its packages."""

import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rrl.config.choices import folders


def own_files(config: Any) -> dict[str, str]:
    """SHA-256 of the modules of a user's own parts, by name, and of their YAML, by path.

    These are the modules in the folders of RRL_PARTS and the loaded ones of any other package in a ``_target_``; of an
    installed package only the one module, because the manifest has its version.
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
    """A warning where a resumed run's files differ from those ``before``; [] where they do not."""
    other = [name for name, digest in before.items() if now.get(name, digest) != digest]
    gone = [name for name in before if name not in now]
    differences = [*(f"{name} has changed" for name in other), *(f"{name} is gone" for name in gone)]
    if not differences:
        return []
    return [
        f"parts of your own: {', '.join(differences)} since the run began; it continues with the present files and "
        "the keys in its config.yaml; for a repeatable result restore the files or begin a new run"
    ]


def _targets(node: Any) -> Iterator[str]:
    """Every ``_target_`` of a configuration."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for item in node.values():
            yield from _targets(item)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _targets(item)


def _modules() -> dict[str, Path]:
    """Every loaded module with a Python file."""
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return {name: Path(file).resolve() for name, file in files.items() if file and file.endswith(".py")}


def _is_own(name: str, file: Path, folders: list[Path], named: set[str]) -> bool:
    if any(folder in file.parents for folder in folders) or name in named:
        return file.is_file()
    packages = {module.partition(".")[0] for module in named}
    return name.partition(".")[0] in packages and not str(file).startswith(_installed()) and file.is_file()


@cache
def _installed() -> tuple[str, ...]:
    """The folders of Python and its packages."""
    return tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib"))
