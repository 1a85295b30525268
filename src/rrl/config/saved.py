"""Writing and reading a run's ``config.yaml``: local paths absolute, secrets by reference."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrl.records.files import write_whole
from rrl.records.secrecy import referenced

OF_RUN = ("model", "warmstart", "template", "prompts", "engine", "evaluation", "sandbox", "run", "seed", "algo")
"""What of a run stays when its actor is measured on another task."""


def on_another_task(config: Any, fresh: Any) -> Any:
    """A run's configuration on another task, that of ``fresh``, which also says what ends a response."""
    stop = fresh.engine._get_node("stop")
    for key in [key for key in OF_RUN if key in config]:
        fresh[key] = config._get_node(key)
    fresh.engine.stop = stop
    return fresh


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved configuration as ``config.yaml``, whole or absent."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.yaml", as_yaml(absolute(config)).encode())


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration that ``write_config`` has written."""
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=True)
    assert isinstance(config, dict), "a configuration is a mapping"
    return {str(key): value for key, value in config.items()}


def absolute(node: Any, key: str = "") -> Any:
    """A configuration with paths that exist here made absolute."""
    if isinstance(node, Mapping):
        return {name: absolute(item, str(name)) for name, item in node.items()}
    local = key in ("path", "hostfile") and isinstance(node, str) and Path(node).exists()
    return str(Path(node).absolute()) if local else node


def as_yaml(config: Mapping[str, Any]) -> str:
    """A resolved configuration as text, with references in place of secrets."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(referenced(config)))
