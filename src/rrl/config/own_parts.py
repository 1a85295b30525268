"""The files of a user's own parts and their digests: results depend on them as on this project and its packages."""

import hashlib
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rrl.config.choices import folders, group_names, nodes
from rrl.contracts.calling import LIBRARY, PACKAGES


def own_files(config: Any) -> dict[str, str]:
    """SHA-256 of the modules of a user's own parts, by name, and of their YAML, by path.

    These are the modules in the folders of RRL_PARTS and the loaded ones of any other package in a ``_target_``; of an
    installed package only the one module, because the manifest has its version.
    """
    own = folders()[1:]
    named = {target.rpartition(".")[0] for target, _ in nodes(config) if not target.startswith("rrl.")}
    modules = list(sys.modules.items()) if own or named else []
    files = {name: getattr(module, "__file__", None) for name, module in modules}
    loaded = {name: Path(file).resolve() for name, file in files.items() if file and file.endswith(".py")}
    found = {name: file for name, file in loaded.items() if _is_own(name, file, own, named)}
    for folder in own:
        yamls = [file for group in group_names() for file in (folder / group).glob("**/*.yaml")]
        found |= {file.relative_to(folder).as_posix(): file for file in yamls}
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


def _is_own(name: str, file: Path, folders: Collection[Path], named: set[str]) -> bool:
    if any(folder in file.parents for folder in folders) or name in named:
        return file.is_file()
    packages = {module.partition(".")[0] for module in named}
    return name.partition(".")[0] in packages and not str(file).startswith((LIBRARY, *PACKAGES)) and file.is_file()
